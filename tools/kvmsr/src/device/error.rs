// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The device's errors, with their meaning for each ioctl.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;

use crate::policy::Mistake;

/// The numbers of Linux on x86.
mod errno {
    pub const ENOENT: i32 = 2;
    pub const EINTR: i32 = 4;
    pub const EIO: i32 = 5;
    pub const E2BIG: i32 = 7;
    pub const EBADF: i32 = 9;
    pub const ENOMEM: i32 = 12;
    pub const EACCES: i32 = 13;
    pub const EBUSY: i32 = 16;
    pub const ENODEV: i32 = 19;
    pub const EINVAL: i32 = 22;
    pub const ENOTTY: i32 = 25;
    pub const EOPNOTSUPP: i32 = 95;
    pub const ENOTCONN: i32 = 107;
    pub const EALREADY: i32 = 114;
}

/// An error of the device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device can't be opened.
    #[error("{}", opening(path, error))]
    Open {
        /// Its path.
        path: PathBuf,
        /// The error. It is no source of this one, whose text has it or says what it means.
        error: io::Error,
    },
    /// An ioctl failed.
    #[error("{}", failed(ioctl, error))]
    Ioctl {
        /// Its name, e.g. `KMSR_ATTACH`.
        ioctl: &'static str,
        /// The error. It is no source of this one, whose text has it or says what it means.
        error: io::Error,
    },
    /// The policy has a wrong rule, and is not set.
    #[error("rule {}: {mistake}", number + 1)]
    Rule {
        /// The number of the rule, from 0.
        number: usize,
        /// Its mistake.
        mistake: Mistake,
    },
    /// The policy has a rule of a newer module.
    #[error("the policy has a rule with an unknown {0}: this kvmsr is older than the module")]
    Foreign(&'static str),
    /// A VM's descriptor can't be found or taken.
    #[error("{0}")]
    Vm(String),
}

impl Error {
    pub(super) fn ioctl(ioctl: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |error| Error::Ioctl { ioctl, error }
    }

    /// Whether the VM has ended.
    pub fn is_vm_gone(&self) -> bool {
        matches!(self, Error::Ioctl { error, .. } if error.raw_os_error() == Some(errno::ENODEV))
    }
}

fn opening(path: &Path, error: &io::Error) -> String {
    let path = path.display();

    match error.raw_os_error() {
        Some(errno::ENOENT) if Path::new(super::MODULE).exists() => {
            format!("{path} does not exist, although kvm-msr.ko is loaded; see 'kvmsr doctor'")
        }
        Some(errno::ENOENT) => {
            format!("{path} does not exist: load kvm-msr.ko before the VM is created")
        }
        Some(errno::EACCES) => {
            format!("you may not open {path}: it is root's, so run kvmsr as root")
        }
        _ => format!("can't open {path}: {error}"),
    }
}

fn failed(ioctl: &str, error: &io::Error) -> String {
    match error.raw_os_error().and_then(|errno| meaning(ioctl, errno)) {
        Some(meaning) => meaning.to_owned(),
        None if error.kind() == io::ErrorKind::Interrupted => {
            format!("{ioctl}: interrupted before all entries were done")
        }
        None => format!("{ioctl}: {error}"),
    }
}

