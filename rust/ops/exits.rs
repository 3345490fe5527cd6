// SPDX-License-Identifier: GPL-2.0

//! VM-exits for RDMSR and WRMSR, also for their forms with an immediate index.

use super::{
    access,
    user_space_msr, //
};
use crate::kvm::{
    Completion,
    Counter,
    InRunLoop,
    Run,
    Vcpu, //
};
use kernel::prelude::*;

/// RDMSR: the index is in ECX, the value goes to EDX:EAX.
pub(crate) fn emulate_rdmsr(vcpu: InRunLoop<'_>) -> Run {
    read::<CompleteRead>(&vcpu, vcpu.ecx(), |data| vcpu.set_edx_eax(data))
}

/// RDMSR with an immediate index: the value goes to one register.
pub(crate) fn emulate_rdmsr_imm(vcpu: InRunLoop<'_>, index: u32, reg: c_int) -> Run {
    // Stored for the completion: the VM-exit's information is no longer valid when user space
    // answers.
    vcpu.set_rdmsr_imm_reg(reg);
    read::<CompleteReadImm>(&vcpu, index, |data| vcpu.set_operand(reg, data))
}

/// WRMSR: the index is in ECX, the value in EDX:EAX.
pub(crate) fn emulate_wrmsr(vcpu: InRunLoop<'_>) -> Run {
    write(&vcpu, vcpu.ecx(), vcpu.edx_eax())
}

/// WRMSR with an immediate index: the value is in one register.
pub(crate) fn emulate_wrmsr_imm(vcpu: InRunLoop<'_>, index: u32, reg: c_int) -> Run {
    write(&vcpu, index, vcpu.operand(reg))
}

#[inline(always)]
fn read<C: Completion>(vcpu: &InRunLoop<'_>, index: u32, set: impl FnOnce(u64)) -> Run {
    let read = access::read(vcpu, &vcpu.section(), index);

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

#[inline(always)]
fn write(vcpu: &InRunLoop<'_>, index: u32, data: u64) -> Run {
    let write = access::write(vcpu, &vcpu.section(), index, data);

    if let Err(denial) = write {
        if user_space_msr::offer::<CompleteWrite>(vcpu, index, Some(data), denial) {
            return Run::TO_USER_SPACE;
        }
        // An errno is an error of KVM, not of the guest: it fails KVM_RUN instead of injecting #GP.
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
    vcpu.complete_access(user_space_msr::answer(vcpu).map(set))
}

impl Completion for CompleteRead {
    fn complete(vcpu: &Vcpu) -> Run {
        complete(vcpu, |data| vcpu.set_edx_eax(data))
    }
}

impl Completion for CompleteReadImm {
    fn complete(vcpu: &Vcpu) -> Run {
        complete(vcpu, |data| vcpu.set_operand(vcpu.rdmsr_imm_reg(), data))
    }
}

impl Completion for CompleteWrite {
    fn complete(vcpu: &Vcpu) -> Run {
        complete(vcpu, |_| ())
    }
}
