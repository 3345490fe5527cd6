# SPDX-License-Identifier: GPL-2.0
"""make host-test: builds and tests the files of rust/engine/, and the parts of kvmsr that need no KVM,
with cargo on the host; and tests make drift."""

import os
import re
import subprocess

import products
import results
from drift import test_drift
from suites import cargo_environment

_VERDICT = re.compile(r"^test (.+?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)")


def run_tests(command, environment):
    """Runs cargo test, prints its output, and returns its results."""
    tests = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        for line in run.stdout:
            print(line, end="", flush=True)
            if match := _VERDICT.match(line):
                entry = results.test(match.group(1), match.group(2) == "ok")
                if match.group(2) == "ignored":
                    entry["result"] = "skip"
                tests.append(entry)
    if run.returncode and not results.count(tests)[1]:
        tests.append(results.test("cargo test", False, f"exit code {run.returncode}"))
    return tests


def main():
    """Runs the tests of the packages that need no kernel."""
    # Optimised, as the tests judge some hundred thousand random filters.
    command = ["/usr/bin/cargo", "test", "--release", "--locked", "--no-fail-fast",
               "--manifest-path", os.path.join(products.REPO, "tools", "Cargo.toml"),
               "--package", "engine-host", "--package", "kvmsr"]
    tests = run_tests(command, {**os.environ, **cargo_environment()})
    return results.conclude("host-test", tests + test_drift.run())
