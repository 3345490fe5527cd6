// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_MSRS` and `KVM_SET_MSRS` on a vCPU.

use super::AccessResult;
use crate::{
    engine::{
        access::{
            needs_fpu,
            read_fully,
            read_register,
            read_simple,
            write_register,
            write_unchecked,
            Initiator, //
        },
        exit::INVALID,
        registers::{
            lookup,
            Register, //
        },
    },
    kvm::{
        user::{
            MsrEntry,
            MsrList, //
        },
        Counter,
        GuestFpu,
        Vcpu, //
    },
};
use kernel::prelude::*;

/// Reads MSRs. Stops at the first MSR that can't be read, and returns the number of MSRs that were
/// read.
///
/// # Errors
///
/// `E2BIG` if there are 256 entries or more, `ENOMEM`, and `EFAULT` if user memory can't be read or
/// written. All entries are written back, also those that were not read.
pub(crate) fn get_msrs(vcpu: &Vcpu, list: MsrList) -> Result<usize> {
    let _section = vcpu.vm().read_section();
    let (mut entries, user) = list.read()?;
    let nr = get_all(vcpu, &mut entries);

    vcpu.count(Counter::HostReads, nr as u64);
    user.write_values(&entries)?;
    Ok(nr)
}

/// Reads MSRs until one fails, and returns the number of successes. This is a function of its own so
/// that the loop has the registers to itself.
#[inline(never)]
fn get_all(vcpu: &Vcpu, entries: &mut [MsrEntry]) -> usize {
    let mut fpu = None;

    for_each(entries, |register, entry| {
        let read = match read_simple(vcpu, register, entry.index, Initiator::Host) {
            Some(read) => read,
            None => {
                // All MSRs of the FPU state have such a check.
                if register.pre_checks_reads {
                    load_fpu(&mut fpu, vcpu, register);
                }
                read_fully(vcpu, register, entry.index, Initiator::Host)
            }
        };

        entry.data = read.unwrap_or(0);
        read.is_ok()
    })
}

/// Writes MSRs. Stops at the first MSR that can't be written, and returns the number of MSRs that
/// were written.
///
/// # Errors
///
/// `E2BIG` if there are 256 entries or more, `ENOMEM`, and `EFAULT` if user memory can't be read.
pub(crate) fn set_msrs(vcpu: &Vcpu, list: MsrList) -> Result<usize> {
    let _section = vcpu.vm().read_section();
    let (mut entries, _) = list.read()?;
    let nr = set_all(vcpu, &mut entries);

    vcpu.count(Counter::HostWrites, nr as u64);
    Ok(nr)
}

/// Writes MSRs as [`get_all`] reads them.
#[inline(never)]
fn set_all(vcpu: &Vcpu, entries: &mut [MsrEntry]) -> usize {
    let mut fpu = None;

    for_each(entries, |register, entry| {
        let (index, data) = (entry.index, entry.data);

        if let Some(written) = write_unchecked(vcpu, register, index, data, Initiator::Host) {
            return written.is_ok();
        }
        if register.is_xstate {
            load_fpu(&mut fpu, vcpu, register);
        }
        write(vcpu, register, index, data).is_ok()
    })
}

/// Calls `access` for each entry until it fails, and returns the number of successes.
#[inline(always)]
fn for_each(
    entries: &mut [MsrEntry],
    mut access: impl FnMut(&Register, &mut MsrEntry) -> bool,
) -> usize {
    let mut nr = 0;

    while let Some(entry) = entries.get_mut(nr) {
        if !access(lookup(entry.index), entry) {
            break;
        }
        nr += 1;
    }
    nr
}

/// Loads the guest's FPU state at the first MSR that needs it.
#[cold]
pub(super) fn load_fpu<'a>(fpu: &mut Option<GuestFpu<'a>>, vcpu: &'a Vcpu, register: &Register) {
    if fpu.is_none() && needs_fpu(vcpu, register) {
        *fpu = Some(GuestFpu::load(vcpu));
    }
}

/// Writes an MSR for user space. Once the vCPU has run, only the current value may be written to an
/// immutable feature MSR: user space writes all MSRs back on reset.
#[inline(always)]
pub(super) fn write(vcpu: &Vcpu, register: &Register, index: u32, data: u64) -> AccessResult {
    if register.is_immutable() && !may_set_immutable(vcpu, register, index, data) {
        return Err(INVALID);
    }
    write_register(vcpu, register, index, data, Initiator::Host)
}

/// Whether user space may write a value to an immutable feature MSR.
#[cold]
fn may_set_immutable(vcpu: &Vcpu, register: &Register, index: u32, data: u64) -> bool {
    vcpu.can_set_feature_msrs() || read_register(vcpu, register, index, Initiator::Host) == Ok(data)
}
