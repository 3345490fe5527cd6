# SPDX-License-Identifier: GPL-2.0
"""make fuzz VENDOR=amd|intel TIME=10m: random histories on pairs of VMs. `make test` runs those of the
corpus, and random ones for some seconds, without kcov."""

import argparse
import os
import re

import boot
import products
import results
from suites import job, variant

_CORPUS = os.path.join(products.REPO, "tools", "fuzz", "corpus")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
# The number of steps of the short form. Without kcov, they are the same in every run.
_SHORT = {"amd": 20_000, "intel": 3_000}
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


def main():
    """Runs kvm-msr-fuzz, and keeps what it found."""
    options = _options()
    vendor = options.vendor
    seconds, steps, least = options.time, options.steps, 1
    if options.short:
        seconds, steps, least = 3600, _SHORT[vendor], _SHORT[vendor]
    arguments = ["--seconds", str(seconds), "--steps", str(steps), "--seed", str(options.seed)]
    if options.update:
        arguments.append("--minimise")
    vm = start(vendor, arguments=arguments)
    log, kernel = vm.run(job("fuzz.sh"), timeout=seconds + _MORE_TIME[vendor], show=print)

    reports = log.json()
    found = log.frames_of("difference")
    tests = []
    if reports:
        report = reports[-1]
        tests.append(results.test("no difference", report["differences"] == 0,
                                  f"{report['differences']} in {report['steps']} steps" +
                                  "".join(f"; to keep it as a test, add this line to "
                                          f"tools/fuzz/corpus/mended.jsonl: {text}" for text in found)))
        tests.append(results.test("enough steps", report["steps"] >= least,
                                  f"{report['steps']} steps, {least} must be compared"))
    else:
        report = {}
        tests.append(results.test("kvm-msr-fuzz", False, f"exit code {log.exit_code}"))
    tests.append(results.kernel_log(kernel))
    if options.update and not found:
        kept = log.frames_of("corpus")
        if kept:
            with open(os.path.join(_CORPUS, f"{vendor}.jsonl"), "w", encoding="utf-8") as file:
                file.write("".join(f"{text}\n" for text in kept))
    return results.conclude(name(), tests, kernel=vm.kernel.version, shortest=found,
                            **report)
