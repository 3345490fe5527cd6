// SPDX-License-Identifier: GPL-2.0

//! `KVM_X86_SET_MSR_FILTER`, and the questions that are asked of the filter.

use super::{
    Section,
    Vm, //
};
use crate::{
    engine::filter::{
        Access,
        Filter,
        Range,
        Spec,
        MAX_RANGES,
        WRITE, //
    },
    kvm::user::{
        MsrFilter,
        FILTER_RANGES, //
    },
};
use kernel::prelude::*;

const _: () = assert!(MAX_RANGES == FILTER_RANGES);

/// Sets a new filter. The one before stays in force if that fails, and decides nothing anymore
/// once it succeeded.
///
/// # Errors
///
/// Those of [`Spec::new`] and [`Range::bitmap_words`], `EFAULT` if user memory can't be read, and
/// `ENOMEM`. Ranges are looked at in order, the bitmap of each before the next range.
pub(crate) fn set(vm: &Vm, filter: MsrFilter) -> Result {
    let (flags, user_ranges) = filter.read()?;
    let spec = Spec::new(
        flags,
        user_ranges.map(|range| Range {
            flags: range.flags,
            nmsrs: range.nmsrs,
            base: range.base,
        }),
    )?;
    let mut words = KVVec::with_capacity(spec.words(), GFP_KERNEL_ACCOUNT)?;

    for (range, user_range) in spec.ranges().iter().zip(&user_ranges) {
        // A range that is not in use may have any pointer.
        match range.bitmap_words()? {
            0 => continue,
            count => user_range.append_bitmap(&mut words, count)?,
        }
    }

    let mut filter = KBox::new(Filter::new(&spec, words), GFP_KERNEL_ACCOUNT)?;

    filter.compile(&spec)?;
    vm.replace(filter);

    // Userspace may want to see accesses that vCPUs would let through to hardware otherwise.
    vm.recalc_intercepts();
    Ok(())
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
