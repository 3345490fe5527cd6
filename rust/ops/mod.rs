// SPDX-License-Identifier: GPL-2.0

//! The ops that KVM calls. They connect KVM's state ([`crate::kvm`]) with the engine's rules
//! ([`crate::engine`]).

#![forbid(unsafe_code)]

pub(crate) mod access;
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
        exit::Denial,
        filter::Filter, //
    },
    kvm::{
        self,
        user::FilterWords,
        DyingVm,
        NewVm, //
    },
};
use kernel::prelude::*;

/// The value that the engine keeps for a VM: its MSR filter, if user space has set one.
pub(crate) type Protected = Filter<FilterWords>;

/// A VM that this engine serves.
pub(crate) type Vm = kvm::Vm<Protected>;

/// A vCPU that this engine serves.
pub(crate) type Vcpu = kvm::Vcpu<Protected>;

/// A vCPU that this engine serves, in the run loop.
pub(crate) type InRunLoop<'a> = kvm::InRunLoop<'a, Protected>;

/// A read-side section of a VM's `kvm->srcu`.
pub(crate) type Section<'a> = kvm::Section<'a, Protected>;

/// The result of an access to an MSR.
pub(crate) type AccessResult<T = ()> = core::result::Result<T, Denial>;

/// Attaches a new VM to the engine.
///
/// # Errors
///
/// `ENOMEM`
pub(crate) fn vm_init(vm: NewVm) -> Result {
    vm.attach::<Protected>()
}

/// Frees the value that the engine kept for a VM.
pub(crate) fn vm_destroy(vm: DyingVm) {
    vm.detach::<Protected>();
}

impl From<Error> for kernel::error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid => EINVAL,
            Error::TooBig => E2BIG,
        }
    }
}
