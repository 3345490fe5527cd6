// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The meaning of bits in KVM's feature MSRs.
//!
//! Sources: the vendors' manuals (Intel SDM: "VMX Capability Reporting Facility" and
//! "Model-Specific Registers"; AMD APM volume 2), and what KVM of Linux 7.3 accepts.

use super::rule::Rule;

/// Bits of `IA32_ARCH_CAPABILITIES` that mean a weakness: RSBA and RRSBA.
const ARCH_CAPABILITIES: &[Rule] = &[Rule::Or(1 << 2 | 1 << 19)];

/// The format of LBR records; the PEBS fields.
const PERF_CAPABILITIES: &[Rule] = &[Rule::SameModelOrZero(0x3f), Rule::SameModelOrZero(PEBS)];
const PEBS: u64 = 1 << 6 | 1 << 7 | 0xf << 8 | 1 << 14 | 1 << 17;

/// The base ratio and the lowest one.
const PLATFORM_INFO: &[Rule] = &[Rule::SameOrZero(0xff << 8), Rule::SameOrZero(0xff << 40)];

/// The VMCS revision; the VMCS size, which may be too large but not too small; whether addresses
/// are limited to 32 bits; the memory type.
const VMX_BASIC: &[Rule] = &[
    Rule::Same(0x7fff_ffff),
    Rule::Most(0x1fff << 32),
    Rule::Or(1 << 48),
    Rule::SameOrZero(0xf << 50),
];

/// The rate of the preemption timer; numbers of CR3 targets and of MSRs; the revision of MSEG.
const VMX_MISC: &[Rule] = &[
    Rule::SameOrZero(0x1f),
    Rule::Least(0x1ff << 16),
    Rule::Least(7 << 25),
    Rule::Same(0xffff_ffff << 32),
];

/// VMX controls: the low half has those that must be 1, the high half those that may be 1.
const CONTROLS: &[Rule] = &[Rule::Or(0xffff_ffff)];

const LEAST: &[Rule] = &[Rule::Least(u64::MAX)];
const OR: &[Rule] = &[Rule::Or(u64::MAX)];
const AND: &[Rule] = &[];

/// `IA32_MCG_CAP`: number of machine-check banks, and their features.
pub const MCG_CAP: &[Rule] = &[Rule::Least(0xff)];

/// State of the guest, independent of the host.
pub const STATE: &[Rule] = &[Rule::Same(u64::MAX)];

/// `IA32_VMX_BASIC` to `IA32_VMX_VMFUNC`.
pub const VMX: std::ops::RangeInclusive<u32> = 0x480..=0x491;

/// The MSRs of VMX controls: those that must be 1, and those that may be.
pub const VMX_CONTROLS: [u32; 9] = [
    0x481, 0x482, 0x483, 0x484, 0x48b, 0x48d, 0x48e, 0x48f, 0x490,
];

/// `IA32_VMX_PINBASED_CTLS` and its true form, and the bit for the preemption timer.
pub const PINBASED: [u32; 2] = [0x481, 0x48d];
/// See [`PINBASED`].
pub const PREEMPTION_TIMER: u64 = 1 << 38;
/// `IA32_VMX_MISC`
pub const MISC: u32 = 0x485;
/// `IA32_PERF_CAPABILITIES`
pub const PERF: u32 = 0x345;
/// Its fields that depend on CPUID's DS and DTES64.
pub const PERF_PEBS: u64 = PEBS;
/// `IA32_UCODE_REV`, which can't be compared across vendors.
pub const MICROCODE: u32 = 0x8b;

/// The rules for a feature MSR; none if it is not one.
pub fn rules(index: u32) -> Option<&'static [Rule]> {
    Some(match index {
        MICROCODE => LEAST,
        0xce => PLATFORM_INFO,
        0x10a => ARCH_CAPABILITIES,
        PERF => PERF_CAPABILITIES,
        0x480 => VMX_BASIC,
        MISC => VMX_MISC,
        // Bits of CR0 and CR4 that must be 1, and that may be.
        0x486 | 0x488 => OR,
        0x487 | 0x489 => AND,
        // The highest index of a VMCS field.
        0x48a => LEAST,
        0x48c | 0x491 => AND,
        index if VMX_CONTROLS.contains(&index) => CONTROLS,
        0xc001_1029 => AND,
        _ => return None,
    })
}

/// Whether KVM of Linux 7.3 can list it as a feature MSR.
pub fn is_feature(index: u32) -> bool {
    rules(index).is_some()
}

/// Whether KVM derives it from other MSRs and from CPUID, so that it can't be set.
pub fn is_derived(index: u32) -> bool {
    matches!(index, 0x481..=0x484 | 0x487 | 0x489)
}
