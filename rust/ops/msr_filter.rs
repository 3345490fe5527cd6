// SPDX-License-Identifier: GPL-2.0

//! `KVM_X86_SET_MSR_FILTER`, and lookups in the filter.

use crate::{
    engine::{
        access::Access,
        filter::{
            default_allows,
            Filter,
            WRITE, //
        },
    },
    kvm::{
        user::{
            FilterWords,
            MsrFilter, //
        },
        Protected,
        Section,
        Vcpu,
        Vm, //
    },
};
use core::mem::MaybeUninit;
use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

/// Sets a new filter. On success, no access uses the old filter anymore. On failure, the old filter
/// stays in use.
///
/// # Errors
///
/// The errors of [`default_allows`] and [`Filter::add`], `EFAULT` if user memory can't be read, and
/// `ENOMEM`. Ranges are checked in order, and the bitmap of each is read before the next range is
/// checked.
pub(crate) fn set_msr_filter(vm: &Vm, argp: UserPtr, compat: bool) -> Result {
    let mut user = MaybeUninit::uninit();
    let user = MsrFilter::new(argp, compat).read(&mut user)?;
    let ranges = user.ranges.iter().map(|user_range| user_range.range);
    let default_allow = default_allows(user.flags, ranges)?;
    // The filter is large, so it is created in the allocation, not on the stack.
    let mut filter: KBox<Protected> =
        KBox::new_uninit(GFP_KERNEL_ACCOUNT)?.write(Filter::new(default_allow, FilterWords::new()));

    for range in &user.ranges {
        filter.add(&range.range, |words, count| range.read_bitmap(words, count))?;
    }
    filter.compile();
    vm.replace(filter);

    // vCPUs may have to intercept MSRs that the guest accessed directly until now.
    vm.recalc_intercepts();
    Ok(())
}

/// Returns whether the guest may access an MSR.
#[inline(always)]
pub(super) fn allows(section: &Section<'_>, index: u32, access: Access) -> bool {
    match section.filter() {
        Some(filter) => filter.allows(index, access),
        None => true,
    }
}

/// Does what [`allows`] does by one lookup, or returns [`None`] if that does not tell.
#[inline(always)]
pub(super) fn verdict(section: &Section<'_>, index: u32, access: Access) -> Option<bool> {
    match section.filter() {
        Some(filter) => filter.verdict(index, access),
        None => Some(true),
    }
}

/// Returns whether the filter allows a kind of access, `KVM_MSR_FILTER_READ` or [`WRITE`].
pub(crate) fn msr_allowed(vcpu: &Vcpu, index: u32, kind: u32) -> bool {
    let access = match kind {
        WRITE => Access::Write,
        _ => Access::Read,
    };

    // The vendor module also calls this outside of the run loop, when a vCPU is created and in
    // ioctls, so this enters a section.
    let section = vcpu.vm().read_section();

    allows(&section, index, access)
        && section
            .overlay()
            .is_none_or(|overlay| overlay.passes_through(index, access))
}
