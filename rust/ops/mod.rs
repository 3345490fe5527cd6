// SPDX-License-Identifier: GPL-2.0

//! The entry points: each asks the engine's rules, and does to KVM what they say.

pub(crate) mod access;
pub(crate) mod cpu;
pub(crate) mod debugfs;
pub(crate) mod emulator;
pub(crate) mod exits;
pub(crate) mod fastpath;
pub(crate) mod lists;
pub(crate) mod msr_filter;
pub(crate) mod msrs;
pub(crate) mod nested_state;
pub(crate) mod one_reg;
pub(crate) mod user_space_msr;

use crate::{
    engine::{
        error::Error,
        filter::Filter, //
    },
    kvm::{
        self,
        user::FilterWords, //
    },
};
use kernel::prelude::*;

/// What the engine keeps for a VM: its MSR filter, from the first that userspace sets on.
pub(crate) type Protected = Filter<FilterWords>;

/// A VM that this engine serves.
pub(crate) type Vm = kvm::Vm<Protected>;

/// A vCPU that this engine serves.
pub(crate) type Vcpu = kvm::Vcpu<Protected>;

/// A read-side section of a VM's `kvm->srcu`.
pub(crate) type Section<'a> = kvm::Section<'a, Protected>;

impl From<Error> for kernel::error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid => EINVAL,
            Error::TooBig => E2BIG,
        }
    }
}
