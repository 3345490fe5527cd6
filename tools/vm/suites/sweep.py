# SPDX-License-Identifier: GPL-2.0
"""make sweep VENDOR=amd|intel: compares every MSR on C and on the engine; with NESTED=1, nested state.
`make test` runs a short form of both, and the sample nested_save_restore."""

import argparse
import os

import boot
import products
import results
from suites import job, on_variant, variant

# The minimum number of comparisons, in the full and in the short form.
_MSRS = {"amd": (1_000_000, 100_000), "intel": (100_000, 50_000)}
_NESTED = {"amd": (100_000, 10_000), "intel": (10_000, 10_000)}
_TIMEOUT = {"amd": 7200, "intel": 21600}
_SAMPLES = [f"{one}, then {other}" for one in ("c", "rust") for other in ("c", "rust")]


def _options():
    parser = argparse.ArgumentParser(prog="sweep")
    parser.add_argument("--vendor", choices=("amd", "intel"),
                        default=os.environ.get("VENDOR") or "amd")
    parser.add_argument("--nested", action="store_true", default=bool(os.environ.get("NESTED")),
                        help="compare nested state instead of MSRs")
    parser.add_argument("--short", action="store_true",
                        help="compare both, with one CPUID and fewer values, and run the sample")
    return parser.parse_args()


def name():
    """The name of the results file."""
    options = _options()
    kind = "short-" if options.short else "nested-" if options.nested else ""
    return on_variant(f"sweep-{kind}{options.vendor}")


def _tests_of(title, report, least):
    """The tests of one run of kvm-msr-sweep."""
    return [
        results.test(f"{title}: no difference", report["differences"] == 0,
                     f"{report['differences']} of {report['cases']} differ, the first: "
                     f"{report['first'][:1]}"),
        results.test(f"{title}: enough cases", report["cases"] >= least,
                     f"{report['cases']} cases, {least} must be compared"),
    ]


def main():
    """Runs kvm-msr-sweep and collects its results."""
    options = _options()
    vendor = options.vendor
    runs = [("MSRs", "", _MSRS), ("nested state", "--nested", _NESTED)]
    if not options.short:
        runs = [runs[options.nested]]
    short = " --quick --models 1" if options.short else ""

    vm = boot.Vm(products.Kernel(variant()), kind={"amd": "qemu", "intel": "bochs"}[vendor],
                 programs=products.programs())
    vm.initramfs.add("sweep/arguments",
                     "".join(f"{arguments}{short}\n" for _, arguments, _ in runs), 0o644)
    if options.short:
        vm.initramfs.add("sweep/sample", "", 0o644)
    log, kernel = vm.run(job("sweep.sh"), timeout=_TIMEOUT[vendor], show=print)

    reports = [report for report in log.json() if "cases" in report]
    tests = []
    for (title, _, least), report in zip(runs, reports):
        tests += _tests_of(title, report, least[vendor][options.short])
    if len(reports) < len(runs):
        tests.append(results.test("kvm-msr-sweep", False, f"exit code {log.exit_code}"))
    if options.short:
        ended = [report["sample"] for report in log.json() if "sample" in report]
        tests += [results.test(f"nested state saved and restored: {sample}", sample in ended,
                               "" if sample in ended else f"exit code {log.exit_code}")
                  for sample in _SAMPLES]
    tests.append(results.kernel_log(kernel))
    # For other programs: what was compared, and the first differences.
    more = reports[0] if len(reports) == 1 else {"runs": reports}
    return results.conclude(name(), tests, kernel=vm.kernel.version, **more)
