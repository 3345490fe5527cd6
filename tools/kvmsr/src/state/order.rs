// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The order in which MSRs can be restored.
//!
//! Most of KVM's MSRs do not care. For those that do, either KVM refuses a write that comes too
//! early, or takes it and does nothing, or a later write undoes it.

use kvm_bindings::kvm_msr_entry;

/// Puts entries into an order in which none gets in the way of another. Entries that do not
/// care, and several of one MSR, stay in the order that they have.
pub fn in_order(entries: &mut [kvm_msr_entry]) {
    entries.sort_by_key(|entry| rank(entry.index));
}

/// When an MSR is restored: the lower, the earlier.
pub(crate) fn rank(index: u32) -> u8 {
    match index {
        // What the vCPU is able to do. Once it has run, KVM keeps these as they are. A write of
        // IA32_PERF_CAPABILITIES sets all counters back; MISC_FEATURES_ENABLES takes what
        // PLATFORM_INFO has.
        0x8b | 0xce | 0x10a | 0x345 | 0xc001_1029 => 0,
        // Of VMX's, IA32_VMX_MISC is judged by the controls that are there.
        0x480 | 0x48b | 0x48d..=0x490 => 0,
        0x481..=0x491 => 1,
        // IA32_APIC_BASE switches to x2APIC, without which there are no x2APIC MSRs.
        0x1b => 2,
        // VM_CR is judged by EFER.SVME.
        0xc000_0080 => 2,
        // Without HV_X64_GUEST_OS_ID, HV_X64_HYPERCALL ignores what is written to it.
        0x4000_0000 => 2,
        // HV_X64_SCONTROL turns the SynIC on, for its pages, interrupts and timers.
        0x4000_0080 => 2,
        // The TSC, before all that counts from it.
        0x10 => 2,
        // The software enable bit of the x2APIC's SVR: while it is clear, an LVT entry is masked
        // whatever is written. The divisor and the mode come before the count.
        0x80f => 3,
        0x832 | 0x83e => 4,
        0x838 => 5,
        // HV_X64_VP_ASSIST_PAGE and KVM_PV_EOI_EN share what is behind them, so the assist page
        // comes first: if it is off, it turns the other off too.
        0x4b56_4d04 => 4,
        // Interrupts of asynchronous page faults have a vector before they are enabled.
        0x4b56_4d02 => 4,
        // HV_X64_STIMERn_CONFIG starts the timer that STIMERn_COUNT is the deadline of.
        0x4000_00b0 | 0x4000_00b2 | 0x4000_00b4 | 0x4000_00b6 => 4,
        // What counters count, after what they have counted, and then the master switches.
        0x186..=0x18d | 0x38d | 0xc001_0000..=0xc001_0003 => 4,
        0xc001_0200..=0xc001_020f if index.is_multiple_of(2) => 4,
        0x38f | 0x3f1 | 0xc000_0301 => 5,
        // The local APIC has to be in TSC-deadline mode, or the write does nothing.
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
