// SPDX-License-Identifier: GPL-2.0

//! Guest accesses that the filter has a say in.

use super::{
    msr_filter,
    Section,
    Vcpu, //
};
use crate::{
    engine::{
        exit::{
            RET_FILTERED,
            RET_INVALID, //
        },
        filter::Access, //
    },
    kvm::{
        Counter,
        Denial, //
    },
};

const FILTERED: Denial = denial(RET_FILTERED);

/// What a refusal of user space means to the access.
pub(super) const INVALID: Denial = denial(RET_INVALID);

const fn denial(ret: i32) -> Denial {
    match Denial::new(ret) {
        Some(denial) => denial,
        None => panic!("0 is success"),
    }
}

/// Reads an MSR for the guest.
#[inline]
pub(crate) fn read(vcpu: &Vcpu, section: &Section<'_>, index: u32) -> Result<u64, Denial> {
    vcpu.count(Counter::Reads, 1);
    if !msr_filter::allows(section, index, Access::Read) {
        vcpu.count(Counter::Filtered, 1);
        return Err(FILTERED);
    }
    vcpu.guest_read(index)
}

/// Writes an MSR for the guest.
#[inline]
pub(crate) fn write(
    vcpu: &Vcpu,
    section: &Section<'_>,
    index: u32,
    data: u64,
) -> Result<(), Denial> {
    vcpu.count(Counter::Writes, 1);
    if !msr_filter::allows(section, index, Access::Write) {
        vcpu.count(Counter::Filtered, 1);
        return Err(FILTERED);
    }
    vcpu.guest_write(index, data)
}
