// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The save list: all MSRs whose state a guest can see.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Attached;
use super::Error;
use super::Result;
use super::raw;
use super::uapi;
use super::uapi::kmsr_save_entry;

/// An MSR to save and restore.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SaveEntry {
    /// Its index.
    pub index: u32,
    /// The ioctls that save and restore it.
    pub owner: Owner,
    /// MSRs with a lower number have to be restored first.
    pub order: u16,
    /// What to know about it. Attributes of a newer module are left out.
    pub attributes: Vec<Attribute>,
}

/// The ioctls that save and restore an MSR.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// `KVM_GET_MSRS` and `KVM_SET_MSRS`.
    Msrs,
    /// `KVM_GET_SREGS2` and `KVM_SET_SREGS2`.
    Sregs,
    /// `KVM_GET_LAPIC` and `KVM_SET_LAPIC`.
    Lapic,
    /// `KVM_GET_XSAVE2` and `KVM_SET_XSAVE`.
    Xsave,
    /// `KVM_GET_NESTED_STATE` and `KVM_SET_NESTED_STATE`.
    Nested,
    /// `KVM_GET_VCPU_EVENTS` and `KVM_SET_VCPU_EVENTS`.
    VcpuEvents,
    /// Others, of a newer module.
    Other,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Owner::Msrs => "KVM_GET_MSRS",
            Owner::Sregs => "KVM_GET_SREGS2",
            Owner::Lapic => "KVM_GET_LAPIC",
            Owner::Xsave => "KVM_GET_XSAVE2",
            Owner::Nested => "KVM_GET_NESTED_STATE",
            Owner::VcpuEvents => "KVM_GET_VCPU_EVENTS",
            Owner::Other => "unknown",
        })
    }
}

/// What to know about an MSR that is saved.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Attribute {
    /// It changes by itself, e.g. with time.
    Volatile,
    /// It has no value to save.
    WriteOnly,
    /// It can't change after the vCPU has run.
    Fixed,
    /// A write does more than to set the value.
    SideEffect,
    /// A write accesses guest memory.
    GuestMemory,
    /// `KVM_GET_MSR_INDEX_LIST` has it.
    Listed,
    /// Writes of user space have no effect, so it need not be restored.
    Ignored,
}

impl Attribute {
    const BITS: [(u32, Attribute); 7] = [
        (uapi::KMSR_SAVE_VOLATILE, Attribute::Volatile),
        (uapi::KMSR_SAVE_WRITE_ONLY, Attribute::WriteOnly),
        (uapi::KMSR_SAVE_FIXED, Attribute::Fixed),
        (uapi::KMSR_SAVE_SIDE_EFFECT, Attribute::SideEffect),
        (uapi::KMSR_SAVE_GUEST_MEMORY, Attribute::GuestMemory),
        (uapi::KMSR_SAVE_LISTED, Attribute::Listed),
        (uapi::KMSR_SAVE_IGNORED, Attribute::Ignored),
    ];
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Attribute::Volatile => "volatile",
            Attribute::WriteOnly => "write-only",
            Attribute::Fixed => "fixed after run",
            Attribute::SideEffect => "side effect",
            Attribute::GuestMemory => "guest memory",
            Attribute::Listed => "listed",
            Attribute::Ignored => "ignored",
        })
    }
}

impl From<&kmsr_save_entry> for SaveEntry {
    fn from(raw: &kmsr_save_entry) -> Self {
        SaveEntry {
            index: raw.index,
            owner: match u32::from(raw.owner) {
                uapi::KMSR_OWNER_MSRS => Owner::Msrs,
                uapi::KMSR_OWNER_SREGS => Owner::Sregs,
                uapi::KMSR_OWNER_LAPIC => Owner::Lapic,
                uapi::KMSR_OWNER_XSAVE => Owner::Xsave,
                uapi::KMSR_OWNER_NESTED => Owner::Nested,
                uapi::KMSR_OWNER_VCPU_EVENTS => Owner::VcpuEvents,
                _ => Owner::Other,
            },
            order: raw.order,
            attributes: Attribute::BITS
                .iter()
                .filter(|(bit, _)| raw.attributes & bit != 0)
                .map(|&(_, attribute)| attribute)
                .collect(),
        }
    }
}

impl Attached {
    /// The MSRs of a vCPU whose state a guest can see, in the order in which to restore them
    /// (`KMSR_SAVE_LIST`), for which [`super::Rights::OBSERVE`] is needed. Waits up to `timeout`
    /// for a vCPU that is in use.
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`]: `ENOENT` if there is no such vCPU, `EBUSY` if it was in use for
    /// `timeout`, `EINTR` for a signal meanwhile.
    pub fn save_list(&self, vcpu: u32, timeout: Duration) -> Result<Vec<SaveEntry>> {
        /// More than there are today.
        const ROOM: usize = 1024;
        let timeout = super::batch::milliseconds(timeout);
        let entries = super::attached::list(ROOM, |entries| {
            raw::save_list(&self.file, vcpu, timeout, entries)
        })
        .map_err(Error::ioctl("KMSR_SAVE_LIST"))?;

        Ok(entries.iter().map(SaveEntry::from).collect())
    }
}
