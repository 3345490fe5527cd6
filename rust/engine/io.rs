// SPDX-License-Identifier: GPL-2.0

//! Rules of `KVM_GET_MSRS` and `KVM_SET_MSRS` that concern the list and its entries, not a
//! register's value.

use super::error::{
    Error,
    Result, //
};

/// The first number of entries that one ioctl does not take.
pub(crate) const MAX_ENTRIES: u32 = 256;

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
