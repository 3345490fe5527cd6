// SPDX-License-Identifier: GPL-2.0

//! Accesses to MSRs: by guests with and without the filter, by the vendor module, and by KVM
//! itself.

use super::{
    msr_filter,
    overlaid,
    AccessResult, //
};
use crate::{
    engine::{
        access::{
            self,
            Access,
            Initiator, //
        },
        exit::{
            FILTERED,
            UNSUPPORTED, //
        },
        learn::Path,
        registers::{
            lookup,
            Register, //
        },
        stats::Event,
    },
    kvm::{
        Counter,
        MsrData,
        Overlay,
        Section,
        Vcpu, //
    },
};

/// Reads an MSR for the guest, if the filter and the policy allow it.
pub(super) fn read(
    vcpu: &Vcpu,
    section: &Section<'_>,
    index: u32,
    path: Path,
) -> AccessResult<u64> {
    vcpu.count(Counter::Reads, 1);
    match section.overlay() {
        None => read_filtered(vcpu, section, lookup(index), index, None),
        Some(overlay) => overlaid::read(vcpu, section, overlay, index, path),
    }
}

/// Reads an MSR if the filter allows it. If KVM does not have the MSR, the overlay's policy decides.
#[inline(always)]
pub(super) fn read_filtered(
    vcpu: &Vcpu,
    section: &Section<'_>,
    register: &Register,
    index: u32,
    overlay: Option<&Overlay>,
) -> AccessResult<u64> {
    if !msr_filter::allows(section, index, Access::Read) {
        vcpu.count(Counter::Filtered, 1);
        if let Some(overlay) = overlay {
            overlay.note(index, Access::Read, Event::Denied);
        }
        return Err(FILTERED);
    }
    let Some(overlay) = overlay else {
        return access::read_register(vcpu, register, index, Initiator::Guest);
    };

    match access::read_declared(vcpu, register, index, Initiator::Guest) {
        Err(UNSUPPORTED) => overlaid::read_unsupported(vcpu, overlay, register, index),
        read => read,
    }
}

/// Writes an MSR for the guest, if the filter and the policy allow it.
pub(super) fn write(
    vcpu: &Vcpu,
    section: &Section<'_>,
    index: u32,
    data: u64,
    path: Path,
) -> AccessResult {
    vcpu.count(Counter::Writes, 1);
    match section.overlay() {
        None => write_filtered(vcpu, section, lookup(index), index, data, None),
        Some(overlay) => overlaid::write(vcpu, section, overlay, index, data, path),
    }
}

/// Writes an MSR as [`read_filtered`] reads it.
#[inline(always)]
pub(super) fn write_filtered(
    vcpu: &Vcpu,
    section: &Section<'_>,
    register: &Register,
    index: u32,
    data: u64,
    overlay: Option<&Overlay>,
) -> AccessResult {
    if !msr_filter::allows(section, index, Access::Write) {
        vcpu.count(Counter::Filtered, 1);
        if let Some(overlay) = overlay {
            overlay.note(index, Access::Write, Event::Denied);
        }
        return Err(FILTERED);
    }
    let Some(overlay) = overlay else {
        return access::write_register(vcpu, register, index, data, Initiator::Guest);
    };

    match access::write_declared(vcpu, register, index, data, Initiator::Guest) {
        Err(UNSUPPORTED) => overlaid::write_unsupported(vcpu, overlay, register, index, data),
        written => written,
    }
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
    let section = vcpu.vm().read_section();

    store(read(vcpu, &section, index, Path::Nested), data)
}

/// A guest write as part of another operation, e.g. nested VM-entry.
pub(crate) fn emulate_msr_write(vcpu: &Vcpu, index: u32, data: u64) -> AccessResult {
    // The vendor module also calls this outside of the run loop, so this enters a section.
    let section = vcpu.vm().read_section();

    write(vcpu, &section, index, data, Path::Nested)
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
