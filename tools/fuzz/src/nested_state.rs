// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE.

use anyhow::Result;
use kvm_ioctls::VcpuFd;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Mapping;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::memory::PAGE;

use crate::seen::Seen;

/// Size of `struct kvm_nested_state` without data, in bytes.
pub const HEADER: usize = 128;
/// The header, and the two pages that may follow it.
pub const LARGEST: usize = HEADER + 2 * PAGE;

const FILL: u8 = 0x5a;
const SIZE_OFFSET: usize = 4;

/// Offsets in the header on VMX: the format, the flag that there is a deadline of the
/// VMX-preemption timer, and the deadline, which depends on time.
const FORMAT: usize = 2;
const FORMAT_VMX: u8 = 0;
const VMX_FLAGS: usize = 28;
const VMX_DEADLINE: std::ops::Range<usize> = 32..40;

/// Gets the state with this size.
fn bytes(vcpu: &VcpuFd, size: u32) -> Result<(Result<i32, Errno>, Vec<u8>)> {
    let mut memory = Mapping::new(LARGEST)?;
    let mut bytes = vec![FILL; LARGEST];

    bytes[SIZE_OFFSET..][..4].copy_from_slice(&size.to_le_bytes());
    memory.write(0, &bytes);
    let result = ioctl::get_nested_state(vcpu, memory.at(0));
    Ok((result, memory.read(0, LARGEST)))
}

/// Gets the state with this size.
pub fn get(vcpu: &VcpuFd, size: u32) -> Result<Seen> {
    let (result, mut bytes) = bytes(vcpu, size)?;

    if bytes[FORMAT] == FORMAT_VMX && bytes[VMX_FLAGS] & 1 != 0 {
        bytes[VMX_DEADLINE].fill(0);
    }
    Ok(Seen::Bytes(result, bytes))
}

/// Sets the present state, with some bytes changed, and `more` added to its size.
pub fn set(vcpu: &VcpuFd, inverted: &[(u16, u8)], more: i32) -> Result<Seen> {
    let (got, mut bytes) = bytes(vcpu, LARGEST as u32)?;

    if got.is_err() {
        return Ok(Seen::Values(got, Vec::new()));
    }
    for &(offset, bits) in inverted {
        if let Some(byte) = bytes.get_mut(usize::from(offset)) {
            *byte ^= bits;
        }
    }
    if let Some(size) = bytes[SIZE_OFFSET..].first_chunk_mut() {
        *size = u32::from_le_bytes(*size)
            .wrapping_add_signed(more)
            .to_le_bytes();
    }
    let mut memory = Mapping::new(LARGEST)?;
    memory.write(0, &bytes);
    Ok(Seen::Values(
        ioctl::set_nested_state(vcpu, memory.at(0)),
        Vec::new(),
    ))
}
