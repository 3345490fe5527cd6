// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `/dev/kvm-msr`, the device of `kvm-msr.ko`: what KVM itself lacks for the MSRs of a VM.
//!
//! A VMM attaches to its own VM by the VM's file descriptor:
//!
//! ```no_run
//! use kvmsr::device::Device;
//! use kvmsr::device::Rights;
//! use kvmsr::policy::Policy;
//!
//! # let vm_fd = std::fs::File::open("/dev/null")?;
//! let policy = Policy::parse("ignore when unsupported 0x0-0x7ff")?;
//! let vm = Device::open()?.attach(&vm_fd, Rights::POLICY)?;
//!
//! vm.set_policy(&policy.rules(), false)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An operator attaches to the VM of a running VMM, whose descriptor [`VmFd::of_process`] takes.
//!
//! Holding the descriptor is the authority, as for KVM's own ioctls. An [`Attached`] does not keep
//! the VM alive: after its end, all ioctls fail with `ENODEV`.
//!
//! The reference is the header `rust/uapi/kvm-msr.h`.

mod attached;
mod batch;
mod error;
mod learn;
mod raw;
mod save_list;
mod stats;
// Generated from the header, with the names of C.
#[allow(dead_code, missing_docs, non_camel_case_types)]
mod uapi;
mod vm_fd;

pub use attached::Attached;
pub use batch::Entry;
pub use batch::Id;
pub use error::Error;
pub use error::Status;
pub use learn::Learned;
pub use learn::Learning;
pub use learn::Path;
pub use save_list::Attribute;
pub use save_list::Owner;
pub use save_list::SaveEntry;
pub use stats::Stat;
pub use stats::Statistics;
pub use vm_fd::VmFd;

use std::fs::File;
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::path::Path as FilePath;

/// The device's path.
pub const DEVICE: &str = "/dev/kvm-msr";

/// The module's folder in sysfs, if it is loaded.
pub(crate) const MODULE: &str = "/sys/module/kvm_msr";

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The open device, not yet attached to a VM.
#[derive(Debug)]
pub struct Device {
    file: File,
}

/// What the module offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Info {
    /// The version of the interface.
    pub version: u32,
    /// The ioctls, as bits `KMSR_FEATURE_*`.
    pub features: u64,
    /// The actions of a rule, as bits by `KMSR_ACTION_*`.
    pub actions: u64,
    /// The maximum number of rules of a policy.
    pub max_rules: u32,
    /// The maximum number of MSRs that learning records.
    pub max_learned: u32,
    /// The number of buckets of a histogram.
    pub nr_buckets: u32,
}

/// What a file may do with a VM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rights(u64);

impl Info {
    /// The names of the features. Those of a newer module are left out.
    pub fn feature_names(&self) -> Vec<&'static str> {
        [
            (uapi::KMSR_FEATURE_POLICY, "policy"),
            (uapi::KMSR_FEATURE_LEARN, "learn"),
            (uapi::KMSR_FEATURE_STATS, "stats"),
            (uapi::KMSR_FEATURE_BATCH, "batch"),
            (uapi::KMSR_FEATURE_SAVE_LIST, "save-list"),
        ]
        .iter()
        .filter(|&&(bit, _)| self.features & u64::from(bit) != 0)
        .map(|&(_, name)| name)
        .collect()
    }
}

impl Rights {
    /// Read the policy, learn, keep statistics, and read the save list.
    pub const OBSERVE: Rights = Rights(uapi::KMSR_RIGHT_OBSERVE as u64);
    /// Set the policy. One file at a time has this right for a VM.
    pub const POLICY: Rights = Rights(uapi::KMSR_RIGHT_POLICY as u64);
    /// Get and set registers.
    pub const STATE: Rights = Rights(uapi::KMSR_RIGHT_STATE as u64);

    /// Both.
    #[must_use]
    pub fn and(self, other: Rights) -> Self {
        Rights(self.0 | other.0)
    }
}

impl Device {
    /// Opens [`DEVICE`].
    ///
    /// # Errors
    ///
    /// [`Error::Open`]: `ENOENT` if the module is not loaded, `EACCES` without permission.
    pub fn open() -> Result<Self> {
        Device::open_path(FilePath::new(DEVICE))
    }

    /// Opens the device at another path.
    ///
    /// # Errors
    ///
    /// As [`Device::open`].
    pub fn open_path(path: &FilePath) -> Result<Self> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Device { file }),
            Err(error) => Err(Error::Open {
                path: path.to_owned(),
                error,
            }),
        }
    }

    /// What the module offers (`KMSR_INFO`).
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`]: `ENOTTY` if the file is another device.
    pub fn info(&self) -> Result<Info> {
        let info = raw::info(&self.file).map_err(Error::ioctl("KMSR_INFO"))?;

        Ok(Info {
            version: info.version,
            features: info.features,
            actions: info.actions,
            max_rules: info.max_rules,
            max_learned: info.max_learned,
            nr_buckets: info.nr_buckets,
        })
    }

    /// Attaches to a VM (`KMSR_ATTACH`), until the result is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`]: `EINVAL` if the descriptor is not a VM's, `EOPNOTSUPP` if C's code and not
    /// the engine handles the VM's MSRs, `EBUSY` if another file has [`Rights::POLICY`], `ENODEV`
    /// if the VM has ended.
    pub fn attach(self, vm: &impl AsFd, rights: Rights) -> Result<Attached> {
        raw::attach(&self.file, vm.as_fd(), rights.0).map_err(Error::ioctl("KMSR_ATTACH"))?;
        Ok(Attached { file: self.file })
    }
}