/// What an error of an ioctl means, and what to do.
fn meaning(ioctl: &str, errno: i32) -> Option<&'static str> {
    Some(match (ioctl, errno) {
        ("KMSR_ATTACH", errno::EBADF) => "there is no such file descriptor",
        ("KMSR_ATTACH", errno::EINVAL) => {
            "the file descriptor is not a VM's: use the one that KVM_CREATE_VM returned"
        }
        ("KMSR_ATTACH", errno::EOPNOTSUPP) => {
            "KVM's C code handles this VM's MSRs: the engine serves only VMs that are created while \
             kvm-msr.ko is loaded and enabled; see 'kvmsr doctor'"
        }
        ("KMSR_ATTACH", errno::EBUSY) => {
            "another program has the right to set this VM's policy: end it, or use it"
        }
        ("KMSR_ATTACH", errno::EALREADY) => "the file is already attached to a VM",
        ("KMSR_LEARN", errno::EBUSY) => "another program learns from this VM: end it first",
        ("KMSR_STATS", errno::EBUSY) => {
            "another program keeps statistics of this VM, e.g. kvmsr top: end it first"
        }
        ("KMSR_BATCH" | "KMSR_SAVE_LIST", errno::ENOENT) => {
            "the VM has no such vCPU: use the number that KVM_CREATE_VCPU was given"
        }
        ("KMSR_BATCH" | "KMSR_SAVE_LIST", errno::EBUSY) => {
            "the vCPU is in use, as it runs: pause the guest, e.g. with QEMU's 'stop', or wait longer"
        }
        ("KMSR_BATCH" | "KMSR_SAVE_LIST", errno::EINTR) => "a signal interrupted the wait",
        (_, errno::ENOTTY) => "the file is not the device of kvm-msr.ko",
        (_, errno::ENODEV) => "the VM has ended",
        (_, errno::ENOTCONN) => "the file is not attached to a VM",
        (_, errno::EACCES) => "the file was attached without the right to do this",
        (_, errno::E2BIG) => "kvm-msr.ko is older than this kvmsr, and lacks what was asked for",
        (_, errno::ENOMEM) => "the kernel has not enough memory",
        _ => return None,
    })
}

/// Why an entry of a batch failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// `ENOENT`: there is no such MSR or register.
    NoSuchRegister,
    /// `EINVAL`: KVM denies the access or the value.
    Denied,
    /// `EIO`: it accesses guest memory, which only the VMM's process can do.
    GuestMemory,
    /// `EOPNOTSUPP`: the kind of register or the direction is not possible.
    NotPossible,
    /// Another error number.
    Other(i32),
}

impl Status {
    /// The meaning of a status: 0, or a negative errno.
    pub(super) fn of_errno(status: i32) -> Option<Self> {
        Some(match status.checked_neg().unwrap_or(i32::MAX) {
            0 => return None,
            errno::ENOENT => Status::NoSuchRegister,
            errno::EINVAL => Status::Denied,
            errno::EIO => Status::GuestMemory,
            errno::EOPNOTSUPP => Status::NotPossible,
            errno => Status::Other(errno),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::NoSuchRegister => f.write_str("KVM has no such MSR for this vCPU"),
            Status::Denied => f.write_str("refused"),
            Status::GuestMemory => {
                f.write_str("it accesses guest memory, which only the VMM itself can do")
            }
            Status::NotPossible => f.write_str("not possible for this kind of register"),
            Status::Other(errno) => write!(f, "{}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_means_what_the_ioctl_says() {
        let text =
            |ioctl, errno| Error::ioctl(ioctl)(io::Error::from_raw_os_error(errno)).to_string();

        assert!(text("KMSR_ATTACH", errno::EBUSY).contains("policy"));
        assert!(text("KMSR_LEARN", errno::EBUSY).contains("learns"));
        assert!(text("KMSR_STATS", errno::EBUSY).contains("statistics"));
        assert!(text("KMSR_BATCH", errno::EBUSY).contains("vCPU"));
        assert!(text("KMSR_SAVE_LIST", errno::ENOENT).contains("no such vCPU"));
        assert_eq!(text("KMSR_LEARN", errno::ENODEV), "the VM has ended");
        assert_eq!(
            text("KMSR_LEARN", errno::EINVAL),
            "KMSR_LEARN: Invalid argument (os error 22)"
        );
    }

    #[test]
    fn the_end_of_the_vm_is_told_apart() {
        let error = |errno| Error::ioctl("KMSR_LEARN")(io::Error::from_raw_os_error(errno));

        assert!(error(errno::ENODEV).is_vm_gone());
        assert!(!error(errno::EBUSY).is_vm_gone());
    }
}
