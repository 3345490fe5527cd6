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
    parser.add_argument("--loads", type=int, default=20,
                        help="how often the engine is loaded and unloaded")
    parser.add_argument("--vendor", choices=("amd", "intel"),
                        default=os.environ.get("VENDOR") or "amd")
    parser.add_argument("--immediate", action="store_true",
                        help="run the guests' RDMSR and WRMSR as their immediate forms, and the tests "
                        "of these only")
    return parser.parse_args()


def name():
    """The name of the results file."""
    options = _options()
    suite = "immediate" if options.immediate else "check"
    return on_variant(suite if options.vendor == "amd" else f"{suite}-intel")


def main():
    """Runs kvm-msr-check and collects its results."""
    options = _options()
    kind = {"amd": "qemu", "intel": "bochs"}[options.vendor]
    vm = boot.Vm(products.Kernel(variant()), kind=kind, programs=products.programs())
    if options.immediate:
        vm.initramfs.add_file("check/kvm_immediate.ko", vm.kernel.check_module("immediate"))
        options.test = "immediate forms"
    vm.initramfs.add("check/test", options.test, 0o644)
    vm.initramfs.add("check/options", f"--policies {options.policies} "
                     f"--load-seconds {options.load_seconds} --loads {options.loads}", 0o644)
    timeout = 600 if (variant(), options.vendor) == ("base", "amd") else 2400
    # Even on a busy host, a policy takes no longer than a tenth of a second.
    # Loading and unloading waits for each CPU, several times.
    timeout += options.policies // 10 + options.load_seconds + 4 * options.loads
    log, kernel = vm.run(job("check.sh"), timeout=timeout, show=print)
    tests = [entry for report in log.json() for entry in report["tests"]]
    tests.append(results.kernel_log(kernel))
    if log.exit_code and not results.count(tests)[1]:
        tests.append(results.test("kvm-msr-check", False, f"exit code {log.exit_code}"))
    elif len(tests) < 2:
        tests.append(results.test("kvm-msr-check", False, "it ran no test"))
    return results.conclude(name(), tests, kernel=vm.kernel.version)
