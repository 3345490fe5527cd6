# SPDX-License-Identifier: GPL-2.0
"""make fuzz VENDOR=amd|intel TIME=10m: random histories on pairs of VMs. `make test` runs those of the
corpus, and random ones for some seconds, without kcov."""

import argparse
import concurrent.futures
import os
import re
import time

import boot
import products
import results
from suites import job, variant

_CORPUS = os.path.join(products.REPO, "tools", "fuzz", "corpus")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
# The number of steps of the short form. Without kcov, they are the same in every run.
_SHORT = {"amd": 40_000, "intel": 20_000}
# The emulator hangs if it uses so many seconds of CPU time without a line of progress, which comes every
# ten seconds, except while a difference is reduced or the corpus is read. After some hangs, it is over.
_SILENCE = 900
_HANGS = 5
_PROGRESS = re.compile(r" +\d+ s: (\d+) steps ")
# For booting, the corpus, the reduction of differences and the minimisation.
_MORE_TIME = {"amd": 1800, "intel": 7200}


def _seconds(text):
    """The seconds of a time like 90, 10m or 2h."""
    match = re.fullmatch(r"(\d+)([smh]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is no time: give e.g. TIME=90s, TIME=10m or TIME=2h")
    return int(match.group(1)) * _UNITS[match.group(2)]


def _options():
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--vendor", choices=("amd", "intel"),
                        default=os.environ.get("VENDOR") or "amd")
    parser.add_argument("--time", type=_seconds, default=os.environ.get("TIME") or "10m",
                        help="how long to search for differences")
    parser.add_argument("--steps", type=int, default=os.environ.get("STEPS") or 1 << 62,
                        help="the number of compared steps after which to end, if that is earlier")
    parser.add_argument("--seed", type=lambda text: int(text, 0),
                        default=os.environ.get("SEED") or "0x6b766d2d6d737200",
                        help="the source of everything random")
    parser.add_argument("--machines", type=int, default=os.environ.get("MACHINES") or 1,
                        help="how many emulators run at the same time")
    parser.add_argument("--short", action="store_true", help="as in make test")
    parser.add_argument("--update", action="store_true", default=bool(os.environ.get("UPDATE")),
                        help="replace the corpus by the histories that are worth keeping")
    return parser.parse_args()


def name():
    """The name of the results file."""
    options = _options()
    return f"fuzz-short-{options.vendor}" if options.short else f"fuzz-{options.vendor}"


def _corpus(vendor):
    """The histories to start with: those of differences that were found and mended, then others."""
    text = ""
    for file in ("mended", vendor):
        path = os.path.join(_CORPUS, f"{file}.jsonl")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as opened:
                text += opened.read()
    return text


def start(vendor, *, engine=None, arguments=()):
    """A machine that is ready to fuzz, with this kvm-msr.ko instead of the checkout's."""
    kernel = products.Kernel(variant())
    vm = boot.Vm(kernel, kind={"amd": "qemu", "intel": "bochs"}[vendor],
                 programs=products.programs())
    if engine:
        vm.initramfs.add_file("lib/modules/kvm-msr.ko", engine)
    vm.initramfs.add("fuzz/corpus", _corpus(vendor), 0o644)
    vm.initramfs.add("fuzz/arguments", " ".join(arguments), 0o644)
    return vm


