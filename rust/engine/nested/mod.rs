// SPDX-License-Identifier: GPL-2.0

//! Rules of `KVM_GET_NESTED_STATE` and `KVM_SET_NESTED_STATE`.
//!
//! The state is a header, and data areas after it, which depend on the vendor's format: see [`vmx`]
//! and [`svm`]. The layout and the flags are defined by `struct kvm_nested_state` in
//! `arch/x86/include/uapi/asm/kvm.h`.
//!
//! All checks fail with [`Error::Invalid`].

pub(crate) mod svm;
pub(crate) mod vmx;

use super::request::{
    Error,
    Result, //
};

/// The size of the header, in bytes.
pub(crate) const HEADER_SIZE: u32 = 128;

/// The size of a data area after the header, in bytes: for vmcs12, its shadow VMCS, or vmcb12.
pub(crate) const AREA_SIZE: u32 = 0x1000;

/// The vCPU runs L2.
pub(crate) const GUEST_MODE: u16 = 1 << 0;
/// L1 executed VMLAUNCH, VMRESUME or VMRUN, but L2 has not run since.
pub(crate) const RUN_PENDING: u16 = 1 << 1;
/// vmcs12 is an enlightened VMCS of Hyper-V, in guest memory.
pub(crate) const EVMCS: u16 = 1 << 2;
/// A VM-exit for the monitor trap flag is pending.
pub(crate) const MTF_PENDING: u16 = 1 << 3;
/// The global interrupt flag of SVM.
pub(crate) const GIF_SET: u16 = 1 << 8;

const FLAGS: u16 = GUEST_MODE | RUN_PENDING | EVMCS | MTF_PENDING | GIF_SET;

/// The vendor's format of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `KVM_STATE_NESTED_FORMAT_VMX`.
    Vmx,
    /// `KVM_STATE_NESTED_FORMAT_SVM`.
    Svm,
}

/// The header of a state, as 64-bit words in memory order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Header(pub(crate) [u64; HEADER_SIZE as usize / 8]);

impl Header {
    /// The flags that both formats share.
    pub(crate) const fn flags(&self) -> u16 {
        self.0[0] as u16
    }

    /// Whether all of the given flags are set.
    pub(crate) const fn has(&self, flags: u16) -> bool {
        self.flags() & flags == flags
    }

    /// The format, or [`None`] if its number is unknown.
    pub(crate) const fn format(&self) -> Option<Format> {
        match (self.0[0] >> 16) as u16 {
            0 => Some(Format::Vmx),
            1 => Some(Format::Svm),
            _ => None,
        }
    }

    /// The size of the state including the header, in bytes, as the header's creator set it.
    pub(crate) const fn size(&self) -> u32 {
        (self.0[0] >> 32) as u32
    }

    /// Word `n` of the header's part that depends on the format.
    const fn body(&self, n: usize) -> u64 {
        self.0[1 + n]
    }
}

/// The size that is reported for a state of `size` bytes to user space with a buffer of `room`
/// bytes.
///
/// This is ABI: if the header does not fit, SVM reports the header's size, even while L2 runs.
pub(crate) const fn reported_size(format: Format, room: u32, size: u32) -> u32 {
    match format {
        Format::Svm if room < HEADER_SIZE => HEADER_SIZE,
        _ => size,
    }
}

/// Whether a state of `size` bytes is copied to user space with a buffer of `room` bytes.
///
/// VMX copies a state only if all of it fits. SVM checks only that the header fits: if the rest
/// does not, all of the state is copied nevertheless, and the ioctl fails with `E2BIG`. This is
/// ABI, too.
pub(crate) const fn is_copied(format: Format, room: u32, size: u32) -> bool {
    room >= match format {
        Format::Vmx => size,
        Format::Svm => HEADER_SIZE,
    }
}

/// Checks the part of the header that does not depend on the format.
///
/// # Errors
///
/// [`Error::Invalid`] if the size is less than the header's, a flag is unknown, or [`RUN_PENDING`]
/// is set without [`GUEST_MODE`].
pub(crate) fn check(header: &Header) -> Result {
    let ok = header.size() >= HEADER_SIZE
        && header.flags() & !FLAGS == 0
        && (!header.has(RUN_PENDING) || header.has(GUEST_MODE));

    require(ok)
}

/// Whether an address is page-aligned and a valid guest physical address. `reserved` has the bits
/// beyond the guest's physical address width.
const fn is_page(address: u64, reserved: u64) -> bool {
    const OFFSET: u64 = 0xfff;

    address & (reserved | OFFSET) == 0
}

fn require(ok: bool) -> Result {
    if ok {
        Ok(())
    } else {
        Err(Error::Invalid)
    }
}

/// The bytes of a field in an area, or zeros if the area is too short.
fn field<const N: usize>(area: &[u8], offset: usize) -> [u8; N] {
    area.get(offset..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .unwrap_or([0; N])
}
