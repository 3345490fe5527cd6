// SPDX-License-Identifier: GPL-2.0

//! Rules of `KVM_GET_NESTED_STATE` and `KVM_SET_NESTED_STATE`.
//!
//! The state is a header, and what the vendor's format has behind it if there is anything: see
//! [`vmx`] and [`svm`]. Layout and flags are those of `struct kvm_nested_state` in
//! `arch/x86/include/uapi/asm/kvm.h`.

pub(crate) mod svm;
pub(crate) mod vmx;

use super::error::{
    Error,
    Result, //
};

/// The size of the header, in bytes.
pub(crate) const HEADER_SIZE: u32 = 128;

/// The room that an area behind the header takes, in bytes: of vmcs12, its shadow, and vmcb12.
pub(crate) const AREA_SIZE: u32 = 0x1000;

/// The vCPU runs L2.
pub(crate) const GUEST_MODE: u16 = 1 << 0;
/// L1 executed its instruction to enter L2, but L2 has not run since.
pub(crate) const RUN_PENDING: u16 = 1 << 1;
/// vmcs12 is an enlightened one, in guest memory.
pub(crate) const EVMCS: u16 = 1 << 2;
/// A monitor trap flag VM-exit is due.
pub(crate) const MTF_PENDING: u16 = 1 << 3;
/// The global interrupt flag of SVM.
pub(crate) const GIF_SET: u16 = 1 << 8;

const FLAGS: u16 = GUEST_MODE | RUN_PENDING | EVMCS | MTF_PENDING | GIF_SET;

/// Whose state it is, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `KVM_STATE_NESTED_FORMAT_VMX`.
    Vmx,
    /// `KVM_STATE_NESTED_FORMAT_SVM`.
    Svm,
}

/// The header of a state, in words of 64 bits as they are in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Header(pub(crate) [u64; HEADER_SIZE as usize / 8]);

impl Header {
    /// The flags that both formats share.
    pub(crate) const fn flags(&self) -> u16 {
        self.0[0] as u16
    }

    /// Whether all of some flags are set.
    pub(crate) const fn has(&self, flags: u16) -> bool {
        self.flags() & flags == flags
    }

    /// The format, if there is such.
    pub(crate) const fn format(&self) -> Option<Format> {
        match (self.0[0] >> 16) as u16 {
            0 => Some(Format::Vmx),
            1 => Some(Format::Svm),
            _ => None,
        }
    }

    /// The size of the state with the header, in bytes, as whoever made it says.
    pub(crate) const fn size(&self) -> u32 {
        (self.0[0] >> 32) as u32
    }

    /// Word `n` of what the format has in the header.
    const fn body(&self, n: usize) -> u64 {
        self.0[1 + n]
    }
}

/// The size that a user with room for `room` bytes is told, of a state of `size` bytes.
///
/// SVM does not find out what state there is for a user who has no room for a header.
pub(crate) const fn reported_size(format: Format, room: u32, size: u32) -> u32 {
    match format {
        Format::Svm if room < HEADER_SIZE => HEADER_SIZE,
        _ => size,
    }
}

/// Whether a state of `size` bytes gets copied to a user who has room for `room` bytes.
///
/// VMX takes care not to write more than the user has room for. SVM looks at the room for the
/// header only: whoever has less than the state needs gets all of it, and `E2BIG` afterwards.
pub(crate) const fn is_copied(format: Format, room: u32, size: u32) -> bool {
    room >= match format {
        Format::Vmx => size,
        Format::Svm => HEADER_SIZE,
    }
}

/// Checks what does not depend on the format.
///
/// # Errors
///
/// [`Error::Invalid`] if the size is less than the header's, a flag is unknown, or L2 is about to
/// run but the vCPU not in guest mode.
pub(crate) fn check(header: &Header) -> Result {
    let ok = header.size() >= HEADER_SIZE
        && header.flags() & !FLAGS == 0
        && (!header.has(RUN_PENDING) || header.has(GUEST_MODE));

    require(ok)
}

/// Whether an address is one of a page, and of the guest's memory: no bit is set that its physical
/// addresses do not have.
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

/// A little-endian integer of an area, or 0 if that is too short.
fn field<const N: usize>(area: &[u8], offset: usize) -> [u8; N] {
    area.get(offset..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .unwrap_or([0; N])
}
