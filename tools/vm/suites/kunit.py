# SPDX-License-Identifier: GPL-2.0
"""make kunit: runs the module's KUnit suites, which start when it is loaded."""

import os
import re
import subprocess
import sys
import tempfile

import boot
import products
import results
from suites import job, on_variant, variant

# The lines of a module's KTAP: a suite, and the indented line of a test in it.
_SUITE = re.compile(r"^\s*# Subtest: (\S+)")
_CASE = re.compile(r"^ {4}(\s*)(not ok|ok) \d+ -? ?(.*?)( # SKIP.*)?$")


def module_ktap(lines):
    """The module's KTAP: the last one in the log, as the kernel's own suites run earlier, at boot."""
    starts = [number for number, line in enumerate(lines) if line.startswith("KTAP version")]
    return lines[starts[-1]:] if starts and not _booting(lines[starts[-1]:]) else []


def _booting(lines):
    return any(line.startswith("Run /init as init process") for line in lines)


def cases(lines):
    """The test cases of the KTAP in these lines."""
    suite = ""
    tests = []
    for line in lines:
        if match := _SUITE.match(line):
            suite = match.group(1)
        elif match := _CASE.match(line):
            _, verdict, name, skipped = match.groups()
            entry = results.test(f"{suite}.{name}", verdict == "ok")
            if skipped:
                entry["result"] = "skip"
            tests.append(entry)
    return tests


def name():
    """The name of the results file."""
    return on_variant("kunit")


def main():
    """Loads the module with its tests, and parses the kernel's log with the kernel's kunit.py."""
    vm = boot.Vm(products.Kernel(variant()), engine="kunit", load_engine=False)
    log, kernel = vm.run(job("kunit.sh"), timeout=300 if variant() == "base" else 1800, show=print)
    plain = module_ktap(kernel.plain())
    with tempfile.NamedTemporaryFile("w", suffix=".log") as file:
        file.write("\n".join(plain) + "\n")
        file.flush()
        tool = os.path.join(vm.kernel.source, "tools/testing/kunit/kunit.py")
        sys.stdout.flush()
        parsed = subprocess.run([sys.executable, tool, "parse", file.name], check=False)
    tests = cases(plain)
    tests.append(results.test("kunit.py", parsed.returncode == 0,
                              "" if parsed.returncode == 0 else "it found failures"))
    if len(tests) == 1:
        tests.append(results.test("suites", False, "the module ran no KUnit suite"))
    if log.exit_code:
        tests.append(results.test("insmod", False, f"exit code {log.exit_code}"))
    tests.append(results.kernel_log(kernel))
    return results.conclude(name(), tests, kernel=vm.kernel.version)
