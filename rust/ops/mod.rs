// SPDX-License-Identifier: GPL-2.0

//! The ops that KVM calls. They connect KVM's state ([`crate::kvm`]) with the engine's rules
//! ([`crate::engine`]).

#![forbid(unsafe_code)]

pub(crate) mod access;
pub(crate) mod debugfs;
pub(crate) mod device;
pub(crate) mod emulator;
pub(crate) mod exits;
pub(crate) mod fastpath;
pub(crate) mod lists;
pub(crate) mod msr_filter;
pub(crate) mod msrs;
pub(crate) mod nested_state;
pub(crate) mod one_reg;
mod overlaid;
pub(crate) mod user_space_msr;

use crate::engine::{
    exit::Denial, //
    request::Error,
};
use kernel::prelude::*;

/// The result of an access to an MSR.
pub(crate) type AccessResult<T = ()> = core::result::Result<T, Denial>;

impl From<Error> for kernel::error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid => EINVAL,
            Error::TooBig => E2BIG,
        }
    }
}
