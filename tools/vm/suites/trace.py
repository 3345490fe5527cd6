# SPDX-License-Identifier: GPL-2.0
"""make test-trace: which functions of msrs.c run while the engine serves all VMs: none but those that
hand over to it, and those that stay in C.  On the debug kernel, which has a function profiler."""

import os
import re
import subprocess
from collections import Counter

import boot
import products
import results
from suites import job

# What stays in C: the host's own MSRs that KVM switches, the host's capabilities, what happens when
# modules are loaded and VMs destroyed, and the try-out of a value on the host's CPU by which the
# vendor modules check IA32_SPEC_CTRL, which is theirs.
_STAYS = re.compile(r"user_return|^kvm_get_arch_capabilities$|^kvm_init_msr_lists$|"
                    r"^kvm_probe_|^kvm_free_msr_filter$|^kvm_spec_ctrl_test_value$")
_HITS = re.compile(r"^hits (engine|c) (\w+) (\d+)$")
# Of these at least, C's VMs have to enter some: else nothing was traced.
_OF_C = {"do_get_msr", "do_set_msr", "__kvm_get_msr", "__kvm_set_msr"}


def _functions(source):
    """The functions that a C file defines: name, and whether it hands over to the engine."""
    with open(source, encoding="utf-8") as file:
        text = file.read()
    found = {}
    for match in re.finditer(r"^[a-z][^;{}()\n]*?\b(\w+)\([^;{}]*?\)\n\{\n(.*?)^\}", text,
                             re.MULTILINE | re.DOTALL):
        found[match.group(1)] = "kvm_msr_engine_" in match.group(2)
    return found


def main():
    """Has the sweep run under the profiler, and looks what it counted."""
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
    tests.append(results.test("C's VMs enter what is replaced", _OF_C <= set(seen), ", ".join(seen)))
    guarded = sum(hits["engine"][name] for name in traced if defined[name])
    tests.append(results.test("the engine's VMs enter what hands over to it", guarded > 0))
    if log.exit_code:
        tests.append(results.test("kvm-msr-sweep", False, f"exit code {log.exit_code}"))
    tests.append(results.kernel_log(messages))
    print(f"{len(traced)} functions of msrs.c are traced. Entered by the engine's VMs, and by C's:")
    for name in traced:
        kind = "hands over" if defined[name] else "stays" if _STAYS.search(name) else "replaced"
        print(f"  {name:36} {kind:12}{hits['engine'][name]:10}{hits['c'][name]:10}")
    return results.conclude("trace", tests, kernel=kernel.version,
                            hits={side: dict(count) for side, count in hits.items()})
