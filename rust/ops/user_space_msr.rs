// SPDX-License-Identifier: GPL-2.0

//! `KVM_CAP_X86_USER_SPACE_MSR`, and the exits to user space that it enables.

use super::AccessResult;
use crate::{
    engine::exit::{
        exit_reason,
        reasons_of_cap,
        Denial,
        INVALID, //
    },
    kvm::{
        Completion,
        Counter,
        Vcpu,
        Vm, //
    },
};
use kernel::prelude::*;

/// Enables exits for the reasons in `mask`, and disables them for all others.
///
/// # Errors
///
/// `EINVAL` if a reason is not defined.
pub(crate) fn enable_user_space_msr(vm: &Vm, mask: u64) -> Result {
    vm.set_user_space_msr_mask(reasons_of_cap(mask)?);
    Ok(())
}

/// Exits to user space for a failed access, if user space enabled exits for the reason, and returns
/// whether it did. `C` completes the access when user space has answered.
///
/// `write` is the value that the guest writes, or [`None`] for a read.
#[cold]
pub(super) fn offer<C: Completion>(
    vcpu: &Vcpu,
    index: u32,
    write: Option<u64>,
    denial: Denial,
) -> bool {
    let Some(reason) = exit_reason(denial, vcpu.vm().user_space_msr_mask()) else {
        return false;
    };

    vcpu.exit_to_user_space::<C>(index, write, reason);
    true
}

/// Returns user space's answer: the value, or [`INVALID`] if user space denies the access, which
/// injects #GP.
pub(super) fn answer(vcpu: &Vcpu) -> AccessResult<u64> {
    vcpu.user_space_answer().ok_or_else(|| {
        vcpu.count(Counter::GeneralProtection, 1);
        INVALID
    })
}
