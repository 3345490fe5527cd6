// SPDX-License-Identifier: GPL-2.0

//! Accesses to MSRs: by guests with and without the filter, by the vendor module, and by KVM
//! itself.

use super::{
    msr_filter,
    AccessResult, //
};
use crate::{
    engine::{
        access::{
            self,
            Access,
            Initiator, //
        },
        exit::FILTERED,
        registers::lookup,
    },
    kvm::{
        Counter,
        MsrData,
        Section,
        Vcpu, //
    },
};

/// Reads an MSR for the guest, if the filter allows it.
#[inline(always)]
pub(super) fn read(vcpu: &Vcpu, section: &Section<'_>, index: u32) -> AccessResult<u64> {
    // Before the filter: its lookup can reuse the index's location.
    let register = lookup(index);

    vcpu.count(Counter::Reads, 1);
    if !msr_filter::allows(section, index, Access::Read) {
        vcpu.count(Counter::Filtered, 1);
        return Err(FILTERED);
    }
    access::read_register(vcpu, register, index, Initiator::Guest)
}

/// Writes an MSR for the guest, if the filter allows it.
#[inline(always)]
pub(super) fn write(vcpu: &Vcpu, section: &Section<'_>, index: u32, data: u64) -> AccessResult {
    let register = lookup(index);

    vcpu.count(Counter::Writes, 1);
    if !msr_filter::allows(section, index, Access::Write) {
        vcpu.count(Counter::Filtered, 1);
        return Err(FILTERED);
    }
    access::write_register(vcpu, register, index, data, Initiator::Guest)
}

/// Stores the value that was read, or 0 if the read failed, as not all callers check the result.
#[inline]
pub(super) fn store(read: AccessResult<u64>, data: &mut u64) -> AccessResult {
    *data = read.unwrap_or(0);
    read.map(|_| ())
}

/// A guest read as part of another operation, e.g. nested VM-exit.
pub(crate) fn emulate_msr_read(vcpu: &Vcpu, index: u32, data: &mut u64) -> AccessResult {
    // The vendor module also calls this outside of the run loop, so this enters a section.
    store(read(vcpu, &vcpu.vm().read_section(), index), data)
}

/// A guest write as part of another operation, e.g. nested VM-entry.
pub(crate) fn emulate_msr_write(vcpu: &Vcpu, index: u32, data: u64) -> AccessResult {
    // The vendor module also calls this outside of the run loop, so this enters a section.
    write(vcpu, &vcpu.vm().read_section(), index, data)
}

/// A guest read that bypasses the filter.
pub(crate) fn emulate_msr_read_unfiltered(vcpu: &Vcpu, index: u32, data: &mut u64) -> AccessResult {
    store(access::read(vcpu, index, Initiator::Guest), data)
}

/// A guest write that bypasses the filter.
pub(crate) fn emulate_msr_write_unfiltered(vcpu: &Vcpu, index: u32, data: u64) -> AccessResult {
    access::write(vcpu, index, data, Initiator::Guest)
}

/// A read by KVM itself. An unknown MSR is always denied. `data` is unchanged if the read fails.
pub(crate) fn msr_read(vcpu: &Vcpu, index: u32, data: &mut u64) -> AccessResult {
    *data = access::read_existing(vcpu, index, Initiator::Host)?;
    Ok(())
}

/// A write by KVM itself. An unknown MSR is always denied.
pub(crate) fn msr_write(vcpu: &Vcpu, index: u32, data: u64) -> AccessResult {
    access::write_existing(vcpu, index, data, Initiator::Host)
}

/// A read that the vendor module does not serve.
pub(crate) fn get_msr_common(vcpu: &Vcpu, msr: &mut MsrData) -> AccessResult {
    msr.data = access::read_common(vcpu, msr.index, msr.initiator())?;
    Ok(())
}

/// A write that the vendor module does not serve.
pub(crate) fn set_msr_common(vcpu: &Vcpu, msr: &mut MsrData) -> AccessResult {
    access::write_common(vcpu, msr.index, msr.data, msr.initiator())
}

/// Whether a value of EFER is valid for the vCPU.
pub(crate) fn valid_efer(vcpu: &Vcpu, efer: u64) -> bool {
    access::efer::is_valid(vcpu, efer)
}
