# SPDX-License-Identifier: GPL-2.0
"""make coverage: which lines and branches of msrs.c, of the vendors' get and set, and of rust/engine/ the
judges reach. QEMU and Bochs run side by side. Each branch of msrs.c and rust/engine/ must be reached, or have
a reason in tools/vm/coverage/reasons.toml."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

import products
import results
from coverage import c, engine, judges, reasons, report
from coverage import functions as counted

# In percent of the branches. The vendors' code has more that no emulator's CPU has, above all Intel PT.
_LEAST = 95
_LEAST_OF_VENDORS = 60
_HOST = os.path.join(products.RESULTS, "coverage", "host")


def _options():
    parser = argparse.ArgumentParser(prog="coverage")
    parser.add_argument("--vendor", choices=("amd", "intel"), help="run this vendor's judges only, no report")
    parser.add_argument("--judge", action="append", default=[], help="run only this judge; may be repeated")
    parser.add_argument("--full", action="store_true",
                        help="run the whole sweeps instead of the quick ones; takes hours")
    parser.add_argument("--report", action="store_true", help="report on the counters of the last runs")
    parser.add_argument("--propose", action="store_true",
                        help="print entries for reasons.toml for the branches that have none")
    return parser.parse_args()


def name():
    """The name of the results file of this run, which is removed when it begins."""
    options = _options()
    return _of_vendor(options.vendor) if options.vendor and not options.judge else "coverage"


def _of_vendor(vendor):
    return f"coverage-{vendor}"


def _run_vendor(vendor, options):
    """Runs the vendor's judges and stores their counters. Keeps the results of those that don't run."""
    kernel = products.Kernel("coverage")
    tests = []
    for judge in judges.of(vendor, options.full):
        if not options.judge or judge.name in options.judge:
            tests += judges.run(kernel, vendor, judge)
    # Only now: the file is removed when a run of all begins.
    ran = {test["name"] for test in tests}
    kept = results.read(_of_vendor(vendor)) if options.judge else None
    tests = [test for test in (kept or {"tests": []})["tests"] if test["name"] not in ran] + tests
    return results.conclude(_of_vendor(vendor), tests, kernel=kernel.version)


def _run_host():
    """Runs cargo's tests. Returns the test program."""
    shutil.rmtree(_HOST, ignore_errors=True)
    program, passed = engine.run_host(_HOST)
    results.write("coverage-host", [results.test("host: engine-host", passed)], program=program)


def _command(vendor, options):
    target = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target.py")
    return [sys.executable, target, "coverage", "--vendor", vendor, *(["--full"] if options.full else []),
            *(f"--judge={judge}" for judge in options.judge)]


def _run_all(options):
    """Runs all judges, Bochs beside the rest."""
    # What both would build otherwise.
    kernel = products.Kernel("coverage")
    kernel.engine("coverage")
    kernel.selftests()
    products.programs()
    with tempfile.TemporaryFile("w+") as log:
        beside = subprocess.Popen(_command("intel", options), stdout=log, stderr=log,
                                  stdin=subprocess.DEVNULL)
        try:
            _run_vendor("amd", options)
            _run_host()
            print("\n(Bochs was started together with QEMU)", flush=True)
            beside.wait()
        finally:
            beside.terminate()
            beside.wait()
            log.seek(0)
            print(log.read(), flush=True)


def _c_functions(kernel):
    """C's functions. An engine's VM enters none of msrs.c but the hooks, so there all runs count; of the
    vendors' objects, those that have the same done by a VM of C."""
    runs = {judges.directory(vendor, judge.name): judge.counts_c
            for vendor in ("amd", "intel") for judge in judges.of(vendor)}
    return list(c.functions(kernel, runs))


