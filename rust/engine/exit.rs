// SPDX-License-Identifier: GPL-2.0

//! The reasons for which a guest access fails, and the set of reasons for which KVM exits to user
//! space.
//!
//! Source: `Documentation/virt/kvm/api.rst`, sections `KVM_EXIT_X86_RDMSR`, `KVM_EXIT_X86_WRMSR`
//! and `KVM_CAP_X86_USER_SPACE_MSR`.

use super::request::{
    Error,
    Result, //
};
use core::num::NonZero;

/// The reason why KVM denies an access: a constant below or an errno. Any other value means that
/// the access is invalid.
///
/// It has 64 bits like an MSR's value, so that a result with either of them fits in registers.
pub(crate) type Denial = NonZero<i64>;

/// The access is invalid (1 by convention).
pub(crate) const INVALID: Denial = denial(1);

/// The MSR does not exist for the vCPU (`KVM_MSR_RET_UNSUPPORTED`).
pub(crate) const UNSUPPORTED: Denial = denial(2);

/// The filter denies the access (`KVM_MSR_RET_FILTERED`).
pub(crate) const FILTERED: Denial = denial(3);

/// A rule of a policy denies the access with #GP, which user space is not asked about.
///
/// The low 32 bits are those of [`INVALID`], which callers in C get: their return codes have 32
/// bits. No return code has the higher bit.
pub(crate) const FORBIDDEN: Denial = denial(1 << 32 | 1);

const fn denial(reason: i64) -> Denial {
    match Denial::new(reason) {
        Some(denial) => denial,
        None => panic!("0 is success"),
    }
}

/// `KVM_MSR_EXIT_REASON_INVAL`: the access is invalid, e.g. it sets reserved bits.
pub(crate) const REASON_INVAL: u32 = 1 << 0;

/// `KVM_MSR_EXIT_REASON_UNKNOWN`: the MSR is unknown.
pub(crate) const REASON_UNKNOWN: u32 = 1 << 1;

/// `KVM_MSR_EXIT_REASON_FILTER`: the filter denies the access.
pub(crate) const REASON_FILTER: u32 = 1 << 2;

const REASON_VALID_MASK: u32 = REASON_INVAL | REASON_UNKNOWN | REASON_FILTER;

/// Converts `args[0]` of `KVM_ENABLE_CAP` to the set of reasons for which KVM exits to user space,
/// `REASON_*`.
///
/// # Errors
///
/// [`Error::Invalid`] if it names a reason that is not defined.
pub(crate) fn reasons_of_cap(arg: u64) -> Result<u32> {
    if arg & !u64::from(REASON_VALID_MASK) != 0 {
        return Err(Error::Invalid);
    }
    // No bits are lost: the check allows only bits of the 32-bit mask.
    Ok(arg as u32)
}

/// Returns the reason for an exit to user space, or [`None`] if it is not in the set `enabled`.
///
/// There is none for [`FORBIDDEN`]. Any denial other than [`UNSUPPORTED`] and [`FILTERED`] means
/// that the access is invalid.
#[inline]
pub(crate) fn exit_reason(denial: Denial, enabled: u32) -> Option<u32> {
    let reason = match denial {
        UNSUPPORTED => REASON_UNKNOWN,
        FILTERED => REASON_FILTER,
        FORBIDDEN => return None,
        _ => REASON_INVAL,
    };
    (enabled & reason != 0).then_some(reason)
}
