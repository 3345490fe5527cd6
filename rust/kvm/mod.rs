// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over KVM, for an MSR engine.
//!
//! All hand-written `unsafe` of the module is here. The layers above use attached VMs and their
//! vCPUs ([`Vm`], [`Vcpu`]), copies from and to user memory ([`user`]), data that `kvm->srcu`
//! protects ([`Section`]), and the list of the ops that KVM calls ([`msr_engine_ops!`]).

mod debugfs;
mod engine;
mod exit;
mod feature;
pub(crate) mod host;
mod msr_index;
pub(crate) mod nested;
pub(crate) mod nospec;
mod ops;
mod srcu;
pub(crate) mod user;
mod vcpu;
mod vm;

pub(crate) use self::{
    debugfs::File,
    engine::{
        is_enabled,
        Registration, //
    },
    exit::{
        Completion,
        Emulation,
        Fastpath,
        Run, //
    },
    ops::{
        msr_engine_ops,
        DeviceIoctl,
        DyingVm,
        InRunLoop,
        NewVm,
        Ops,
        Parameter,
        Returned, //
    },
    srcu::Section,
    vcpu::{
        Counter,
        GuestFpu,
        MsrData,
        Vcpu, //
    },
    vm::{
        Protected,
        Vm, //
    },
};