def _engine_functions(kernel, where):
    """The engine's functions as reached on the host, in the kernel, or both."""
    counts = engine.Counts()
    with tempfile.NamedTemporaryFile(suffix=".profdata") as scratch:
        if "kernel" in where:
            profiles = {"coverage": [], "kunit-coverage": []}
            for vendor in ("amd", "intel"):
                for judge in judges.of(vendor):
                    path = os.path.join(judges.directory(vendor, judge.name), "engine.profraw")
                    if judge.engine and os.path.exists(path):
                        profiles[judge.engine].append(path)
            for variant, paths in profiles.items():
                if paths:
                    counts.add(kernel.engine(variant), paths, scratch.name)
        left = results.read("coverage-host")
        if "host" in where and left:
            counts.add(left["program"], [os.path.join(_HOST, "engine.profraw")], scratch.name)
    return list(counts.functions())


def _tests_of_judges():
    """The judges' tests. One that has not run fails."""
    for vendor, names in (("amd", [f"amd: {judge.name}" for judge in judges.of("amd")]),
                          ("intel", [f"intel: {judge.name}" for judge in judges.of("intel")]),
                          ("host", ["host: engine-host"])):
        tests = (results.read(_of_vendor(vendor)) or {"tests": []})["tests"]
        yield from tests
        for missing in sorted(set(names) - {test["name"] for test in tests}):
            yield results.test(missing, False, "it has not run")


def _tests_of(title, functions, least, needs_reasons=True):
    """The tests of a part of the code: one of each function, and one of all."""
    for function in functions if needs_reasons else ():
        missing = [branch for branch in function.branches if not branch.count and not branch.reason]
        yield results.test(f"{function.file}: {function.name}", not missing,
                           "; ".join(f"line {branch.line}, `{branch.text}` to `{branch.to}`: neither reached "
                                     "nor a reason" for branch in missing[:3]) +
                           (f" and {len(missing) - 3} more" if len(missing) > 3 else ""))
    reached = counted.share(counted.total(functions))
    yield results.test(f"{title}: {least} % of the branches", reached >= least, f"{reached:.1f} %")


def _report(options):
    kernel = products.Kernel("coverage")
    of_c = _c_functions(kernel)
    of_engine = _engine_functions(kernel, ("host", "kernel"))
    msrs = [function for function in of_c if function.file == f"{c.MSRS}.c"]
    others = [function for function in of_c if function.file != f"{c.MSRS}.c"]
    wrong = reasons.apply(msrs + of_engine, reasons.read())
    if options.propose:
        print(*reasons.propose(msrs + of_engine), sep="\n")
        return 0
    # Alone, neither has to have a reason for what the other reaches.
    alone = {where: _engine_functions(kernel, (where,)) for where in ("host", "kernel")}

    tests = [*_tests_of_judges(),
             *_tests_of("msrs.c", msrs, _LEAST),
             *_tests_of("the vendors", others, _LEAST_OF_VENDORS, needs_reasons=False),
             *_tests_of("rust/engine", of_engine, _LEAST),
             results.test("reasons.toml is current", not wrong, "; ".join(wrong[:5]))]
    for line in report.table(msrs + others + of_engine):
        print(line)
    parts = [("C: msrs.c", msrs), ("C: the vendors' get and set", others),
             ("rust/engine/, on the host and in the kernel", of_engine)]
    report.write(parts)
    totals = {title: counted.total(functions) for title, functions in
              [*parts, *((f"rust/engine/, {where} alone", found) for where, found in alone.items())]}
    for title, total in totals.items():
        print(f"{title:46}{counted.share(total):6.1f} % of {total['branches']:5} branches,"
              f"{counted.share(total, 'lines'):6.1f} % of {total['lines']:5} lines")
    print(f"What is not reached, and why: {os.path.relpath(report.FILE)}")
    return results.conclude("coverage", tests, kernel=kernel.version, totals=totals,
                            functions=[function.summary() for function in msrs + others + of_engine])


def main():
    """Runs the judges and reports."""
    options = _options()
    if options.vendor:
        return _run_vendor(options.vendor, options)
    if not options.report and not options.propose:
        _run_all(options)
    return _report(options)
