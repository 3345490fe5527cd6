// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSR accesses and their results.

use std::fmt;

use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::KVM_MSR_EXIT_REASON_INVAL;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_bindings::KVM_MSR_FILTER_READ;
use kvm_bindings::KVM_MSR_FILTER_WRITE;

use crate::ioctl::Errno;

const VECTOR_GP: u8 = 13;

/// The two kinds of access.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// RDMSR.
    Read,
    /// WRMSR.
    Write,
}

impl Access {
    /// The flag of `struct kvm_msr_filter_range` for this kind of access.
    pub fn flag(self) -> u32 {
        match self {
            Access::Read => KVM_MSR_FILTER_READ,
            Access::Write => KVM_MSR_FILTER_WRITE,
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Access::Read => "RDMSR",
            Access::Write => "WRMSR",
        })
    }
}

/// An exit of KVM_CAP_X86_USER_SPACE_MSR: `msr` in `struct kvm_run`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MsrExit {
    /// KVM_EXIT_X86_RDMSR or KVM_EXIT_X86_WRMSR.
    pub access: Access,
    /// One of the bits `KVM_MSR_EXIT_REASON_*`.
    pub reason: u32,
    /// MSR index.
    pub index: u32,
    /// The value to be written; 0 for a read.
    pub data: u64,
    /// 0.
    pub error: u8,
    /// Zeroes.
    pub pad: [u8; 7],
}

impl fmt::Display for MsrExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            KVM_MSR_EXIT_REASON_INVAL => "INVAL".to_owned(),
            KVM_MSR_EXIT_REASON_UNKNOWN => "UNKNOWN".to_owned(),
            KVM_MSR_EXIT_REASON_FILTER => "FILTER".to_owned(),
            reason => format!("reason {reason:#x}"),
        };

        write!(
            f,
            "exit {} {reason} index {:#x} data {:#x} error {} pad {:?}",
            self.access, self.index, self.data, self.error, self.pad
        )
    }
}

/// The result of a run of the vCPU.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// RDMSR read this value.
    Value(u64),
    /// WRMSR, or a loop of accesses, is done.
    Done,
    /// The guest got an exception.
    Exception {
        /// Vector, e.g. 13 for #GP.
        vector: u8,
        /// Error code on the guest's stack; 0 for vectors without one.
        error_code: u32,
        /// EIP on the guest's stack, as an offset from the start of the stub.
        offset: u32,
    },
    /// An exit to user space, which answers with [`Guest::answer`] and [`Guest::run`].
    UserSpace(MsrExit),
    /// KVM_RUN returned EINTR.
    Interrupted,
    /// KVM_RUN failed with another errno.
    Failed(Errno),
    /// The guest wrote to a port that no stub uses.
    Port(u16),
    /// Another exit reason.
    Exit(u32),
}

impl Outcome {
    /// Whether the guest got #GP(0) from the access itself.
    pub fn is_gp(&self) -> bool {
        matches!(
            self,
            Outcome::Exception {
                vector: VECTOR_GP,
                error_code: 0,
                ..
            }
        )
    }

    /// The exit to user space, if it is one.
    pub fn user_space(&self) -> Option<&MsrExit> {
        match self {
            Outcome::UserSpace(exit) => Some(exit),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Value(value) => write!(f, "value {value:#x}"),
            Outcome::Done => f.write_str("done"),
            Outcome::Exception {
                vector: VECTOR_GP,
                error_code,
                offset,
            } => write!(f, "#GP({error_code}) at +{offset}"),
            Outcome::Exception {
                vector,
                error_code,
                offset,
            } => write!(f, "exception {vector} ({error_code}) at +{offset}"),
            Outcome::UserSpace(exit) => exit.fmt(f),
            Outcome::Interrupted => f.write_str("EINTR"),
            Outcome::Failed(errno) => write!(f, "KVM_RUN: {errno}"),
            Outcome::Port(port) => write!(f, "OUT to port {port:#x}"),
            Outcome::Exit(reason) => write!(f, "exit reason {reason}"),
        }
    }
}
