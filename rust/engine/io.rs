// SPDX-License-Identifier: GPL-2.0

//! Rules of `KVM_GET_MSRS` and `KVM_SET_MSRS` that concern the list and its entries, not a
//! register's value.

use super::error::{
    Error,
    Result, //
};

/// The first number of entries that one ioctl does not take.
pub(crate) const MAX_ENTRIES: u32 = 256;

const IA32_U_CET: u32 = 0x6a0;
const IA32_PL0_SSP: u32 = 0x6a4;
const IA32_PL3_SSP: u32 = 0x6a7;

/// Checks the number of entries.
///
/// # Errors
///
/// [`Error::TooBig`] from [`MAX_ENTRIES`] on.
#[inline]
pub(crate) fn check_count(nmsrs: u32) -> Result {
    if nmsrs >= MAX_ENTRIES {
        return Err(Error::TooBig);
    }
    Ok(())
}

/// Which parts of CET a vCPU has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cet {
    /// Shadow stacks, `X86_FEATURE_SHSTK`.
    pub(crate) shadow_stack: bool,
    /// Indirect branch tracking, `X86_FEATURE_IBT`.
    pub(crate) branch_tracking: bool,
}

/// Returns whether XSAVES switches an MSR with the guest's FPU state, so that the guest's FPU
/// has to be loaded to access it.
///
/// `cet` is only asked for the few MSRs that need it. S_CET is not among them: XSAVES leaves it.
#[inline]
pub(crate) fn is_xstate_managed(index: u32, cet: impl FnOnce() -> Cet) -> bool {
    match index {
        IA32_U_CET => {
            let cet = cet();
            cet.shadow_stack || cet.branch_tracking
        }
        IA32_PL0_SSP..=IA32_PL3_SSP => cet().shadow_stack,
        _ => false,
    }
}
