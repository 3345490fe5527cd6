// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_MSRS` and `KVM_SET_MSRS` on a vCPU.

use super::{
    Protected,
    Vcpu, //
};
use crate::{
    engine::{
        access::{
            self,
            By, //
        },
        io,
        registers::{
            self,
            Register, //
        },
    },
    kvm::{
        user::{
            MsrEntries,
            MsrEntry,
            MsrList, //
        },
        Counter,
        GuestFpu, //
    },
};
use kernel::prelude::*;

/// Reads MSRs until one can't be read, and returns how many could.
///
/// # Errors
///
/// `E2BIG` from 256 entries on, `ENOMEM`, and `EFAULT` if user memory can't be read or written.
/// All values are written back, also those that were not read.
pub(crate) fn get(vcpu: &Vcpu, list: MsrList) -> Result<usize> {
    let _section = vcpu.vm().read_section();
    let mut entries = MsrEntries::new();

    read_entries(list, &mut entries)?;
    let nr = for_each(vcpu, &mut entries, read);

    vcpu.count(Counter::HostReads, nr as u64);
    list.write_values(&entries)?;
    Ok(nr)
}

/// Writes MSRs until one can't be written, and returns how many could.
///
/// # Errors
///
/// `E2BIG` from 256 entries on, `ENOMEM`, and `EFAULT` if user memory can't be read.
pub(crate) fn set(vcpu: &Vcpu, list: MsrList) -> Result<usize> {
    let _section = vcpu.vm().read_section();
    let mut entries = MsrEntries::new();

    read_entries(list, &mut entries)?;
    let nr = for_each(vcpu, &mut entries, |vcpu, register, entry| {
        write(vcpu, register, entry.index(), entry.data())
    });

    vcpu.count(Counter::HostWrites, nr as u64);
    Ok(nr)
}

type LoadedFpu<'a> = GuestFpu<'a, Protected>;

#[inline]
pub(super) fn read_entries(list: MsrList, entries: &mut MsrEntries) -> Result {
    let nmsrs = list.read_count()?;

    io::check_count(nmsrs)?;
    list.read_entries(nmsrs as usize, entries)
}

/// Calls `access` with one entry after the other until it fails, and returns how often it did
/// not. From the first MSR on that needs it, the guest's FPU state is loaded.
#[inline(never)]
fn for_each(
    vcpu: &Vcpu,
    entries: &mut [MsrEntry],
    mut access: impl FnMut(&Vcpu, &Register, &mut MsrEntry) -> bool,
) -> usize {
    let count = entries.len();
    let mut fpu = None;
    let mut rest = entries.iter_mut();

    while let Some(entry) = rest.next() {
        let register = registers::lookup(entry.index());

        if register.is_xstate {
            load_fpu(&mut fpu, vcpu, register);
        }
        if !access(vcpu, register, entry) {
            // This one does not count.
            return count - rest.len() - 1;
        }
    }
    count
}

#[cold]
fn load_fpu<'a>(fpu: &mut Option<LoadedFpu<'a>>, vcpu: &'a Vcpu, register: &Register) {
    if fpu.is_none() && access::needs_fpu(vcpu, register) {
        *fpu = Some(GuestFpu::load(vcpu));
    }
}

/// Reads an MSR. What can't be read is 0.
#[inline(always)]
fn read(vcpu: &Vcpu, register: &Register, entry: &mut MsrEntry) -> bool {
    match access::read_excused_as(vcpu, register, entry.index(), By::Host) {
        Ok(value) => {
            *entry.data_mut() = value;
            true
        }
        Err(_) => {
            *entry.data_mut() = 0;
            false
        }
    }
}

/// Writes an MSR, unless it describes a feature and the vCPU has run: then it may only be written
/// what it is already, so that userspace can restore all MSRs on reset.
#[inline(always)]
pub(super) fn write(vcpu: &Vcpu, register: &Register, index: u32, data: u64) -> bool {
    if register.is_immutable()
        && !vcpu.can_set_feature_msrs()
        && access::read_excused(vcpu, index, By::Host) != Ok(data)
    {
        return false;
    }
    access::write_excused_as(vcpu, register, index, data, By::Host).is_ok()
}
