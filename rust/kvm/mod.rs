// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over KVM, for an MSR engine.
//!
//! All hand-written `unsafe` of the module is here. What the layers above see is a VM and a vCPU
//! that are known to be attached ([`Vm`], [`Vcpu`]), copies from and to user memory ([`user`]),
//! pointers that `kvm->srcu` protects ([`SrcuPtr`]), and the trait to be served by
//! ([`MsrEngine`]).

mod debugfs;
mod engine;
mod exit;
mod fpu;
pub(crate) mod host;
pub(crate) mod nested;
mod registers;
mod srcu;
pub(crate) mod user;
mod vcpu;
mod vm;

pub(crate) use self::{
    debugfs::Files,
    engine::{
        MsrEngine,
        Registration, //
    },
    exit::{
        Completion,
        Emulation,
        Fastpath,
        Run,
        UserSpaceExit, //
    },
    fpu::GuestFpu,
    registers::{
        CpuidBit,
        KvmRequest,
        Place, //
    },
    srcu::Section,
    vcpu::{
        Counter,
        Denial,
        Vcpu, //
    },
    vm::Vm,
};