class _Machine:
    """Runs kvm-msr-fuzz until it has run for so long, or compared so many steps. If the emulator hangs,
    it goes on in another boot, with another seed."""

    def __init__(self, options, number, seconds, steps):
        self._options = options
        self._number = number
        self._deadline = time.monotonic() + seconds
        self._steps = steps
        # The machine's last line of progress.
        self._told = 0
        self.reports = []
        self.kernels = []
        self.shortest = []
        self.unrepeated = []
        self.corpus = []
        self.hung = 0
        self.failed = None

    def _show(self, line):
        print(f"{self._number}: {line}" if self._options.machines > 1 else line)
        if match := _PROGRESS.match(line):
            self._told = int(match.group(1))

    def _boot(self, seed):
        seconds = max(1, int(self._deadline - time.monotonic()))
        arguments = ["--seconds", str(seconds), "--steps", str(self._steps), "--seed", str(seed)]
        if self._options.update:
            arguments.append("--minimise")
        vm = start(self._options.vendor, arguments=arguments)
        self._told = 0
        try:
            log, kernel = vm.run(job("fuzz.sh"), timeout=seconds + _MORE_TIME[self._options.vendor],
                                 silence=_SILENCE, show=self._show)
        except boot.Hung as error:
            print(f"{error}\nGoing on in another boot", flush=True)
            self.hung += 1
            self._steps -= self._told
            return False
        self.kernels.append(kernel)
        self.reports += log.json()
        self.shortest += log.frames_of("difference")
        self.unrepeated += log.frames_of("unrepeated")
        self.corpus += log.frames_of("corpus")
        if not log.json():
            self.failed = f"exit code {log.exit_code}"
        return True

    def run(self):
        """Boots until it is done."""
        # Machines must not do the same.
        seed = self._options.seed + 1000 * self._number
        while not self._boot(seed) and self.hung < _HANGS and self._steps > 0 \
                and time.monotonic() < self._deadline:
            seed += 1


def _together(options, seconds, steps):
    """Runs the machines, at the same time."""
    machines = [_Machine(options, number, seconds, -(-steps // options.machines))
                for number in range(options.machines)]
    if options.machines == 1:
        machines[0].run()
        return machines
    with concurrent.futures.ThreadPoolExecutor(options.machines) as pool:
        try:
            for future in [pool.submit(machine.run) for machine in machines]:
                future.result()
        except KeyboardInterrupt:
            # The pool would wait for its threads. The emulators end with them.
            os._exit(130)
    return machines


def _sum(machines):
    """The machines' reports as one."""
    reports = [report for machine in machines for report in machine.reports]
    total = {key: sum(report[key] for report in reports)
             for key in ("steps", "histories", "differences", "unrepeated")}
    if any(report["pairs"] for report in reports):
        total["pairs"] = max(report["pairs"] for report in reports)
    return total | {"seconds": max((report["seconds"] for report in reports), default=0),
                    "seeds": [report["seed"] for report in reports],
                    "corpus": max((report["corpus"] for report in reports), default=0),
                    "hung": sum(machine.hung for machine in machines)}


def main():
    """Runs kvm-msr-fuzz, and keeps what it found."""
    options = _options()
    seconds, steps, least = options.time, options.steps, 1
    if options.short:
        seconds, steps, least = 3600, _SHORT[options.vendor], _SHORT[options.vendor]
    kernel = products.Kernel(variant())
    products.programs()
    kernel.engine()
    machines = _together(options, seconds, steps)

    report = _sum(machines)
    shortest = [text for machine in machines for text in machine.shortest]
    keep = "".join(f"; to keep it as a test, add this line to tools/fuzz/corpus/mended.jsonl: {text}"
                   for text in shortest)
    tests = [results.test("no difference", report["differences"] == 0,
                          f"{report['differences']} in {report['steps']} steps{keep}"),
             results.test("enough steps", report["steps"] >= least,
                          f"{report['steps']} steps, {least} must be compared")]
    for machine in machines:
        if machine.failed or machine.hung >= _HANGS:
            tests.append(results.test("kvm-msr-fuzz", False, machine.failed or "the emulator hangs"))
        tests += [results.kernel_log(log) for log in machine.kernels]
    kept = [text for machine in machines for text in machine.corpus]
    if kept and not shortest:
        with open(os.path.join(_CORPUS, f"{options.vendor}.jsonl"), "w", encoding="utf-8") as file:
            file.write("".join(f"{text}\n" for text in kept))
    unrepeated = [text for machine in machines for text in machine.unrepeated]
    return results.conclude(name(), tests, kernel=kernel.version, shortest=shortest,
                            listed_unrepeated=unrepeated, **report)
