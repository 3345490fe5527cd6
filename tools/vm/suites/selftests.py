# SPDX-License-Identifier: GPL-2.0
"""make selftests VENDOR=amd|intel: the kernel tree's KVM selftests on C and on the engine."""

import argparse
import os
import time
from collections import Counter

import boot
import products
import results
from suites import job

# How many have to pass with the engine, where the emulator lets them.
_MUST_PASS = {"amd": 50, "intel": 0}
# Seconds per test, of the guest's clock.
_LIMIT = {"amd": 60, "intel": 60}
_TIMEOUT = {"amd": 1800, "intel": 3600}


class Progress:
    """Takes the machine's frames, and shows a line per test."""

    def __init__(self, total):
        self.runs = {}
        self._total = total
        self._start = time.monotonic()

    def frame(self, word, text):
        """One verdict."""
        if word != "verdict":
            return
        name, side, verdict, milliseconds = text.split()
        self.runs.setdefault(name, {"c": [], "engine": []})[side].append(verdict)
        runs = self.runs[name]
        if side == "engine":
            again = f"  (run {len(runs['engine'])})" if len(runs["engine"]) > 1 else ""
            same = "" if runs["c"][-1] == verdict else "  <- to be run again"
            print(f"[{time.monotonic() - self._start:5.0f} s] {len(self.runs):3}/{self._total} "
                  f"{os.path.basename(name):40} C {runs['c'][-1]:8} engine {verdict:8}"
                  f"{int(milliseconds) / 1000:6.1f} s{again}{same}", flush=True)


def _majority(verdicts):
    """The verdict that most runs had."""
    return Counter(verdicts).most_common(1)[0][0] if verdicts else "missing"


def entry_of(name, runs):
    """A test's entry: it differs only if it does so reproducibly."""
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
        print(f"the same on both, so {emulator}'s own failures: " +
              ", ".join(f"{entry['name']} ({entry['c']})" for entry in bad))
    for entry in tests:
        if entry.get("flaky"):
            print(f"flaky under {emulator}: {entry['name']}: C {', '.join(entry['runs']['c'])}; "
                  f"engine {', '.join(entry['runs']['engine'])}")
    equal = sum(entry["c"] == entry["engine"] != "missing" for entry in tests)
    print(f"{equal} verdicts equal, {len(tests) - equal} different")


def _options():
    parser = argparse.ArgumentParser(prog="selftests")
    parser.add_argument("--vendor", choices=("amd", "intel"),
                        default=os.environ.get("VENDOR") or "amd")
    parser.add_argument("--only", help="tests whose names contain this")
    parser.add_argument("--no-engine", action="store_true",
                        help="C on both sides, to see how steady the emulator is")
    return parser.parse_args()


def name():
    """The name of the results file."""
    return f"selftests-{_options().vendor}"


def main():
    """Runs them all in one boot and compares, verdict by verdict."""
    options = _options()
    vendor = options.vendor

    vm = boot.Vm(products.Kernel(), kind={"amd": "qemu", "intel": "bochs"}[vendor],
                 engine=None if options.no_engine else "plain")
    directory = vm.kernel.selftests()
    with open(os.path.join(directory, "list"), encoding="utf-8") as file:
        listed = [test for test in file.read().split() if test.startswith("x86/")
                  and (options.only or "") in test]
    for test in listed:
        vm.initramfs.add_file(f"selftests/{test}", os.path.join(directory, "bin", test))
    vm.initramfs.add_tree("", os.path.join(directory, "lib"))
    vm.initramfs.add("selftests/list", "".join(f"{test}\n" for test in listed), 0o644)
    vm.initramfs.add("selftests/limit", f"{_LIMIT[vendor]}\n", 0o644)

    progress = Progress(len(listed))
    more = []
    try:
        _, kernel = vm.run(job("selftests.sh"), timeout=_TIMEOUT[vendor], show=print,
                           on_frame=progress.frame)
        # Tests provoke KVM's own complaints, on C as on the engine, so these do not decide.
        for splat in kernel.splats:
            print("the kernel complained:\n" + "\n".join("  " + line for line in splat))
        more.append(results.test("no complaint of the kernel", not kernel.splats,
                                 kernel.splats[0][0] if kernel.splats else ""))
    except boot.RunError as error:
        print(error)
        more.append(results.test("the machine stays up", False, str(error).splitlines()[0]))

    tests = [entry_of(test, progress.runs.get(test, {"c": [], "engine": []}))
             for test in listed]
    _print_summary(tests, vendor)
    passed = sum(entry["engine"] == "pass" for entry in tests)
    if not options.only and passed < _MUST_PASS[vendor]:
        more.append(results.test("enough tests pass", False,
                                 f"{passed} pass with the engine, {_MUST_PASS[vendor]} must"))
    # The list of tests is the selftests' own; what is about the run stands beside it.
    failures = [entry for entry in more if entry["result"] == "fail"]
    results.write(name(), tests, kernel=vm.kernel.version, run=more)
    results.summarise(name(), tests + failures)
    return 1 if results.count(tests + failures)[1] else 0
