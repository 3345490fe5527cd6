// SPDX-License-Identifier: GPL-2.0

//! Errors of requests from user space.

/// The errors that the engine itself returns. Allocations and copies from user memory are outside
/// of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// A value that the interface does not define; `EINVAL`.
    Invalid,
    /// More entries than the interface takes; `E2BIG`.
    TooBig,
}

/// What the engine's checks return.
pub(crate) type Result<T = ()> = core::result::Result<T, Error>;
