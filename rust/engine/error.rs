// SPDX-License-Identifier: GPL-2.0

//! Why a request of userspace is refused.

/// A refusal that does not depend on the kernel: memory and user copies fail elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// A value that the interface does not define; `EINVAL`.
    Invalid,
    /// More entries than the interface takes; `E2BIG`.
    TooBig,
}

/// What the engine's checks return.
pub(crate) type Result<T = ()> = core::result::Result<T, Error>;
