// SPDX-License-Identifier: GPL-2.0

//! Guest accesses, with and without the filter.

use super::{
    msr_filter,
    Section,
    Vcpu, //
};
use crate::{
    engine::{
        access::{
            self,
            By, //
        },
        exit::FILTERED,
        filter::Access, //
    },
    kvm::{
        Counter,
        Denial, //
    },
};

/// Reads an MSR for the guest.
#[inline]
pub(crate) fn read(vcpu: &Vcpu, section: &Section<'_>, index: u32) -> Result<u64, Denial> {
    vcpu.count(Counter::Reads, 1);
    if !msr_filter::allows(section, index, Access::Read) {
        vcpu.count(Counter::Filtered, 1);
        return Err(FILTERED);
    }
    access::read_excused(vcpu, index, By::Guest)
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
    access::write_excused(vcpu, index, data, By::Guest)
}

/// Reads an MSR for the guest, whatever the filter says.
pub(crate) fn read_unfiltered(vcpu: &Vcpu, index: u32) -> Result<u64, Denial> {
    access::read_excused(vcpu, index, By::Guest)
}

/// Writes an MSR for the guest, whatever the filter says.
pub(crate) fn write_unfiltered(vcpu: &Vcpu, index: u32, data: u64) -> Result<(), Denial> {
    access::write_excused(vcpu, index, data, By::Guest)
}

/// Reads an MSR for KVM itself, for which it has to exist.
pub(crate) fn read_as_host(vcpu: &Vcpu, index: u32) -> Result<u64, Denial> {
    access::read(vcpu, index, By::Host)
}

/// Writes an MSR for KVM itself, for which it has to exist.
pub(crate) fn write_as_host(vcpu: &Vcpu, index: u32, data: u64) -> Result<(), Denial> {
    access::write(vcpu, index, data, By::Host)
}

fn by(host: bool) -> By {
    if host {
        By::Host
    } else {
        By::Guest
    }
}

/// Reads an MSR that the vendor module leaves to the engine.
pub(crate) fn read_common(vcpu: &Vcpu, index: u32, host: bool) -> Result<u64, Denial> {
    access::read_common(vcpu, index, by(host))
}

/// Writes an MSR that the vendor module leaves to the engine.
pub(crate) fn write_common(vcpu: &Vcpu, index: u32, data: u64, host: bool) -> Result<(), Denial> {
    access::write_common(vcpu, index, data, by(host))
}

/// Returns whether the vCPU may have a value of EFER.
pub(crate) fn is_valid_efer(vcpu: &Vcpu, efer: u64) -> bool {
    access::efer::is_valid(vcpu, efer)
}
