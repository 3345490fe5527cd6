// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The order in which MSRs can be restored.
//!
//! Most of KVM's MSRs are independent. For the others, KVM refuses or ignores a write that comes
//! too early, or a later write undoes it.

use kvm_bindings::kvm_msr_entry;

/// Sorts entries so that they do not affect each other. Independent entries, and several entries
/// of one MSR, stay in their order.
pub fn in_order(entries: &mut [kvm_msr_entry]) {
    entries.sort_by_key(|entry| rank(entry.index));
}

/// The priority of an MSR: lower ones are restored first.
pub(crate) fn rank(index: u32) -> u8 {
    match index {
        // Feature MSRs, which can't change once the vCPU has run. A write of
        // IA32_PERF_CAPABILITIES resets all counters; MISC_FEATURES_ENABLES depends on
        // PLATFORM_INFO.
        0x8b | 0xce | 0x10a | 0x345 | 0xc001_1029 => 0,
        // KVM checks IA32_VMX_MISC against the current VMX controls.
        0x480 | 0x48b | 0x48d..=0x490 => 0,
        0x481..=0x491 => 1,
        // IA32_APIC_BASE enables x2APIC mode, which the x2APIC MSRs need.
        0x1b => 2,
        // KVM checks VM_CR against EFER.SVME.
        0xc000_0080 => 2,
        // Without HV_X64_GUEST_OS_ID, KVM ignores writes of HV_X64_HYPERCALL.
        0x4000_0000 => 2,
        // HV_X64_SCONTROL enables the SynIC, which its pages, interrupts and timers need.
        0x4000_0080 => 2,
        // The TSC, before clocks that derive from it.
        0x10 => 2,
        // The software enable bit in the x2APIC's SVR: while it is clear, KVM masks LVT entries.
        // The divisor and the mode come before the count.
        0x80f => 3,
        0x832 | 0x83e => 4,
        0x838 => 5,
        // HV_X64_VP_ASSIST_PAGE and KVM_PV_EOI_EN share state. The assist page comes first,
        // because disabling it also disables the other.
        0x4b56_4d04 => 4,
        // The vector of asynchronous page faults is set before they are enabled.
        0x4b56_4d02 => 4,
        // HV_X64_STIMERn_CONFIG starts the timer; STIMERn_COUNT is its deadline.
        0x4000_00b0 | 0x4000_00b2 | 0x4000_00b4 | 0x4000_00b6 => 4,
        // Event selectors come after the counters, and then the global enables.
        0x186..=0x18d | 0x38d | 0xc001_0000..=0xc001_0003 => 4,
        0xc001_0200..=0xc001_020f if index.is_multiple_of(2) => 4,
        0x38f | 0x3f1 | 0xc000_0301 => 5,
        // Writes are ignored unless the local APIC is in TSC-deadline mode.
        0x6e0 => 6,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::entry;

    #[test]
    fn what_others_need_comes_first() {
        let mut entries = [
            entry(0x6e0, 1),
            entry(0x140, 1),
            entry(0x832, 1),
            entry(0x4000_0001, 1),
            entry(0x80f, 1),
            entry(0x1b, 1),
            entry(0x4000_0000, 1),
            entry(0xce, 1),
            entry(0x140, 2),
        ];

        in_order(&mut entries);
        assert_eq!(
            entries.map(|entry| (entry.index, entry.data)),
            [
                (0xce, 1),
                (0x1b, 1),
                (0x4000_0000, 1),
                (0x140, 1),
                (0x4000_0001, 1),
                (0x80f, 1),
                (0x140, 2),
                (0x832, 1),
                (0x6e0, 1),
            ]
        );
    }
}
