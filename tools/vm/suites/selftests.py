# SPDX-License-Identifier: GPL-2.0
"""make selftests VENDOR=amd|intel: the kernel tree's KVM selftests on C and on the engine."""

import argparse
import os
import time
from collections import Counter

import boot
import products
import results
from suites import job, on_variant, variant

# The minimum number of tests that must pass with the engine. Bochs fails too many by itself.
_MUST_PASS = {"amd": 50, "intel": 0}
# Limit per test, in seconds of the machine's clock.
_LIMIT = {"amd": 60, "intel": 30}
_TIMEOUT = {"amd": 1800, "intel": 3600}
# Seconds of CPU time after which an emulator without output counts as hung.
_SILENCE = {"amd": 120, "intel": 60}
# Stress tests of memory slots, page tables, interrupts and CPU hotplug. They take minutes each in an
# emulator, some are flaky there, and they use no MSR code.  --all runs them, too.
_HEAVY = {"access_tracking_perf_test", "demand_paging_test", "dirty_log_perf_test",
          "dirty_log_test", "hardware_disable_test", "irq_test", "kvm_page_table_test",
          "memslot_modification_stress_test", "memslot_perf_test", "mmu_stress_test",
          "pre_fault_memory_test", "rseq_test", "set_memory_region_test"}
# The maximum number of boots. If a test hangs the emulator, the run continues in a new boot.
_BOOTS = 6


class Progress:
    """Collects the machine's frames, and prints a line per test."""

    def __init__(self, total):
        self.runs = {}
        # The test and side that is running.
        self.current = None
        self._total = total
        self._start = time.monotonic()

    def frame(self, word, text):
        """Handles one frame."""
        if word == "start":
            self.current = tuple(text.split())
        if word != "verdict":
            return
        self.current = None
        name, side, verdict, milliseconds = text.split()
        self.runs.setdefault(name, {"c": [], "engine": []})[side].append(verdict)
        runs = self.runs[name]
        if side == "engine":
            again = f"  (run {len(runs['engine'])})" if len(runs["engine"]) > 1 else ""
            same = "" if runs["c"][-1] == verdict else "  <- will run again"
            print(f"[{time.monotonic() - self._start:5.0f} s] {len(self.runs):3}/{self._total} "
                  f"{os.path.basename(name):40} C {runs['c'][-1]:8} engine {verdict:8}"
                  f"{int(milliseconds) / 1000:6.1f} s{again}{same}", flush=True)

    def left(self, tests):
        """The tests that have not run: (test, sides)."""
        for test in tests:
            runs = self.runs.get(test, {"c": [], "engine": []})
            sides = [side for side in ("c", "engine") if not runs[side]]
            if sides:
                yield test, sides

    def again(self):
        """The tests whose verdicts differ so far: (test, C's verdict, the engine's verdict)."""
        for test, runs in self.runs.items():
            if runs["c"] and runs["engine"] and _majority(runs["c"]) != _majority(runs["engine"]):
                yield test, _majority(runs["c"]), _majority(runs["engine"])


def _majority(verdicts):
    """The most frequent verdict."""
    return Counter(verdicts).most_common(1)[0][0] if verdicts else "missing"


def entry_of(name, runs):
    """A test's entry. It fails if the most frequent verdicts of C and the engine differ."""
    c, engine = _majority(runs["c"]), _majority(runs["engine"])
    entry = {"name": os.path.basename(name), "c": c, "engine": engine,
             "result": "pass" if c == engine and c != "missing" else "fail"}
    if len(runs["c"]) > 1:
        entry["runs"] = runs
        entry["flaky"] = c == engine
    if entry["result"] == "fail":
        entry["message"] = f"C: {', '.join(runs['c'])}; engine: {', '.join(runs['engine'])}"
    return entry


