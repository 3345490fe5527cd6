// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over KVM, for an MSR engine.
//!
//! All hand-written `unsafe` of the module is here. The layers above use attached VMs and their
//! vCPUs ([`Vm`], [`Vcpu`]), copies from and to user memory ([`user`]), data that `kvm->srcu`
//! protects ([`Section`]), and the list of the ops that KVM calls ([`msr_engine_ops!`]).

mod counting;
mod debugfs;
mod device;
mod engine;
mod exit;
mod feature;
pub(crate) mod host;
mod interface;
mod msr_index;
pub(crate) mod nested;
pub(crate) mod nospec;
mod ops;
mod overlay;
mod srcu;
mod state;
mod tsc;
pub(crate) mod user;
mod vcpu;
mod vm;

pub(crate) use self::{
    counting::{
        Counting,
        Histogram,
        Stats,
        Timer,
        Totals, //
    },
    debugfs::File,
    device::{
        pause,
        state_of_fd,
        VmRef, //
    },
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
        InFastpath,
        InRunLoop,
        NewVm,
        Ops,
        Parameter,
        Returned, //
    },
    overlay::{
        scratch,
        Claims,
        FileId,
        Learning,
        Overlay,
        PolicyMemory,
        VmPolicy,
        Watch,
        Way, //
    },
    srcu::Section,
    state::VmState,
    tsc::{
        tsc_khz,
        Tsc, //
    },
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
