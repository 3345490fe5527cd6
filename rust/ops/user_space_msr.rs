// SPDX-License-Identifier: GPL-2.0

//! `KVM_CAP_X86_USER_SPACE_MSR`, and the exits to user space that it enables.

use super::AccessResult;
use crate::{
    engine::{
        access::Access,
        exit::{
            exit_reason,
            reasons_of_cap,
            Denial,
            INVALID, //
        },
        stats::Event,
    },
    kvm::{
        Completion,
        Counter,
        InRunLoop,
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

/// Counts that an access ends in `#GP`.
#[inline(always)]
pub(super) fn count_gp(vcpu: InRunLoop<'_>, index: u32, access: Access) {
    vcpu.count(Counter::GeneralProtection, 1);
    if let Some(overlay) = vcpu.section().overlay() {
        overlay.note(index, access, Event::GeneralProtection);
    }
}

/// Exits to user space for a failed access, if user space enabled exits for the reason, and returns
/// whether it did. `C` completes the access when user space has answered.
///
/// `write` is the value that the guest writes, or [`None`] for a read.
#[cold]
pub(super) fn offer<C: Completion>(
    vcpu: InRunLoop<'_>,
    index: u32,
    write: Option<u64>,
    denial: Denial,
) -> bool {
    let Some(reason) = exit_reason(denial, vcpu.vm().user_space_msr_mask()) else {
        return false;
    };

    vcpu.exit_to_user_space::<C>(index, write, reason);
    if let Some(overlay) = vcpu.section().overlay() {
        let access = match write {
            None => Access::Read,
            Some(_) => Access::Write,
        };

        overlay.note(index, access, Event::UserSpaceExit);
    }
    true
}

/// Returns user space's answer: the value, or [`INVALID`] if user space denies the access, which
/// injects #GP.
#[inline(always)]
pub(super) fn answer(vcpu: &Vcpu, access: Access) -> AccessResult<u64> {
    match vcpu.user_space_answer() {
        Some(data) => Ok(data),
        None => {
            count_denied_answer(vcpu, access);
            Err(INVALID)
        }
    }
}

#[cold]
#[inline(never)]
fn count_denied_answer(vcpu: &Vcpu, access: Access) {
    vcpu.count(Counter::GeneralProtection, 1);
    // The run loop is only entered after this.
    if let Some(overlay) = vcpu.vm().read_section().overlay() {
        overlay.note(vcpu.user_space_index(), access, Event::GeneralProtection);
    }
}
