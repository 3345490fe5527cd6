// SPDX-License-Identifier: GPL-2.0

//! `KVM_CAP_X86_USER_SPACE_MSR`, and the exits to user space that it enables.

use super::{
    Vcpu,
    Vm, //
};
use crate::{
    engine::exit::{
        ReasonMask,
        INVALID, //
    },
    kvm::{
        Completion,
        Counter,
        Denial,
        UserSpaceExit, //
    },
};
use kernel::prelude::*;

/// Enables exits for the reasons in `mask`, and disables them for all others.
///
/// # Errors
///
/// `EINVAL` if a reason is not defined.
pub(crate) fn enable(vm: &Vm, mask: u64) -> Result {
    vm.set_user_space_msr_mask(ReasonMask::from_cap(mask)?.into_raw());
    Ok(())
}

/// Hands an access that failed to user space, if that wants to hear of such a failure, and
/// returns whether it does. User space's answer is for `C` to carry out.
///
/// `write` is the value that is written, or [`None`] for a read.
pub(super) fn offer<C: Completion<super::Protected>>(
    vcpu: &Vcpu,
    index: u32,
    write: Option<u64>,
    denial: Denial,
) -> bool {
    let mask = ReasonMask::from_raw(vcpu.vm().user_space_msr_mask());
    let Some(reason) = mask.reason_for(denial) else {
        return false;
    };

    vcpu.exit_to_user_space::<C>(UserSpaceExit {
        index,
        write,
        reason,
    });
    true
}

/// What user space's answer means to the access: a refusal is an invalid access, i.e. `#GP`.
pub(super) fn answer(vcpu: &Vcpu) -> Result<u64, Denial> {
    vcpu.user_space_answer().ok_or_else(|| {
        vcpu.count(Counter::GeneralProtection, 1);
        INVALID
    })
}
