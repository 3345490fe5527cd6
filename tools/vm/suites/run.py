# SPDX-License-Identifier: GPL-2.0
"""make run: a sample on real KVM, served by the engine."""

import boot
import products
import results
from suites import job


def main():
    """Shows the sample's output; passes if it says that all went as it should."""
    vm = boot.Vm(products.Kernel(), programs=products.programs())
    print()
    log, kernel = vm.run(job("run.sh"), timeout=120, show=print)
    tests = [results.test("msr_filter", log.exit_code == 0, f"exit code {log.exit_code}"
                          if log.exit_code else ""),
             results.kernel_log(kernel)]
    print()
    return results.conclude("run", tests, kernel=vm.kernel.version)
