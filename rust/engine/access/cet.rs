// SPDX-License-Identifier: GPL-2.0

//! Control-flow enforcement: shadow stacks and indirect branch tracking.
//!
//! Source: Intel SDM, volume 1, chapter 17.

use super::{
    check_canonical,
    Cpu,
    Feature,
    Result,
    INVALID,
    UNSUPPORTED, //
};

const SHSTK_EN_AND_WRSS_EN: u64 = 0b11;
/// ENDBR_EN, LEG_IW_EN, NO_TRACK_EN, SUPPRESS_DIS, and from bit 10 on SUPPRESS, TRACKER and the
/// address of the bitmap for legacy code.
const BRANCH_TRACKING: u64 = 0b11_1100 | !0 << 10;
const RESERVED: u64 = 0b1111 << 6;
const SUPPRESS: u64 = 1 << 10;
const WAIT_ENDBR: u64 = 1 << 11;

/// Checks that the guest has either of the two.
pub(super) fn check<C: Cpu>(cpu: &C) -> Result {
    if cpu.has(Feature::ShadowStack) || cpu.has(Feature::BranchTracking) {
        Ok(())
    } else {
        Err(UNSUPPORTED)
    }
}

/// Checks that the guest has shadow stacks.
pub(super) fn check_shadow_stack<C: Cpu>(cpu: &C) -> Result {
    if cpu.has(Feature::ShadowStack) {
        Ok(())
    } else {
        Err(UNSUPPORTED)
    }
}

/// Checks a value of `IA32_U_CET` or `IA32_S_CET`.
pub(super) fn check_settings<C: Cpu>(cpu: &C, data: u64) -> Result {
    check(cpu)?;

    let lacks_stacks = !cpu.has(Feature::ShadowStack) && data & SHSTK_EN_AND_WRSS_EN != 0;
    let lacks_tracking = !cpu.has(Feature::BranchTracking) && data & BRANCH_TRACKING != 0;
    // The bitmap's address is in pages, and KVM wants it to be a multiple of four of them.
    let misaligned = data >> 12 & 0b11 != 0;
    // Tracking can't be suppressed while it waits for a branch's target.
    let both = data & SUPPRESS != 0 && data & WAIT_ENDBR != 0;

    if data & RESERVED != 0 || lacks_stacks || lacks_tracking || misaligned || both {
        return Err(INVALID);
    }
    Ok(())
}

/// Checks a shadow stack pointer.
pub(super) fn check_pointer<C: Cpu>(cpu: &C, data: u64) -> Result {
    check_shadow_stack(cpu)?;
    check_canonical(cpu, data)?;
    if data & 0b11 != 0 {
        return Err(INVALID);
    }
    Ok(())
}

/// Checks the address of the table of shadow stack pointers, which only 64-bit vCPUs have.
pub(super) fn check_table<C: Cpu>(cpu: &C, data: u64) -> Result {
    check_shadow_stack(cpu)?;
    if !cpu.has(Feature::Lm) {
        return Err(UNSUPPORTED);
    }
    check_canonical(cpu, data)
}
