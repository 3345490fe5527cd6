# SPDX-License-Identifier: GPL-2.0
"""make test: runs every suite, even if others fail, and adds up their results."""

import os
import subprocess
import sys
import tempfile
import time

import products
import results

# The suites run one after the other, in this order.  Bochs has one CPU, so selftests-intel runs beside
# them.  That does not disturb the benchmark, which counts instructions.
_BESIDE = "selftests-intel"
_SUITES = ["lint", "host-test", "speculation", "kunit", "check", "bench", "selftests-amd",
           "sweep-short-amd", "check-intel", "sweep-short-intel", "kvmsr-amd", "kvmsr-intel", "vmm"]


def _command(suite):
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    target = [sys.executable, os.path.join(here, "target.py")]
    for prefix, arguments in (("selftests-", ["selftests"]), ("sweep-short-", ["sweep", "--short"]),
                              ("check-", ["check"]), ("kvmsr-", ["kvmsr"])):
        if suite.startswith(prefix):
            return [*target, *arguments, "--vendor", suite.removeprefix(prefix)]
    return [*target, suite]


def _build():
    """Builds everything that more than one suite needs, before they run."""
    kernel, tracing = products.Kernel(), products.Kernel("tracing")
    for build in (kernel.engine, tracing.engine, products.programs, products.kvmsr,
                  kernel.selftests):
        try:
            build()
        except products.BuildError:
            # The suites that need it will fail, and say why.
            pass


def _tests_of(suite, code):
    """The suite's tests. Adds a failed one if it wrote no results, or failed without a failed test."""
    left = results.read(suite)
    if left is None:
        return [results.test(suite, False, "it wrote no results")]
    tests = left["tests"] + left.get("run", [])
    if code and not results.count(tests)[1]:
        tests = tests + [results.test(suite, False, f"exit code {code}")]
    return tests


def main():
    """Runs all suites and prints a table."""
    for suite in (*_SUITES, _BESIDE):
        results.forget(suite)
    _build()
    started = time.monotonic()
    took = {}
    codes = {}
    with tempfile.TemporaryFile("w+") as log:
        beside = subprocess.Popen(_command(_BESIDE), stdout=log, stderr=subprocess.STDOUT,
                                  stdin=subprocess.DEVNULL)
        try:
            for suite in _SUITES:
                print(f"\n=== {suite}", flush=True)
                start = time.monotonic()
                codes[suite] = subprocess.run(_command(suite), check=False).returncode
                took[suite] = time.monotonic() - start
            print(f"\n=== {_BESIDE} (was started together with the first)", flush=True)
            shown = 0
            while True:
                ended = beside.poll() is not None
                log.seek(shown)
                print(log.read(), end="", flush=True)
                shown = log.tell()
                if ended:
                    break
                time.sleep(1)
            codes[_BESIDE] = beside.returncode
            took[_BESIDE] = time.monotonic() - started
        finally:
            if beside.poll() is None:
                beside.terminate()
                beside.wait()

    print(f"\n{'':20}{'passed':>8}{'failed':>8}{'skipped':>8}")
    total = []
    for suite in (*_SUITES, _BESIDE):
        tests = _tests_of(suite, codes[suite])
        total += [{**entry, "name": f"{suite}: {entry['name']}"} for entry in tests]
        print(f"{suite:20}" + "".join(f"{number:8}" for number in results.count(tests)) +
              f"{took[suite] / 60:8.1f} min")
    print(f"{'all':20}" + "".join(f"{number:8}" for number in results.count(total)) +
          f"{(time.monotonic() - started) / 60:8.1f} min\n")
    return results.conclude("test", total)
