// SPDX-License-Identifier: GPL-2.0

//! RDMSR and WRMSR exits, and their forms that have the index in the instruction.

use super::{
    access,
    user_space_msr,
    Protected,
    Section,
    Vcpu, //
};
use crate::kvm::{
    Completion,
    Counter,
    Denial,
    Run, //
};
use kernel::prelude::*;

/// RDMSR: the index is in ECX, the value goes to EDX:EAX.
#[inline]
pub(crate) fn rdmsr(vcpu: &Vcpu, section: &Section<'_>) -> Run {
    read::<CompleteRead>(vcpu, section, vcpu.ecx(), |data| vcpu.set_edx_eax(data))
}

/// RDMSR with the index in the instruction: the value goes to one register.
pub(crate) fn rdmsr_imm(vcpu: &Vcpu, section: &Section<'_>, index: u32, reg: c_int) -> Run {
    // User space may have to answer, and the exit is forgotten by then.
    vcpu.set_rdmsr_imm_reg(reg);
    read::<CompleteReadImm>(vcpu, section, index, |data| vcpu.set_operand(reg, data))
}

/// WRMSR: the index is in ECX, the value in EDX:EAX.
#[inline]
pub(crate) fn wrmsr(vcpu: &Vcpu, section: &Section<'_>) -> Run {
    write(vcpu, section, vcpu.ecx(), vcpu.edx_eax())
}

/// WRMSR with the index in the instruction: the value is in one register.
pub(crate) fn wrmsr_imm(vcpu: &Vcpu, section: &Section<'_>, index: u32, reg: c_int) -> Run {
    write(vcpu, section, index, vcpu.operand(reg))
}

#[inline]
fn read<C: Completion<Protected>>(
    vcpu: &Vcpu,
    section: &Section<'_>,
    index: u32,
    set: impl FnOnce(u64),
) -> Run {
    let read = access::read(vcpu, section, index);

    match read {
        Ok(data) => set(data),
        Err(denial) => {
            if user_space_msr::offer::<C>(vcpu, index, None, denial) {
                return Run::TO_USER_SPACE;
            }
            vcpu.count(Counter::GeneralProtection, 1);
        }
    }
    vcpu.trace_read(index, read);
    vcpu.complete_access(read.map(|_| ()))
}

#[inline]
fn write(vcpu: &Vcpu, section: &Section<'_>, index: u32, data: u64) -> Run {
    let write = access::write(vcpu, section, index, data);

    if let Err(denial) = write {
        if user_space_msr::offer::<CompleteWrite>(vcpu, index, Some(data), denial) {
            return Run::TO_USER_SPACE;
        }
        // An errno is user space's to hear, not the guest's.
        if let Some(failed) = Run::errno(denial) {
            return failed;
        }
        vcpu.count(Counter::GeneralProtection, 1);
    }
    vcpu.trace_write(index, data, write);
    vcpu.complete_access(write)
}

struct CompleteRead;
struct CompleteReadImm;
struct CompleteWrite;

fn complete(vcpu: &Vcpu, set: impl FnOnce(u64)) -> Run {
    let access: Result<(), Denial> = user_space_msr::answer(vcpu).map(set);

    vcpu.complete_access(access)
}

impl Completion<Protected> for CompleteRead {
    fn complete(vcpu: &Vcpu) -> Run {
        complete(vcpu, |data| vcpu.set_edx_eax(data))
    }
}

impl Completion<Protected> for CompleteReadImm {
    fn complete(vcpu: &Vcpu) -> Run {
        complete(vcpu, |data| vcpu.set_operand(vcpu.rdmsr_imm_reg(), data))
    }
}

impl Completion<Protected> for CompleteWrite {
    fn complete(vcpu: &Vcpu) -> Run {
        complete(vcpu, |_| ())
    }
}
