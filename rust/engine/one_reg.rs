// SPDX-License-Identifier: GPL-2.0

//! The IDs of `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG`.
//!
//! Source: `Documentation/virt/kvm/api.rst`, section `KVM_SET_ONE_REG`, x86.
//!
//! From bit 0 up, an ID consists of an index (32 bits), a type (8), reserved bits (12), a size (4)
//! and the architecture (8).

use super::{
    registers::index::KVM_INTERNAL_GUEST_SSP,
    request::{
        Error,
        Result, //
    },
};

/// The architecture's bits (`KVM_REG_ARCH_MASK`), and their value for x86.
const ARCH_MASK: u64 = 0xff << 56;
const ARCH_X86: u64 = 0x20 << 56;

/// The size's bits (`KVM_REG_SIZE_MASK`), and their value for 64 bits.
const SIZE_MASK: u64 = 0xf << 52;
const SIZE_U64: u64 = 0x3 << 52;

const RESERVED: u64 = 0xfff << 40;

/// The index is an MSR's (`KVM_X86_REG_TYPE_MSR`).
const TYPE_MSR: u8 = 2;
/// KVM defines the index (`KVM_X86_REG_TYPE_KVM`).
const TYPE_KVM: u8 = 3;

/// The guest's current shadow stack pointer (`KVM_REG_GUEST_SSP`).
const KVM_GUEST_SSP: u32 = 0;

/// The ID of the guest's current shadow stack pointer.
pub(crate) const GUEST_SSP_ID: u64 =
    ARCH_X86 | SIZE_U64 | (TYPE_KVM as u64) << 32 | KVM_GUEST_SSP as u64;

/// Returns the index of the MSR that an ID names. `has_shadow_stack` returns whether the vCPU has
/// shadow stacks. Their current pointer is an MSR only inside of KVM; user space has to use
/// [`GUEST_SSP_ID`].
///
/// # Errors
///
/// [`Error::Invalid`] if the ID names another architecture, sets a reserved bit, or has an unknown
/// type, index or size.
pub(crate) fn msr_of(id: u64, has_shadow_stack: impl FnOnce() -> bool) -> Result<u32> {
    let index = id as u32;
    let kind = (id >> 32) as u8;

    if id & ARCH_MASK != ARCH_X86 || id & RESERVED != 0 {
        return Err(Error::Invalid);
    }
    let msr = match (kind, index) {
        (TYPE_MSR, index) => index,
        (TYPE_KVM, KVM_GUEST_SSP) if has_shadow_stack() => KVM_INTERNAL_GUEST_SSP,
        _ => return Err(Error::Invalid),
    };

    if id & SIZE_MASK != SIZE_U64 {
        return Err(Error::Invalid);
    }
    Ok(msr)
}
