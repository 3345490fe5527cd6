# SPDX-License-Identifier: GPL-2.0
"""make sweep VENDOR=amd|intel: every MSR of C and of the engine, value by value; or, with NESTED=1,
nested state, byte by byte."""

import argparse
import os

import boot
import products
import results
from suites import job

# How many observations have to be compared: vendor, nested, quick.
_AT_LEAST = {("amd", False, False): 1_000_000, ("intel", False, False): 100_000,
             ("amd", False, True): 100_000, ("intel", False, True): 100_000,
             ("amd", True, False): 100_000, ("intel", True, False): 10_000,
             ("amd", True, True): 10_000, ("intel", True, True): 10_000}
_TIMEOUT = {"amd": 3600, "intel": 7200}


def _options():
    parser = argparse.ArgumentParser(prog="sweep")
    parser.add_argument("--vendor", choices=("amd", "intel"),
                        default=os.environ.get("VENDOR") or "amd")
    parser.add_argument("--nested", action="store_true", default=bool(os.environ.get("NESTED")),
                        help="nested state, not MSRs")
    parser.add_argument("--few-models", action="store_true", help="two CPUIDs, no irqchip")
    parser.add_argument("--quick", action="store_true",
                        help="fewer of the unknown MSRs, and fewer values")
    return parser.parse_args()


def name():
    """The name of the results file."""
    options = _options()
    return f"sweep-{'nested-' if options.nested else ''}{options.vendor}"


def main():
    """Runs kvm-msr-sweep and takes its verdict over."""
    options = _options()
    vm = boot.Vm(products.Kernel(), kind={"amd": "qemu", "intel": "bochs"}[options.vendor],
                 programs=products.programs())
    slow = options.vendor == "intel"
    arguments = []
    if options.quick:
        arguments.append("--quick")
    if options.nested:
        arguments.append("--nested")
    elif options.few_models or options.quick and slow:
        arguments.append("--few-models")
    vm.initramfs.add("sweep/arguments", " ".join(arguments) + "\n", 0o644)
    log, kernel = vm.run(job("sweep.sh"), timeout=_TIMEOUT[options.vendor], show=print)
    if not log.json():
        tests = [results.test("kvm-msr-sweep", False, f"exit code {log.exit_code}")]
        return results.conclude(name(), tests, kernel=vm.kernel.version)
    report = log.json()[-1]
    least = _AT_LEAST[options.vendor, options.nested, options.quick]
    tests = [
        results.test("no difference", report["differences"] == 0,
                     f"{report['differences']} of {report['cases']} differ, the first: "
                     f"{report['first'][:1]}"),
        results.test("enough cases", report["cases"] >= least,
                     f"{report['cases']} cases, {least} must be compared"),
        results.kernel_log(kernel),
    ]
    return results.conclude(name(), tests, kernel=vm.kernel.version, **report)
