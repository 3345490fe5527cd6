# SPDX-License-Identifier: GPL-2.0
"""make check VENDOR=amd|intel: compares scenarios on C and on the engine in QEMU or Bochs, and tests
lifetimes."""

import argparse
import os

import boot
import products
import results
from suites import job, on_variant, variant


def _options():
    parser = argparse.ArgumentParser(prog="check")
    parser.add_argument("--test", default="", help="run tests whose names contain this")
    parser.add_argument("--policies", type=int, default=150, help="number of random policies")
    parser.add_argument("--load-seconds", type=int, default=3,
                        help="how long policies are replaced while vCPUs run")
    parser.add_argument("--vendor", choices=("amd", "intel"),
                        default=os.environ.get("VENDOR") or "amd")
    return parser.parse_args()


def name():
    """The name of the results file."""
    return on_variant("check" if _options().vendor == "amd" else "check-intel")


def main():
    """Runs kvm-msr-check and collects its results."""
    options = _options()
    kind = {"amd": "qemu", "intel": "bochs"}[options.vendor]
    vm = boot.Vm(products.Kernel(variant()), kind=kind, programs=products.programs())
    vm.initramfs.add("check/test", options.test, 0o644)
    vm.initramfs.add("check/options", f"--policies {options.policies} "
                     f"--load-seconds {options.load_seconds}", 0o644)
    timeout = 600 if (variant(), options.vendor) == ("base", "amd") else 2400
    # Even on a busy host, a policy takes no longer than a tenth of a second.
    timeout += options.policies // 10 + options.load_seconds
    log, kernel = vm.run(job("check.sh"), timeout=timeout, show=print)
    tests = [entry for report in log.json() for entry in report["tests"]]
    tests.append(results.kernel_log(kernel))
    if log.exit_code and not results.count(tests)[1]:
        tests.append(results.test("kvm-msr-check", False, f"exit code {log.exit_code}"))
    elif not log.json():
        tests.append(results.test("kvm-msr-check", False, "it printed no results"))
    return results.conclude(name(), tests, kernel=vm.kernel.version)
