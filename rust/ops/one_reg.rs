// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG`.

use super::{
    msrs,
    Vcpu, //
};
use crate::{
    engine::{
        access::{
            self,
            By,
            Cpu, //
        },
        one_reg,
        registers::{
            self,
            Feature,
            Register, //
        },
    },
    kvm::{
        user::{
            OneReg,
            UserValue, //
        },
        Counter,
        GuestFpu, //
    },
};
use kernel::prelude::*;

/// Reads a register.
///
/// # Errors
///
/// `EINVAL` if there is no such register or it can't be read, `EFAULT` if user memory can't be
/// read or written.
pub(crate) fn get(vcpu: &Vcpu, one_reg: OneReg) -> Result {
    with_msr(vcpu, one_reg, |register, index, value| {
        let data = access::read_excused_as(vcpu, register, index, By::Host).map_err(|_| EINVAL)?;

        vcpu.count(Counter::HostReads, 1);
        value.write(data)
    })
}

/// Writes a register.
///
/// # Errors
///
/// `EINVAL` if there is no such register or it can't be written to that value, `EFAULT` if user
/// memory can't be read.
pub(crate) fn set(vcpu: &Vcpu, one_reg: OneReg) -> Result {
    with_msr(vcpu, one_reg, |register, index, value| {
        let data = value.read()?;

        if !msrs::write(vcpu, register, index, data) {
            return Err(EINVAL);
        }
        vcpu.count(Counter::HostWrites, 1);
        Ok(())
    })
}

fn with_msr(
    vcpu: &Vcpu,
    one_reg: OneReg,
    access_msr: impl FnOnce(&Register, u32, UserValue) -> Result,
) -> Result {
    let (id, value) = one_reg.read()?;
    let index = one_reg::msr_of(id, || vcpu.has(Feature::ShadowStack))?;
    let register = registers::lookup(index);
    let _section = vcpu.vm().read_section();
    let _fpu = access::needs_fpu(vcpu, register).then(|| GuestFpu::load(vcpu));

    access_msr(register, index, value)
}
