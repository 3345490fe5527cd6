// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_MSRS` and `KVM_SET_MSRS` on a vCPU.

use super::Vcpu;
use crate::{
    engine::{
        access::{
            self,
            By,
            Cpu, //
        },
        io::{
            self,
            Cet, //
        },
        registers::{
            self,
            Feature, //
        },
    },
    kvm::{
        user::{
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
/// All entries are written back, also those that were not read.
pub(crate) fn get(vcpu: &Vcpu, list: MsrList) -> Result<usize> {
    let _section = vcpu.vm().read_section();
    let mut entries = read_entries(list)?;
    let nr = for_each(vcpu, &mut entries, |entry| {
        read(vcpu, entry)
    });

    vcpu.count(Counter::HostReads, nr as u64);
    list.write_entries(&entries)?;
    Ok(nr)
}

/// Writes MSRs until one can't be written, and returns how many could.
///
/// # Errors
///
/// `E2BIG` from 256 entries on, `ENOMEM`, and `EFAULT` if user memory can't be read.
pub(crate) fn set(vcpu: &Vcpu, list: MsrList) -> Result<usize> {
    let _section = vcpu.vm().read_section();
    let mut entries = read_entries(list)?;
    let nr = for_each(vcpu, &mut entries, |entry| write(vcpu, entry));

    vcpu.count(Counter::HostWrites, nr as u64);
    Ok(nr)
}

fn read_entries(list: MsrList) -> Result<KVec<MsrEntry>> {
    let nmsrs = list.read_count()?;

    io::check_count(nmsrs)?;
    list.read_entries(nmsrs as usize)
}

/// Calls `access` with one entry after the other until it fails, and returns how often it did
/// not. From the first MSR on that needs it, the guest's FPU state is loaded.
#[inline]
fn for_each(
    vcpu: &Vcpu,
    entries: &mut [MsrEntry],
    mut access: impl FnMut(&mut MsrEntry) -> bool,
) -> usize {
    let cet = || Cet {
        shadow_stack: vcpu.has(Feature::ShadowStack),
        branch_tracking: vcpu.has(Feature::BranchTracking),
    };
    let mut fpu = None;
    let mut nr = 0;

    for entry in entries {
        if fpu.is_none() && io::is_xstate_managed(entry.index(), cet) {
            fpu = Some(GuestFpu::load(vcpu));
        }
        if !access(entry) {
            break;
        }
        nr += 1;
    }
    nr
}

/// Reads an MSR. What can't be read is 0.
#[inline]
fn read(vcpu: &Vcpu, entry: &mut MsrEntry) -> bool {
    let read = access::read_excused(vcpu, entry.index(), By::Host);

    *entry.data_mut() = read.unwrap_or(0);
    read.is_ok()
}

/// Writes an MSR, unless it describes a feature and the vCPU has run: then it may only be written
/// what it is already, so that userspace can restore all MSRs on reset.
fn write(vcpu: &Vcpu, entry: &MsrEntry) -> bool {
    let (index, data) = (entry.index(), entry.data());

    if registers::lookup(index).is_immutable() && !vcpu.can_set_feature_msrs() {
        if access::read_excused(vcpu, index, By::Host) != Ok(data) {
            return false;
        }
    }
    access::write_excused(vcpu, index, data, By::Host).is_ok()
}
