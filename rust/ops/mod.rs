// SPDX-License-Identifier: GPL-2.0

//! The entry points: each asks the engine's rules, and does to KVM what they say.

pub(crate) mod access;
pub(crate) mod debugfs;
pub(crate) mod emulator;
pub(crate) mod exits;
pub(crate) mod msr_filter;
pub(crate) mod msrs;
pub(crate) mod user_space_msr;

use crate::{
    engine::{
        error::Error,
        filter::Filter, //
    },
    kvm::{
        self,
        SrcuPtr, //
    },
};
use kernel::prelude::*;

/// What the engine keeps for a VM.
pub(crate) struct Data {
    /// The MSR filter. There is none until userspace sets one.
    pub(crate) filter: SrcuPtr<Filter<KVVec<u64>>>,
}

impl Data {
    /// What a new VM has.
    pub(crate) fn new() -> Result<KBox<Self>> {
        Ok(KBox::new(
            Self {
                filter: SrcuPtr::null(),
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }
}

/// A VM that this engine serves.
pub(crate) type Vm = kvm::Vm<Data>;

/// A vCPU that this engine serves.
pub(crate) type Vcpu = kvm::Vcpu<Data>;

/// A read-side section of a VM's `kvm->srcu`.
pub(crate) type Section<'a> = kvm::Section<'a, Data>;

impl From<Error> for kernel::error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid => EINVAL,
            Error::TooBig => E2BIG,
        }
    }
}
