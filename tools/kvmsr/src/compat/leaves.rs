// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The meaning of bits in CPUID.
//!
//! Sources: Intel SDM (CPUID instruction), AMD APM volume 3 (appendix on CPUID), the Hyper-V
//! top-level functional specification ("Feature and Interface Discovery"), and
//! `Documentation/virt/kvm/x86/cpuid.rst` of Linux.

use super::rule::Rule;
use crate::cpuid::Register;

const AND: &[Rule] = &[];
const LEAST: &[Rule] = &[Rule::Least(u64::MAX)];
const HOSTS: &[Rule] = &[Rule::Hosts(u64::MAX)];
const SAME_OR_ZERO: &[Rule] = &[Rule::SameOrZero(u64::MAX)];
const SAME: &[Rule] = &[Rule::Same(u64::MAX)];

/// FDP_EXCPTN_ONLY and ZERO_FCS_FDS mean that the CPU lacks something.
const DEPRECATED_FPU: &[Rule] = &[Rule::Or(1 << 6 | 1 << 13)];
/// Version, counters, their width, length of the list of events.
const PMU_COUNTERS: &[Rule] = &[
    Rule::Least(0xff),
    Rule::Least(0xff00),
    Rule::Least(0xff_0000),
    Rule::Least(0xff00_0000),
];
/// A one means that the event is missing.
const PMU_EVENTS: &[Rule] = &[Rule::Or(u64::MAX)];
/// Fixed counters, their width, and that AnyThread is deprecated.
const PMU_FIXED: &[Rule] = &[Rule::Least(0x1f), Rule::Least(0xff << 5), Rule::Or(1 << 15)];
/// Address ranges.
const PT_RANGES: &[Rule] = &[Rule::Least(7)];
const SGX_SIZES: &[Rule] = &[Rule::Least(0xff), Rule::Least(0xff00)];
/// The version of AVX10.
const AVX10: &[Rule] = &[Rule::Least(0xff)];
/// Physical and linear address bits, and those of guests.
const ADDRESS_BITS: &[Rule] = &[
    Rule::Least(0xff),
    Rule::Least(0xff00),
    Rule::Least(0xff_0000),
];
/// NO_SMM_CTL_MSR means that something is missing.
const NO_SMM_CTL: &[Rule] = &[Rule::Or(1 << 9)];
/// Counters of the core, records of LBR, counters of the northbridge and of memory controllers.
const AMD_COUNTERS: &[Rule] = &[
    Rule::Least(0xf),
    Rule::Least(0x3f << 4),
    Rule::Least(0x3f << 10),
    Rule::Least(0x3f << 16),
];

/// The rules for a register of a leaf.
pub fn rules(function: u32, index: u32, register: Register) -> &'static [Rule] {
    use Register::Eax;
    use Register::Ebx;
    use Register::Ecx;
    use Register::Edx;

    match (function, index, register) {
        // The highest leaf, and the vendor.
        (0 | 0x8000_0000 | 0xc000_0000, _, Eax) => LEAST,
        (0 | 0x8000_0000, ..) => HOSTS,
        // Family, model and stepping; APIC ID and such; features.
        (1, _, Eax | Ebx) => HOSTS,
        (1, _, Ecx | Edx) => AND,
        // Caches, TLBs, topology, the name of the CPU.
        (2 | 4 | 0xb | 0x18 | 0x1f, ..) => HOSTS,
        (0x8000_0002..=0x8000_0006 | 0x8000_0019 | 0x8000_001d | 0x8000_001e | 0x8000_0026, ..) => {
            HOSTS
        }
        (6, _, Ebx) => LEAST,
        (6, ..) => AND,
        (7, 0, Eax) => LEAST,
        (7, 0, Ebx) => DEPRECATED_FPU,
        (7, ..) => AND,
        (0xa, _, Eax) => PMU_COUNTERS,
        (0xa, _, Ebx) => PMU_EVENTS,
        (0xa, _, Ecx) => AND,
        (0xa, _, Edx) => PMU_FIXED,
        // XSAVE: components; sizes of all of them; size and place of each.
        (0xd, 0, Eax | Edx) => AND,
        (0xd, 1, Eax | Ecx | Edx) => AND,
        (0xd, 0 | 1, _) => LEAST,
        (0xd, ..) => SAME,
        (0x12, 0, Edx) => SGX_SIZES,
        (0x12, 0, Ecx) => SAME_OR_ZERO,
        (0x12, 0 | 1, _) => AND,
        (0x14, 0, Eax) => LEAST,
        (0x14, 1, Eax) => PT_RANGES,
        (0x14, ..) => AND,
        (0x19, ..) => AND,
        (0x1d | 0x20, 0, Eax) => LEAST,
        (0x20, _, Ebx) => AND,
        (0x1e, 1, _) => AND,
        (0x23, ..) => AND,
        (0x24, 0, Eax) => LEAST,
        (0x24, 0, Ebx) => AVX10,
        (0x24 | 0x29, ..) => AND,
        // Hypervisors: the highest leaf; KVM's features and hints; Hyper-V's.
        (0x4000_0000 | 0x4000_0100, _, Eax) => LEAST,
        (0x4000_0001 | 0x4000_0101, ..) => AND,
        (0x4000_0003 | 0x4000_0006 | 0x4000_000a, ..) => AND,
        (0x4000_0004, _, Ebx) => LEAST,
        (0x4000_0004, ..) => AND,
        (0x4000_0005, ..) => LEAST,
        (0x8000_0001, _, Eax | Ebx) => HOSTS,
        (0x8000_0001, ..) => AND,
        (0x8000_0007, ..) => AND,
        (0x8000_0008, _, Eax) => ADDRESS_BITS,
        (0x8000_0008, _, Ebx) => AND,
        (0x8000_0008, _, Ecx) => HOSTS,
        (0x8000_0008, _, Edx) => LEAST,
        // SVM: revision, number of ASIDs, features.
        (0x8000_000a, _, Eax | Ebx) => LEAST,
        (0x8000_000a, ..) => AND,
        (0x8000_001a | 0x8000_001b, ..) => AND,
        (0x8000_001f, _, Eax) => AND,
        (0x8000_0021, _, Eax) => NO_SMM_CTL,
        (0x8000_0021, _, Ecx) => AND,
        (0x8000_0022, _, Eax | Ecx) => AND,
        (0x8000_0022, _, Ebx) => AMD_COUNTERS,
        (0xc000_0001, ..) => AND,
        // Unknown bits are kept if all agree.
        _ => SAME_OR_ZERO,
    }
}

/// The bits that describe the host. A profile should not set them.
pub fn is_the_hosts(function: u32, index: u32, register: Register) -> u32 {
    // Guests use the CPU's identity, so it stays in the profile.
    if matches!(function, 0 | 0x8000_0000..=0x8000_0004)
        || (function, register) == (1, Register::Eax)
    {
        return 0;
    }
    rules(function, index, register)
        .iter()
        .filter(|rule| matches!(rule, Rule::Hosts(_)))
        .fold(0, |bits, rule| bits | rule.mask() as u32)
}
