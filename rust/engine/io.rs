// SPDX-License-Identifier: GPL-2.0

//! Rules of `KVM_GET_MSRS` and `KVM_SET_MSRS` that concern the list and its entries, not a
//! register's value.

use super::error::{
    Error,
    Result, //
};

/// The exclusive limit on the number of entries of one ioctl.
pub(crate) const MAX_ENTRIES: u32 = 256;

/// Checks the number of entries.
///
/// # Errors
///
/// [`Error::TooBig`] if there are [`MAX_ENTRIES`] or more.
#[inline]
pub(crate) fn check_count(nmsrs: u32) -> Result {
    if nmsrs >= MAX_ENTRIES {
        return Err(Error::TooBig);
    }
    Ok(())
}
