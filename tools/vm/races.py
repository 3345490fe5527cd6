# SPDX-License-Identifier: GPL-2.0
"""KCSAN's reports (Documentation/dev-tools/kcsan.rst): which functions race, and whose they are.

A report counts if one of its accesses is made by KVM or by the module, unless it is a race of C's own that
_KNOWN lists and the module is in neither stack. The rest of the kernel has races of its own, which no test
here is about.
"""

import re

# Accesses of these modules count.
_OURS = {"kvm", "kvm_amd", "kvm_intel", "kvm_msr"}
# Functions outside these modules that access memory on behalf of their caller: copies, atomics, bit
# operations, lists, and those of Rust's core library and kernel crate.
_ON_BEHALF = re.compile(r"_?_?(copy_|mem|raw_copy|clear_user|atomic|rust_helper_|_R|list_|hlist_|"
                        r"find_|_find_|bitmap_|set_bit|clear_bit|test_|instrument_|srcu_|xas_|radix_)")
# Races of KVM's C code, by the functions that make the accesses. KVM would have to mark them.
_KNOWN = {
    # On entering the guest, a vCPU's task sets PF_VCPU in its flags, which the scheduler reads.
    frozenset(("kthread_is_per_cpu", "vcpu_run")),
    # pvclock_gtod_data's clock mode is also read outside its seqcount.
    frozenset(("kvm_arch_vcpu_load", "pvclock_gtod_notify")),
    # A task is preempted while it writes at_instruction_boundary, which kvm_sched_out() reads.
    frozenset(("kvm_arch_vcpu_put", "vcpu_run")),
}
_TITLE = re.compile(r"BUG: KCSAN: (.*)")
_ACCESS = re.compile(r"(read|write|assert no).* to 0x[0-9a-f]+ of \d+ bytes by |"
                     r"race at unknown origin, with (read|write)")
_FRAME = re.compile(r"^\s(\S+)\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[(\w+)\])?")
_END = re.compile(r"^=+$")


class Race:
    """A report."""

    def __init__(self, line):
        """`line`, like all lines, without its time stamp: the report's first one."""
        self.lines = [line]
        self.title = _TITLE.search(line).group(1)
        self.ended = False
        # The frames of each access, as pairs of a function and its module or None.
        self._accesses = []

    @staticmethod
    def begins(line):
        """Whether a report begins with this line."""
        return bool(_TITLE.search(line))

    def feed(self, line):
        """Adds a line."""
        self.lines.append(line)
        self.ended = bool(_END.match(line))
        if _ACCESS.match(line):
            self._accesses.append([])
        elif (frame := _FRAME.match(line)) and self._accesses:
            self._accesses[-1].append(frame.groups())

    def sites(self):
        """For each access, the function that makes it, and its module or None."""
        return [next((frame for frame in frames if frame[1] or not _ON_BEHALF.match(frame[0])),
                     ("?", None)) for frames in self._accesses]

    def counts(self):
        """Whether one of the accesses is the module's, or KVM's and not known."""
        sites = self.sites()
        if not any(module in _OURS for _, module in sites):
            return False
        if any(module == "kvm_msr" for frames in self._accesses for _, module in frames):
            return True
        return frozenset(function for function, _ in sites) not in _KNOWN
