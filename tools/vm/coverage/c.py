# SPDX-License-Identifier: GPL-2.0
"""What the judges reached of KVM's C code: each function's lines and branches, with the number of times
that they ran in all runs together."""

import os

from coverage import gcov
from coverage.functions import Branch, Function

MSRS = "msrs"
# Of the other objects, the functions that the engine replaces or calls: the vendors' get and set of MSRs
# and of nested state, and the static functions that only these call.
FUNCTIONS = {
    MSRS: None,
    "svm/svm": ("svm_get_msr", "svm_set_msr", "svm_get_feature_msr", "msr_write_intercepted",
                "svm_has_emulated_msr", "svm_set_vm_cr", "svm_complete_emulated_msr",
                "sev_es_prevent_msr_access", "svm_set_efer", "svm_disable_lbrv", "svm_enable_lbrv"),
    "svm/nested": ("svm_get_nested_state", "svm_set_nested_state"),
    "vmx/vmx": ("vmx_get_msr", "vmx_set_msr", "vmx_get_feature_msr", "vmx_has_emulated_msr",
                "vmx_set_efer", "vmx_get_supported_debugctl", "vmx_is_valid_debugctl",
                "vmx_set_guest_uret_msr", "vmx_find_uret_msr", "is_vmx_feature_control_msr_valid",
                "vmx_pt_mode_is_host_guest", "pt_output_base_valid", "vmx_rtit_ctl_check",
                "nested_vmx_truncate_sysenter_addr", "vmx_read_guest_kernel_gs_base",
                "vmx_write_guest_kernel_gs_base"),
    "vmx/nested": ("vmx_get_nested_state", "vmx_set_nested_state", "vmx_get_vmx_msr", "vmx_set_vmx_msr",
                   "vmx_restore_vmx_basic", "vmx_restore_control_msr", "vmx_restore_vmx_misc",
                   "vmx_restore_vmx_ept_vpid_cap", "vmx_restore_fixed0_msr", "vmx_get_control_msr",
                   "vmx_get_fixed0_msr"),
}


def functions(kernel, runs):
    """The functions in FUNCTIONS, in the order of their files.

    runs maps directories with .gcda files, which are added up, to whether the vendor's objects count,
    too.
    """
    for name, wanted in FUNCTIONS.items():
        base = os.path.join(kernel.directory, "arch/x86/kvm", name)
        with open(base + ".gcno", "rb") as file:
            graphs = gcov.read_graphs(file.read())
        for run, vendor_counts in runs.items():
            path = os.path.join(run, name.replace("/", "-") + ".gcda")
            if os.path.exists(path) and (vendor_counts or name == MSRS):
                with open(path, "rb") as file:
                    gcov.add_counters(graphs, file.read())
        source = os.path.join(kernel.source, "arch/x86/kvm", name + ".c")
        with open(source, encoding="utf-8") as file:
            text = [line.strip() for line in file]
        found = [_function(graph, name + ".c", text) for graph in graphs.values()
                 if graph.file == source and (wanted is None or graph.name in wanted)]
        yield from sorted(found, key=lambda function: function.start)


def _function(graph, file, text):
    executed = graph.executions()
    lines = {}
    for block, numbers in enumerate(graph.lines):
        for number in numbers:
            lines[number] = max(lines.get(number, 0), executed[block])
    outgoing = [[] for _ in graph.lines]
    for arc in graph.arcs:
        outgoing[arc.source].append(arc)
    function = Function(graph.name, file, graph.start, lines)
    for block, arcs in enumerate(outgoing):
        if len(arcs) < 2:
            continue
        line = _line_before(graph, block)
        for arc in arcs:
            to = _line_at(graph, outgoing, arc.target)
            function.branches.append(Branch(
                line, text[line - 1],
                "the end" if to is None else "the same line" if to == line else text[to - 1], arc.count))
    function.branches.sort(key=lambda branch: branch.line)
    return function


def _line_before(graph, block):
    """The line whose end decides where a block goes: its last, or that of a block before it."""
    seen = set()
    while not graph.lines[block] and block not in seen:
        seen.add(block)
        before = [arc.source for arc in graph.arcs if arc.target == block]
        if not before:
            break
        block = before[0]
    return graph.lines[block][-1] if graph.lines[block] else graph.start


def _line_at(graph, outgoing, block):
    """The first line of a block, or of the one that it leads to."""
    seen = set()
    while not graph.lines[block] and block not in seen:
        seen.add(block)
        if len(outgoing[block]) != 1:
            return None
        block = outgoing[block][0].target
    return graph.lines[block][0] if graph.lines[block] else None
