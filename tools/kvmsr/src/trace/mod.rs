// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Counts which VM accesses which MSR, with the tracepoint `kvm:kvm_msr`, which any kernel has.
//!
//! [`Session`] counts. If possible, the kernel counts (histogram triggers,
//! `CONFIG_HIST_TRIGGERS`), and no event is lost; otherwise it reads every event from a pipe, and
//! reports how many were lost. [`Log`] reports each event.
//!
//! Both use a tracefs instance of their own, so that they do not affect other tracing, and remove
//! it when they are dropped.

mod counter;
mod engine;
mod event;
mod histogram;
mod log;
mod owners;
mod pipe;
mod report;
mod session;
mod statistics;
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
pub use statistics::EngineSession;
pub use tracefs::INSTANCE_PREFIX;
pub use tracefs::Tracefs;

/// Accesses that the engine's statistics lack.
pub const ENGINE_NOTE: &str = "Not counted: MSRs that KVM passes through to the CPU (e.g. FS_BASE, often SPEC_CTRL \
                               and TSC).";

/// Accesses that do not fire the tracepoint.
pub const NOTE: &str = "Not counted, because the kernel does not trace them: MSRs that KVM passes through \
                        to the CPU (e.g. FS_BASE, often SPEC_CTRL and TSC), and accesses \
                        that user space answers (KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR).";
