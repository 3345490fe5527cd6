# SPDX-License-Identifier: GPL-2.0
"""make test-trace: tests which functions of msrs.c run while the engine serves all VMs: only those that
call the engine, and those that stay in C.  It uses the debug kernel's function profiler."""

import os
import re
import subprocess
from collections import Counter

import boot
import products
import results
from suites import job

# What stays in C: the host MSRs that KVM switches, the host's capabilities, the code that runs when
# modules are loaded and VMs destroyed, and the test write of IA32_SPEC_CTRL on the host's CPU by which
# the vendor modules check a value.
_STAYS = re.compile(r"user_return|^kvm_get_arch_capabilities$|^kvm_init_msr_lists$|"
                    r"^kvm_probe_|^kvm_free_msr_filter$|^kvm_spec_ctrl_test_value$")
_HITS = re.compile(r"^hits (engine|c) (\w+) (\d+)$")
# C's VMs must enter these functions: otherwise nothing was traced.
_OF_C = {"do_get_msr", "do_set_msr", "__kvm_get_msr", "__kvm_set_msr"}


def _functions(source):
    """The functions that a C file defines: the name, and whether the function calls the engine."""
    with open(source, encoding="utf-8") as file:
        text = file.read()
    found = {}
    for match in re.finditer(r"^[a-z][^;{}()\n]*?\b(\w+)\([^;{}]*?\)\n\{\n(.*?)^\}", text,
                             re.MULTILINE | re.DOTALL):
        found[match.group(1)] = "kvm_msr_engine_" in match.group(2)
    return found


def main():
    """Runs the sweep under the function profiler, and checks its counts."""
    kernel = products.Kernel("debug")
    defined = _functions(os.path.join(kernel.source, "arch/x86/kvm/msrs.c"))
    symbols = subprocess.run(["nm", "--defined-only",
                              os.path.join(kernel.directory, "arch/x86/kvm/msrs.o")],
                             check=True, capture_output=True, text=True).stdout
    traced = sorted(set(re.findall(r" [tT] (\w+)$", symbols, re.MULTILINE)) & set(defined))

    vm = boot.Vm(kernel, programs=products.programs())
    vm.initramfs.add("trace/functions", "".join(f"{name}\n" for name in traced), 0o644)
    log, messages = vm.run(job("trace.sh"), timeout=3600, show=print)
    hits = {"engine": Counter(), "c": Counter()}
    for line in log.lines:
        if match := _HITS.match(line):
            side, name, count = match.groups()
            hits[side][name] += int(count)

    tests = []
    replaced = [name for name in traced if not defined[name] and not _STAYS.search(name)]
    for name in replaced:
        count = hits["engine"][name]
        tests.append(results.test(f"{name} is not entered", count == 0,
                                  f"{count} times by the engine's VMs, {hits['c'][name]} by C's"))
    seen = [name for name in replaced if hits["c"][name]]
    tests.append(results.test("C's VMs enter the replaced functions", _OF_C <= set(seen),
                              ", ".join(seen)))
    guarded = sum(hits["engine"][name] for name in traced if defined[name])
    tests.append(results.test("the engine's VMs enter the functions that call it", guarded > 0))
    if log.exit_code:
        tests.append(results.test("kvm-msr-sweep", False, f"exit code {log.exit_code}"))
    tests.append(results.kernel_log(messages))
    print(f"{len(traced)} functions of msrs.c are traced. Calls by the engine's VMs, and by C's:")
    for name in traced:
        kind = "hooked" if defined[name] else "stays" if _STAYS.search(name) else "replaced"
        print(f"  {name:36} {kind:12}{hits['engine'][name]:10}{hits['c'][name]:10}")
    return results.conclude("trace", tests, kernel=kernel.version,
                            hits={side: dict(count) for side, count in hits.items()})
