// SPDX-License-Identifier: GPL-2.0

//! RDMSR and WRMSR in the instruction emulator.

use super::{
    access::{
        self,
        store, //
    },
    user_space_msr,
    AccessResult, //
};
use crate::{
    engine::{
        access::{
            read,
            read_existing,
            Access,
            Initiator, //
        },
        learn::Path,
        registers::index::KVM_INTERNAL_GUEST_SSP,
    },
    kvm::{
        Completion,
        Emulation,
        InRunLoop,
        Run,
        Vcpu, //
    },
};

/// Emulates RDMSR. Stores 0 if the read fails, or if user space has to answer it.
pub(crate) fn emulator_get_msr_with_filter(
    vcpu: InRunLoop<'_>,
    index: u32,
    data: &mut u64,
) -> Emulation {
    let read = access::read(&vcpu, &vcpu.section(), index, Path::Emulator);

    *data = 0;
    if let Err(denial) = read {
        if Run::errno(denial).is_some() {
            return Emulation::Unhandleable;
        }
        if user_space_msr::offer::<CompleteRead>(vcpu, index, None, denial) {
            return Emulation::UserSpace;
        }
        user_space_msr::count_gp(vcpu, index, Access::Read);
    }
    vcpu.trace_read(index, read);
    match read {
        Ok(value) => {
            *data = value;
            Emulation::Continue
        }
        Err(_) => Emulation::Fault,
    }
}

/// Emulates WRMSR.
pub(crate) fn emulator_set_msr_with_filter(
    vcpu: InRunLoop<'_>,
    index: u32,
    data: u64,
) -> Emulation {
    let write = access::write(&vcpu, &vcpu.section(), index, data, Path::Emulator);

    if let Err(denial) = write {
        if Run::errno(denial).is_some() {
            return Emulation::Unhandleable;
        }
        if user_space_msr::offer::<CompleteWrite>(vcpu, index, Some(data), denial) {
            return Emulation::UserSpace;
        }
        user_space_msr::count_gp(vcpu, index, Access::Write);
    }
    vcpu.trace_write(index, data, write);
    match write {
        Ok(()) => Emulation::Continue,
        Err(_) => Emulation::Fault,
    }
}

/// Reads an MSR that an instruction other than RDMSR depends on. Guests can't access the current
/// shadow stack pointer as an MSR, so this read is host-initiated.
pub(crate) fn emulator_get_msr(vcpu: &Vcpu, index: u32, data: &mut u64) -> AccessResult {
    let read = if index == KVM_INTERNAL_GUEST_SSP {
        read_existing(vcpu, index, Initiator::Host)
    } else {
        read(vcpu, index, Initiator::Guest)
    };

    store(read, data)
}

struct CompleteRead;
struct CompleteWrite;

fn complete(vcpu: &Vcpu, access: Access, set: impl FnOnce(u64)) -> Run {
    match user_space_msr::answer(vcpu, access).map(set) {
        Ok(()) => vcpu.complete_emulation(),
        Err(_) => vcpu.inject_gp(),
    }
}

impl Completion for CompleteRead {
    fn complete(vcpu: &Vcpu) -> Run {
        complete(vcpu, Access::Read, |data| vcpu.set_edx_eax(data))
    }
}

impl Completion for CompleteWrite {
    fn complete(vcpu: &Vcpu) -> Run {
        complete(vcpu, Access::Write, |_| ())
    }
}
