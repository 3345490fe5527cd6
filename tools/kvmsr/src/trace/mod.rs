// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Which VM touches which MSR: from the tracepoint `kvm:kvm_msr` of any kernel.
//!
//! [`Session`] counts. It has the kernel count where that can be done (histogram triggers,
//! `CONFIG_HIST_TRIGGERS`), which loses nothing; otherwise it reads every event from a pipe, and
//! says how many were lost. [`Log`] hands each event over.
//!
//! Both work in a tracefs instance of their own, so that they disturb nobody else's tracing, and
//! remove it when they are dropped.

mod counter;
mod engine;
mod event;
mod histogram;
mod log;
mod owners;
mod pipe;
mod report;
mod session;
mod tracefs;

pub use counter::Count;
pub use counter::Method;
pub use engine::Counters;
pub use engine::Served;
pub use event::Event;
pub use event::Line;
pub use log::Log;
pub use owners::Owner;
pub use report::Access;
pub use report::Command;
pub use report::Entry;
pub use report::Row;
pub use report::Top;
pub use session::Selection;
pub use session::Session;
pub use session::Settings;
pub use tracefs::INSTANCE_PREFIX;
pub use tracefs::Tracefs;

/// What is not seen, as the tracepoint does not fire.
pub const NOTE: &str = "Not counted, as the kernel does not trace it: MSRs that KVM passes through \
                        to the CPU (such as FS_BASE, and often SPEC_CTRL and TSC), and accesses \
                        that user space answers (KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR).";
