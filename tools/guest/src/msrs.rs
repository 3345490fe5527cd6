// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `struct kvm_msrs`, for KVM_GET_MSRS and KVM_SET_MSRS.

use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;

use crate::ioctl;

/// Bytes before the first entry.
pub const HEADER: usize = 8;

/// Bytes per entry.
pub const ENTRY: usize = 16;

/// From this `nmsrs` on, the ioctls fail with `E2BIG`.
pub const TOO_MANY: u32 = 256;

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

    /// The entry in the ioctls' layout.
    pub fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];

        bytes[0..4].copy_from_slice(&self.index.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.reserved.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.data.to_le_bytes());
        bytes
    }
}

/// `struct kvm_msrs` in the ioctls' layout. `nmsrs` may differ from the number
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

/// Writes MSRs, and returns how many were written before one was refused.
pub fn set_list(vcpu: &VcpuFd, values: &[(u32, u64)]) -> ioctl::Result<usize> {
    Ok(vcpu.set_msrs(&list(values.iter().copied()))?)
}

/// Reads MSRs, and returns the values of those before the first one that can't be read.
pub fn get_list(vcpu: &VcpuFd, indices: &[u32]) -> ioctl::Result<Vec<u64>> {
    let mut msrs = list(indices.iter().map(|&index| (index, 0)));
    let done = vcpu.get_msrs(&mut msrs)?;

    Ok(values(&msrs, done))
}

/// Reads feature MSRs from `/dev/kvm` as [`get_list`] reads MSRs.
pub fn get_feature_list(kvm: &Kvm, indices: &[u32]) -> ioctl::Result<Vec<u64>> {
    let mut msrs = list(indices.iter().map(|&index| (index, 0)));
    let done = kvm.get_msrs(&mut msrs)?;

    Ok(values(&msrs, done))
}

fn list(values: impl Iterator<Item = (u32, u64)>) -> Msrs {
    let entries: Vec<_> = values
        .map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        })
        .collect();

    Msrs::from_entries(&entries).expect("there are few")
}

fn values(msrs: &Msrs, done: usize) -> Vec<u64> {
    msrs.as_slice()[..done]
        .iter()
        .map(|entry| entry.data)
        .collect()
}
