// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSRs that guests access without VM-exits. Learning, statistics and policies intercept them, so that
//! KVM handles the access. Emulators check and store less than KVM does for these.

/// The indices, and the bits that everybody stores as they are.
const DIRECT: &[(u32, u32, u64)] = &[
    (0x48, 0x49, 1),                         // SPEC_CTRL, PRED_CMD
    (0x10b, 0x10b, 1),                       // FLUSH_CMD
    (0x174, 0x174, 0xffff),                  // SYSENTER_CS
    (0x175, 0x176, 0x7fff_ffff),             // SYSENTER_ESP, SYSENTER_EIP
    (0x6a0, 0x6a2, 0),                       // U_CET, S_CET
    (0x6a4, 0x6a8, 0x7fff_fff8),             // PL0_SSP to PL3_SSP, INT_SSP_TAB
    (0xc000_0081, 0xc000_0084, 0x7fff_ffff), // STAR, LSTAR, CSTAR, SYSCALL_MASK
    (0xc000_0100, 0xc000_0102, 0x7fff_ffff), // FS_BASE, GS_BASE, KERNEL_GS_BASE
];

/// Whether the guest can access an MSR directly only if a value was written to it before. KVM does not ask
/// then whether the guest has the feature, but it does if something else makes it handle the access.
pub fn depends(index: u32) -> bool {
    matches!(index, 0x48 | 0x49 | 0x10b)
}

/// A value for WRMSR that does not depend on who handles the access.
pub fn fit(index: u32, value: u64) -> u64 {
    let direct = DIRECT
        .iter()
        .find(|(first, last, _)| (*first..=*last).contains(&index));

    direct.map_or(value, |(_, _, bits)| value & bits)
}

/// A value for user space to write. The guest's next read does not depend on who handles it.
pub fn fit_for_host(index: u32, value: u64) -> u64 {
    match index {
        0x174..=0x176 => fit(index, value),
        _ => value,
    }
}
