// SPDX-License-Identifier: GPL-2.0

//! Requests from user space: their errors, and the rules that concern no register's value.

/// The errors that the engine itself finds. It does not allocate, and does not copy user memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// A value that the interface does not define; `EINVAL`.
    Invalid,
    /// More entries than the interface takes; `E2BIG`.
    TooBig,
}

/// What the engine's checks return.
pub(crate) type Result<T = ()> = core::result::Result<T, Error>;

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
