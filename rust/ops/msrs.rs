// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_MSRS` and `KVM_SET_MSRS` on a vCPU.

use crate::{
    engine::{
        access::{
            needs_fpu,
            read,
            read_register,
            write_register,
            Initiator, //
        },
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
    let is_simple = |register: &Register| register.is_simple_read;
    let nr = for_each(vcpu, &mut entries, is_simple, |register, entry| {
        let read = read_register(vcpu, register, entry.index, Initiator::Host);

        entry.data = read.unwrap_or(0);
        read.is_ok()
    });

    vcpu.count(Counter::HostReads, nr as u64);
    user.write_values(&entries)?;
    Ok(nr)
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
    let is_simple = |register: &Register| register.is_simple_write;
    let nr = for_each(vcpu, &mut entries, is_simple, |register, entry| {
        write(vcpu, register, entry.index, entry.data)
    });

    vcpu.count(Counter::HostWrites, nr as u64);
    Ok(nr)
}

/// Calls `access` for each entry until it fails, and returns the number of successes. Loads the
/// guest's FPU state at the first MSR that needs it. `is_simple` is a quick test that an MSR does
/// not.
#[inline(always)]
fn for_each(
    vcpu: &Vcpu,
    entries: &mut [MsrEntry],
    is_simple: impl Fn(&Register) -> bool,
    mut access: impl FnMut(&Register, &mut MsrEntry) -> bool,
) -> usize {
    let mut fpu = None;
    let total = entries.len();
    let mut left = entries;

    while let [entry, others @ ..] = left {
        let register = lookup(entry.index);

        if !is_simple(register) && register.is_xstate {
            load_fpu(&mut fpu, vcpu, register);
        }
        if !access(register, entry) {
            return total.wrapping_sub(others.len()).wrapping_sub(1);
        }
        left = others;
    }
    total
}

#[cold]
fn load_fpu<'a>(fpu: &mut Option<GuestFpu<'a>>, vcpu: &'a Vcpu, register: &Register) {
    if fpu.is_none() && needs_fpu(vcpu, register) {
        *fpu = Some(GuestFpu::load(vcpu));
    }
}

/// Writes an MSR for user space, and returns whether this succeeded. Once the vCPU has run, only
/// the current value may be written to an immutable feature MSR: user space writes all MSRs back on
/// reset.
#[inline(always)]
pub(super) fn write(vcpu: &Vcpu, register: &Register, index: u32, data: u64) -> bool {
    if register.is_immutable()
        && !vcpu.can_set_feature_msrs()
        && read(vcpu, index, Initiator::Host) != Ok(data)
    {
        return false;
    }
    write_register(vcpu, register, index, data, Initiator::Host).is_ok()
}
