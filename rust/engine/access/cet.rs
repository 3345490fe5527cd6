// SPDX-License-Identifier: GPL-2.0

//! Control-flow enforcement: shadow stacks and indirect branch tracking.
//!
//! Source: Intel SDM, chapter "Control-flow Enforcement Technology (CET)".

use super::{
    checks::{
        check_canonical,
        require, //
    },
    Cpu,
    Feature,
    Result,
    INVALID,
    UNSUPPORTED, //
};

const SHSTK_EN_AND_WRSS_EN: u64 = 0b11;
/// The bits of indirect branch tracking: ENDBR_EN, LEG_IW_EN, NO_TRACK_EN and SUPPRESS_DIS, and
/// from bit 10 on SUPPRESS, TRACKER and the address of the legacy code page bitmap.
const BRANCH_TRACKING: u64 = 0b11_1100 | !0 << 10;
const RESERVED: u64 = 0b1111 << 6;
const SUPPRESS: u64 = 1 << 10;
const WAIT_ENDBR: u64 = 1 << 11;

/// Checks that the guest has shadow stacks or indirect branch tracking.
pub(super) fn check<C: Cpu>(cpu: &C) -> Result {
    require(
        cpu.has(Feature::ShadowStack) || cpu.has(Feature::BranchTracking),
        UNSUPPORTED,
    )
}

/// Checks that the guest has shadow stacks.
pub(super) fn check_shadow_stack<C: Cpu>(cpu: &C) -> Result {
    require(cpu.has(Feature::ShadowStack), UNSUPPORTED)
}

/// Checks a value of `IA32_U_CET` or `IA32_S_CET`.
pub(super) fn check_settings<C: Cpu>(cpu: &C, data: u64) -> Result {
    check(cpu)?;

    let lacks_stacks = !cpu.has(Feature::ShadowStack) && data & SHSTK_EN_AND_WRSS_EN != 0;
    let lacks_tracking = !cpu.has(Feature::BranchTracking) && data & BRANCH_TRACKING != 0;
    // The bitmap's address is in units of 4 KiB, and KVM accepts only multiples of 16 KiB.
    let misaligned = data >> 12 & 0b11 != 0;
    // Tracking can't be suppressed while it waits for ENDBRANCH.
    let both = data & SUPPRESS != 0 && data & WAIT_ENDBR != 0;

    require(data & RESERVED == 0, INVALID)?;
    require(!lacks_stacks && !lacks_tracking, INVALID)?;
    require(!misaligned && !both, INVALID)
}

/// Checks a shadow stack pointer: it must be canonical and a multiple of 4.
pub(super) fn check_pointer<C: Cpu>(cpu: &C, data: u64) -> Result {
    check_shadow_stack(cpu)?;
    check_canonical(cpu, data)?;
    require(data & 0b11 == 0, INVALID)
}

/// Checks the address of the table of shadow stack pointers, which only 64-bit vCPUs have.
pub(super) fn check_table<C: Cpu>(cpu: &C, data: u64) -> Result {
    check_shadow_stack(cpu)?;
    require(cpu.has(Feature::Lm), UNSUPPORTED)?;
    check_canonical(cpu, data)
}
