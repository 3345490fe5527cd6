# SPDX-License-Identifier: GPL-2.0
"""make test: runs every suite, even if others fail, and adds up their results. With KERNEL=, those for
another of the project's kernels: make test-hardened and others."""

import os
import subprocess
import sys
import tempfile
import threading
import time

import products
import results
from suites import on_variant, variant

# For each kernel, the suites that run one after the other, and those that run beside them, one after
# the other as well. Bochs has one CPU. A second emulator does not disturb the benchmark, which counts
# instructions.
_PLANS = {
    "base": (["lint", "host-test", "speculation", "kunit", "check", "bench", "selftests-amd",
              "sweep-short-amd", "sweep-short-intel", "fuzz-short-amd", "kvmsr-amd", "vmm"],
             ["selftests-intel", "check-intel", "kvmsr-intel", "fuzz-short-intel"]),
    "lean": (["kunit", "check", "sweep-short-amd"], []),
    "debug": (["kunit", "check"], []),
    "hardened": (["kunit", "check", "immediate", "bench", "selftests-amd", "sweep-short-amd",
                  "check-intel", "immediate-intel", "sweep-short-intel"], ["selftests-intel"]),
    "kcsan": (["kunit", "check", "sweep-short-amd"], ["check-intel", "sweep-short-intel"]),
    "kasan": (["kunit", "check", "sweep-short-amd"], ["check-intel", "sweep-short-intel"]),
}


def _command(suite):
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    target = [sys.executable, os.path.join(here, "target.py")]
    if suite in ("check", "immediate"):
        suite += "-amd"
    for prefix, arguments in (("selftests-", ["selftests"]), ("sweep-short-", ["sweep", "--short"]),
                              ("fuzz-short-", ["fuzz", "--short"]),
                              ("check-", ["check"]), ("kvmsr-", ["kvmsr"]),
                              ("immediate-", ["check", "--immediate"])):
        if suite.startswith(prefix):
            return [*target, *arguments, "--vendor", suite.removeprefix(prefix)]
    return [*target, suite]


def name():
    """The name of the results file."""
    return on_variant("test")


def _build(suites):
    """Builds everything that more than one suite needs, before they run."""
    kernel = products.Kernel(variant())
    builds = [kernel.engine, products.programs]
    if any(suite.startswith("selftests-") for suite in suites):
        builds.append(kernel.selftests)
    if any(suite.startswith("kvmsr-") for suite in suites):
        builds += [products.kvmsr, lambda: products.Kernel("tracing").engine()]
    for build in builds:
        try:
            build()
        except products.BuildError:
            # The suites that need it will fail, and say why.
            pass


def _tests_of(suite, code):
    """The suite's tests. Adds a failed one if it wrote no results, or failed without a failed test."""
    left = results.read(on_variant(suite))
    if left is None:
        return [results.test(suite, False, "it wrote no results")]
    tests = left["tests"] + left.get("run", [])
    if code and not results.count(tests)[1]:
        tests = tests + [results.test(suite, False, f"exit code {code}")]
    return tests


class _Lane:
    """Suites that run one after the other."""

    def __init__(self, suites, log=None):
        """The suites write to `log`, if there is one."""
        # The exit code and the minutes of each suite that has run.
        self.done = {}
        self._suites = suites
        self._log = log
        self._process = None
        self._stopped = False

    def run(self):
        """Runs the suites, even if some fail."""
        for suite in self._suites:
            if self._stopped:
                break
            print(f"\n=== {suite}", file=self._log, flush=True)
            start = time.monotonic()
            self._process = subprocess.Popen(_command(suite), stdout=self._log,
                                             stderr=self._log and subprocess.STDOUT,
                                             stdin=subprocess.DEVNULL)
            code = self._process.wait()
            self.done[suite] = code, (time.monotonic() - start) / 60

    def stop(self):
        """Ends the suite that runs. The others don't run."""
        self._stopped = True
        if self._process:
            self._process.terminate()
            self._process.wait()


def _run(suites, beside):
    """Runs both lists of suites at the same time. Returns the exit code and the minutes of each."""
    first = _Lane(suites)
    # What is appended does not depend on where the file is being read.
    with tempfile.TemporaryFile("a+") as log:
        second = _Lane(beside, log)
        thread = threading.Thread(target=second.run)
        thread.start()
        try:
            first.run()
            if beside:
                print("\n(the following were started together with the first)", flush=True)
            shown = 0
            while True:
                ended = not thread.is_alive()
                log.seek(shown)
                print(log.read(), end="", flush=True)
                shown = log.tell()
                if ended:
                    break
                time.sleep(1)
        except BaseException:
            first.stop()
            second.stop()
            raise
        finally:
            thread.join()
    return {**first.done, **second.done}


def main():
    """Runs all suites of a kernel's plan and prints a table."""
    if variant() not in _PLANS:
        raise ValueError(f"there is no plan for KERNEL={variant()}, only for " + ", ".join(_PLANS))
    suites, beside = _PLANS[variant()]
    for suite in suites + beside:
        results.forget(on_variant(suite))
    _build(suites + beside)
    started = time.monotonic()
    done = _run(suites, beside)

    print(f"\n{'':20}{'passed':>8}{'failed':>8}{'skipped':>8}")
    total = []
    for suite, (code, minutes) in done.items():
        tests = _tests_of(suite, code)
        total += [{**entry, "name": f"{suite}: {entry['name']}"} for entry in tests]
        print(f"{suite:20}" + "".join(f"{number:8}" for number in results.count(tests)) +
              f"{minutes:8.1f} min")
    minutes = (time.monotonic() - started) / 60
    print(f"{'all':20}" + "".join(f"{number:8}" for number in results.count(total)) +
          f"{minutes:8.1f} min\n")
    return results.conclude(name(), total, minutes=round(minutes, 1))
