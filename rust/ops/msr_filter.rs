// SPDX-License-Identifier: GPL-2.0

//! `KVM_X86_SET_MSR_FILTER`, and the questions that are asked of the filter.

use super::{
    Protected,
    Section,
    Vm, //
};
use crate::{
    engine::filter::{
        default_allows,
        Access,
        Filter,
        Range,
        MAX_RANGES,
        WRITE, //
    },
    kvm::user::{
        FilterRange,
        FilterWords,
        MsrFilter, //
    },
};
use kernel::prelude::*;

/// Sets a new filter. The one before stays in force if that fails, and decides nothing anymore
/// once it succeeded.
///
/// # Errors
///
/// Those of [`default_allows`] and [`Range::bitmap_words`], `EFAULT` if user memory can't be read,
/// and `ENOMEM`. Ranges are looked at in order, the bitmap of each before the next range.
pub(crate) fn set(vm: &Vm, filter: MsrFilter) -> Result {
    let filter = filter.read_with(compile)?;

    vm.replace(filter);

    // Userspace may want to see accesses that vCPUs would let through to hardware otherwise.
    vm.recalc_intercepts();
    Ok(())
}

fn compile(flags: u32, user_ranges: &[FilterRange; MAX_RANGES]) -> Result<KBox<Protected>> {
    let ranges = user_ranges.iter().map(|range| Range {
        flags: range.flags,
        nmsrs: range.nmsrs,
        base: range.base,
    });
    let default_allow = default_allows(flags, ranges.clone())?;
    // It is made where it is to be, as it is large.
    let mut filter =
        KBox::new_uninit(GFP_KERNEL_ACCOUNT)?.write(Filter::new(default_allow, FilterWords::new()));

    for (range, user_range) in ranges.zip(user_ranges) {
        filter.add(&range, |words, count| words.append(user_range, count))?;
    }
    Ok(filter)
}

/// Returns whether the guest may access an MSR.
#[inline]
pub(super) fn allows(section: &Section<'_>, index: u32, access: Access) -> bool {
    match section.read() {
        Some(filter) => filter.allows(index, access),
        None => true,
    }
}

/// Returns whether the guest may make a kind of access, that of the uapi: `KVM_MSR_FILTER_READ` or
/// [`WRITE`].
pub(crate) fn allows_kind(section: &Section<'_>, index: u32, kind: u32) -> bool {
    let access = match kind {
        WRITE => Access::Write,
        _ => Access::Read,
    };

    allows(section, index, access)
}
