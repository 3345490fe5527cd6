// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM_GET_MSRS and KVM_SET_MSRS with any number of MSRs, some of which may fail.
//!
//! Both ioctls take fewer than 256 entries. They stop at the first entry that fails, and return
//! the number of entries before it. So the next call starts with the entry after it.

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::VcpuFd;

/// With more entries than this, both ioctls fail with E2BIG.
const MAXIMUM: usize = 255;

/// Reads MSRs. Returns their values, and the indices that could not be read.
pub fn get_all(vcpu: &VcpuFd, indices: &[u32]) -> Result<(Vec<kvm_msr_entry>, Vec<u32>)> {
    let mut values = Vec::new();
    let mut unreadable = Vec::new();
    let mut rest = indices;

    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(MAXIMUM)];
        let entries: Vec<_> = chunk
            .iter()
            .map(|&index| kvm_msr_entry {
                index,
                ..Default::default()
            })
            .collect();
        let mut msrs = Msrs::from_entries(&entries).expect("at most 255 entries");
        let read = vcpu.get_msrs(&mut msrs).context("KVM_GET_MSRS")?;

        values.extend_from_slice(&msrs.as_slice()[..read]);
        unreadable.extend(chunk.get(read));
        rest = &rest[chunk.len().min(read + 1)..];
    }
    Ok((values, unreadable))
}

/// Writes MSRs. Returns the entries that could not be written.
pub fn set_all(vcpu: &VcpuFd, values: &[kvm_msr_entry]) -> Result<Vec<kvm_msr_entry>> {
    let mut refused = Vec::new();
    let mut rest = values;

    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(MAXIMUM)];
        let msrs = Msrs::from_entries(chunk).expect("at most 255 entries");
        let written = vcpu.set_msrs(&msrs).context("KVM_SET_MSRS")?;

        refused.extend(chunk.get(written));
        rest = &rest[chunk.len().min(written + 1)..];
    }
    Ok(refused)
}
