# SPDX-License-Identifier: GPL-2.0
"""make run: runs a sample on real KVM, served by the engine."""

import boot
import products
import results
from suites import job


def main():
    """Shows the sample's output; passes if the engine handled all of its accesses."""
    vm = boot.Vm(products.Kernel(), programs=products.programs())
    print()
    log, kernel = vm.run(job("run.sh"), timeout=120, show=print)
    tests = [results.test("msr_filter", log.exit_code == 0, f"exit code {log.exit_code}"
                          if log.exit_code else ""),
             results.test("served by the engine",
                          any(line.startswith("Proven:") for line in log.lines)),
             results.kernel_log(kernel)]
    print()
    return results.conclude("run", tests, kernel=vm.kernel.version)