def _print_summary(tests, vendor):
    print()
    counts = {side: Counter(entry[side] for entry in tests) for side in ("c", "engine")}
    kinds = ("pass", "skip", "fail", "timeout", "missing")
    print("        " + "".join(f"{kind:>9}" for kind in kinds))
    for side, title in (("c", "C"), ("engine", "engine")):
        print(f"{title:8}" + "".join(f"{counts[side][kind]:9}" for kind in kinds))
    bad = [entry for entry in tests if entry["c"] == entry["engine"]
           and entry["c"] in ("fail", "timeout")]
    emulator = {"amd": "QEMU", "intel": "Bochs"}[vendor]
    if bad:
        print(f"failures on both sides, so {emulator} causes them: " +
              ", ".join(f"{entry['name']} ({entry['c']})" for entry in bad))
    for entry in tests:
        if entry.get("flaky"):
            print(f"flaky in {emulator}: {entry['name']}: C {', '.join(entry['runs']['c'])}; "
                  f"engine {', '.join(entry['runs']['engine'])}")
    equal = sum(entry["c"] == entry["engine"] != "missing" for entry in tests)
    print(f"{equal} verdicts equal, {len(tests) - equal} different")


def _run_all(vm, vendor, listed, progress):
    """Runs the tests, in one boot unless the emulator hangs. Returns the tests of the run itself."""
    splats = []
    for _ in range(_BOOTS):
        left = list(progress.left(listed))
        vm.initramfs.add("selftests/list", "".join(
            f"{test} {' '.join(sides)}\n" for test, sides in left), 0o644)
        vm.initramfs.add("selftests/again", "".join(
            " ".join(entry) + "\n" for entry in progress.again()), 0o644)
        try:
            _, kernel = vm.run(job("selftests.sh"), timeout=_TIMEOUT[vendor],
                               silence=_SILENCE[vendor], show=print, on_frame=progress.frame)
            splats += kernel.splats
            break
        except boot.Hung as error:
            if progress.current:
                test, side = progress.current
                print(f"{test} on {side} hangs the emulator; continuing in a new boot")
                progress.frame("verdict", f"{test} {side} timeout 0")
            else:
                print(f"{str(error).splitlines()[0]} between two tests; continuing in a new boot")
            if not list(progress.left(listed)) and not list(progress.again()):
                break
        except boot.RunError as error:
            print(error)
            return [results.test("the machine stays up", False, str(error).splitlines()[0])]
    for splat in splats:
        print("the kernel's log has:\n" + "\n".join("  " + line for line in splat))
    return [results.test("kernel log", not splats,
                         splats[0][0] if splats else "")]


def _options():
    parser = argparse.ArgumentParser(prog="selftests")
    parser.add_argument("--vendor", choices=("amd", "intel"),
                        default=os.environ.get("VENDOR") or "amd")
    parser.add_argument("--only", help="tests whose names contain this")
    parser.add_argument("--all", action="store_true",
                        help="also run the stress tests, which take long and use no MSR code")
    parser.add_argument("--no-engine", action="store_true",
                        help="run C on both sides, to find flaky tests")
    return parser.parse_args()


def name():
    """The name of the results file."""
    return on_variant(f"selftests-{_options().vendor}")


def main():
    """Runs all tests and compares their verdicts."""
    options = _options()
    vendor = options.vendor

    vm = boot.Vm(products.Kernel(variant()), kind={"amd": "qemu", "intel": "bochs"}[vendor],
                 engine=None if options.no_engine else "plain")
    directory = vm.kernel.selftests()
    with open(os.path.join(directory, "list"), encoding="utf-8") as file:
        listed = [test for test in file.read().split()
                  if (options.only or "") in test and (options.all or test not in _HEAVY)]
    for test in listed:
        vm.initramfs.add_file(f"selftests/{test}", os.path.join(directory, "bin", test))
    vm.initramfs.add_tree("", os.path.join(directory, "lib"))
    vm.initramfs.add("selftests/limit", f"{_LIMIT[vendor]}\n", 0o644)

    progress = Progress(len(listed))
    more = _run_all(vm, vendor, listed, progress)
    tests = [entry_of(test, progress.runs.get(test, {"c": [], "engine": []}))
             for test in listed]
    _print_summary(tests, vendor)
    passed = sum(entry["engine"] == "pass" for entry in tests)
    if not options.only and passed < _MUST_PASS[vendor]:
        more.append(results.test("enough tests pass", False,
                                 f"{passed} pass with the engine, {_MUST_PASS[vendor]} must"))
    # `tests` has the selftests only; tests of the run itself are in `run`.
    failures = [entry for entry in more if entry["result"] == "fail"]
    results.write(name(), tests, kernel=vm.kernel.version, run=more)
    results.summarise(name(), tests + failures)
    return 1 if results.count(tests + failures)[1] else 0
