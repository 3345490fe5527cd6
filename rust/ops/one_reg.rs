// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG`.

use super::msrs;
use crate::{
    bindings,
    engine::{
        access::{
            needs_fpu,
            read_register,
            Initiator, //
        },
        cpu::Cpuid,
        one_reg,
        registers::{
            lookup,
            Feature, //
        },
    },
    kvm::{
        user::OneReg,
        Counter,
        GuestFpu,
        Vcpu, //
    },
};
use kernel::prelude::*;

/// Reads or writes a register.
///
/// # Errors
///
/// `EINVAL` if the register does not exist, can't be read, or does not accept the value; `EFAULT`
/// if user memory can't be read or written.
pub(crate) fn get_set_one_reg(vcpu: &Vcpu, ioctl: u32, reg: OneReg) -> Result {
    let (id, value) = reg.read()?;
    let index = one_reg::msr_of(id, || vcpu.has(Feature::ShadowStack))?;
    let register = lookup(index);
    let _section = vcpu.vm().read_section();
    let _fpu = needs_fpu(vcpu, register).then(|| GuestFpu::load(vcpu));

    if ioctl == bindings::KVM_MSR_GET_ONE_REG {
        let read = read_register(vcpu, register, index, Initiator::Host);
        let data = read.map_err(|_| EINVAL)?;

        vcpu.count(Counter::HostReads, 1);
        return value.write(data);
    }
    let data = value.read()?;

    if msrs::write(vcpu, register, index, data).is_err() {
        return Err(EINVAL);
    }
    vcpu.count(Counter::HostWrites, 1);
    Ok(())
}
