// SPDX-License-Identifier: GPL-2.0

//! What the IDs of `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG` mean.
//!
//! Source: `Documentation/virt/kvm/api.rst`, section `KVM_SET_ONE_REG`, x86.
//!
//! An ID has, from its lowest bits on: 32 bits of an index, 8 of a type, 12 that are reserved, 4
//! of a size, and 8 of the architecture.

use super::{
    error::{
        Error,
        Result, //
    },
    registers::index::KVM_INTERNAL_GUEST_SSP,
};

/// The bits that say which architecture (`KVM_REG_ARCH_MASK`), and x86 among them.
const ARCH_MASK: u64 = 0xff << 56;
const ARCH_X86: u64 = 0x20 << 56;

/// The bits that say how large the register is (`KVM_REG_SIZE_MASK`), and 64 bits among them.
const SIZE_MASK: u64 = 0xf << 52;
const SIZE_U64: u64 = 0x3 << 52;

const RESERVED: u64 = 0xfff << 40;

/// The index is that of an MSR (`KVM_X86_REG_TYPE_MSR`).
const TYPE_MSR: u8 = 2;
/// The index is one that KVM gave (`KVM_X86_REG_TYPE_KVM`).
const TYPE_KVM: u8 = 3;

/// The guest's current shadow stack pointer (`KVM_REG_GUEST_SSP`).
const KVM_GUEST_SSP: u32 = 0;

/// The ID of the guest's current shadow stack pointer.
pub(crate) const GUEST_SSP_ID: u64 =
    ARCH_X86 | SIZE_U64 | (TYPE_KVM as u64) << 32 | KVM_GUEST_SSP as u64;

/// Returns the index of the MSR that an ID stands for. `has_shadow_stack` says whether the vCPU
/// has shadow stacks, whose current pointer is no MSR for user space.
///
/// # Errors
///
/// [`Error::Invalid`] if the ID is of another architecture, has a reserved bit set, or a type, an
/// index or a size that does not exist.
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
