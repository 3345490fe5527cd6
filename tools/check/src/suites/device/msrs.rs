// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSRs that guests of this suite access. None of them changes by itself, and no value that
//! [`value`] returns for them harms the guest, or QEMU.

use kvm_msr_guest::Random;

use crate::suites::filter_guest::NOBODY;

/// Guests access these without VM-exits, on one vendor or both.
pub const PASSED_THROUGH: &[u32] = &[
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SYSCALL_MASK
    0xc000_0100, // FS_BASE
    0xc000_0101, // GS_BASE
    0xc000_0102, // KERNEL_GS_BASE
];

/// KVM handles these.
pub const INTERCEPTED: &[u32] = &[
    0x17,        // PLATFORM_ID
    0x8b,        // UCODE_REV
    0xfe,        // MTRRcap
    0x179,       // MCG_CAP
    0x1a0,       // MISC_ENABLE
    0x200,       // MTRRphysBase0
    0x250,       // MTRRfix64K_00000
    0x277,       // PAT
    0x2ff,       // MTRRdefType
    0x400,       // MC0_CTL
    0xc001_0010, // SYSCFG
    0xc001_0015, // HWCR
    0xc001_0140, // OSVW_ID_LENGTH
];

/// KVM has no such MSRs. Their pages of indices are those of other MSRs, or not.
const UNKNOWN: &[u32] = &[
    0x1234,
    0x7ff,
    0x900,
    0x1fff,
    0x2000,
    0x4000_01ff,
    NOBODY,
    NOBODY + 1,
    NOBODY + 0x1000,
    0xbfff_ffff,
    0xc000_1fff,
    0xc000_2000,
    0xc001_1fff,
    0xffff_ffff,
];

/// All of them.
pub fn all() -> impl Iterator<Item = u32> {
    [PASSED_THROUGH, INTERCEPTED, UNKNOWN]
        .into_iter()
        .flatten()
        .copied()
}

/// Whether a guest may access the MSR.
pub fn is_harmless(index: u32) -> bool {
    (NOBODY..NOBODY + 0x10_0000).contains(&index) || all().any(|msr| msr == index)
}

/// A value to write to an MSR. QEMU checks and truncates less than KVM when guests write to MSRs
/// without VM-exits, so these get only values that all accept as they are.
pub fn value(random: &mut Random, index: u32) -> u64 {
    const PAT: u64 = 0x0007_0406_0007_0406;
    let value = match random.below(8) {
        0 => 0,
        1 => 1,
        2 => PAT,
        3 => u64::MAX,
        4 => random.next() & random.next() & random.next(),
        _ => random.next(),
    };

    match index {
        0x174 => value & 0xffff,
        _ if PASSED_THROUGH.contains(&index) => value & 0x7fff_ffff,
        _ => value,
    }
}
