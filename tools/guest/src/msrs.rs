// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `struct kvm_msrs`, for KVM_GET_MSRS and KVM_SET_MSRS (api.rst, 4.18, 4.19).

use anyhow::Context;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::VcpuFd;

use crate::ioctl;

/// Bytes before the first entry.
pub const HEADER: usize = 8;

/// Bytes per entry.
pub const ENTRY: usize = 16;

/// `nmsrs` from which on the ioctls answer `E2BIG`.
pub const TOO_MANY: u32 = 256;

/// Entries that one ioctl takes at most.
const MOST: usize = TOO_MANY as usize - 1;

/// `struct kvm_msr_entry`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Entry {
    /// MSR index.
    pub index: u32,
    /// Neither read nor changed by KVM.
    pub reserved: u32,
    /// Value of the MSR.
    pub data: u64,
}

impl Entry {
    /// An entry with a value.
    pub fn new(index: u32, data: u64) -> Self {
        Entry {
            index,
            reserved: 0,
            data,
        }
    }

    /// The entry as it lies in memory.
    pub fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];

        bytes[0..4].copy_from_slice(&self.index.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.reserved.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.data.to_le_bytes());
        bytes
    }
}

/// `struct kvm_msrs` as it lies in memory; `nmsrs` may differ from the number
/// of entries.
pub fn to_bytes(nmsrs: u32, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + entries.len() * ENTRY);

    bytes.extend(nmsrs.to_le_bytes());
    bytes.extend([0; 4]);
    for entry in entries {
        bytes.extend(entry.to_bytes());
    }
    bytes
}

/// Reads one MSR; none if KVM does not know it.
pub fn get(vcpu: &VcpuFd, index: u32) -> ioctl::Result<Option<u64>> {
    let mut msrs = Msrs::from_entries(&[kvm_msr_entry {
        index,
        ..Default::default()
    }])
    .expect("one entry fits");

    let done = vcpu.get_msrs(&mut msrs)?;
    Ok((done == 1).then(|| msrs.as_slice()[0].data))
}

/// Writes one MSR; false if KVM does not know it or refuses the value.
pub fn set(vcpu: &VcpuFd, index: u32, data: u64) -> ioctl::Result<bool> {
    let msrs = Msrs::from_entries(&[kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }])
    .expect("one entry fits");

    Ok(vcpu.set_msrs(&msrs)? == 1)
}

/// Reads MSRs, any number of them; returns them, and the indices of those that
/// can't be read.
///
/// KVM_GET_MSRS stops at the first MSR that fails and returns how many went
/// well before. So that one is left out, and the next call begins behind it.
pub fn get_all(vcpu: &VcpuFd, indices: &[u32]) -> anyhow::Result<(Vec<kvm_msr_entry>, Vec<u32>)> {
    let mut values = Vec::new();
    let mut unreadable = Vec::new();
    let mut rest = indices;

    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(MOST)];
        let asked: Vec<_> = chunk
            .iter()
            .map(|&index| kvm_msr_entry {
                index,
                ..Default::default()
            })
            .collect();
        let mut msrs = Msrs::from_entries(&asked).expect("no more than fit");
        let done = vcpu.get_msrs(&mut msrs).context("KVM_GET_MSRS")?;

        values.extend_from_slice(&msrs.as_slice()[..done]);
        unreadable.extend(chunk.get(done));
        rest = &rest[chunk.len().min(done + 1)..];
    }
    Ok((values, unreadable))
}

/// Writes MSRs, any number of them; returns those that can't be written with
/// their values.
///
/// KVM_SET_MSRS stops as KVM_GET_MSRS does, see [`get_all`].
pub fn set_all(vcpu: &VcpuFd, values: &[kvm_msr_entry]) -> anyhow::Result<Vec<kvm_msr_entry>> {
    let mut refused = Vec::new();
    let mut rest = values;

    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(MOST)];
        let msrs = Msrs::from_entries(chunk).expect("no more than fit");
        let done = vcpu.set_msrs(&msrs).context("KVM_SET_MSRS")?;

        refused.extend(chunk.get(done));
        rest = &rest[chunk.len().min(done + 1)..];
    }
    Ok(refused)
}
