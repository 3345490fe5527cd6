// SPDX-License-Identifier: GPL-2.0

//! RDMSR and WRMSR in the instruction emulator.

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
    Emulation,
    Run, //
};

const KVM_INTERNAL_GUEST_SSP: u32 = 0x4b56_4dff;

/// RDMSR. Also returns the value, which is 0 if there is none.
pub(crate) fn get(vcpu: &Vcpu, section: &Section<'_>, index: u32) -> (Emulation, u64) {
    let read = access::read(vcpu, section, index);

    if let Err(denial) = read {
        if Run::errno(denial).is_some() {
            return (Emulation::Unhandleable, 0);
        }
        if user_space_msr::offer::<CompleteRead>(vcpu, index, None, denial) {
            return (Emulation::UserSpace, 0);
        }
        vcpu.count(Counter::GeneralProtection, 1);
    }
    vcpu.trace_read(index, read);
    match read {
        Ok(data) => (Emulation::Continue, data),
        Err(_) => (Emulation::Fault, 0),
    }
}

/// WRMSR.
pub(crate) fn set(vcpu: &Vcpu, section: &Section<'_>, index: u32, data: u64) -> Emulation {
    let write = access::write(vcpu, section, index, data);

    if let Err(denial) = write {
        if Run::errno(denial).is_some() {
            return Emulation::Unhandleable;
        }
        if user_space_msr::offer::<CompleteWrite>(vcpu, index, Some(data), denial) {
            return Emulation::UserSpace;
        }
        vcpu.count(Counter::GeneralProtection, 1);
    }
    vcpu.trace_write(index, data, write);
    match write {
        Ok(()) => Emulation::Continue,
        Err(_) => Emulation::Fault,
    }
}

/// Reads an MSR that an instruction needs which is not RDMSR. The current shadow stack pointer is
/// an MSR for KVM only, and what the emulator reads is up to KVM.
pub(crate) fn get_unfiltered(vcpu: &Vcpu, index: u32) -> Result<u64, Denial> {
    if index == KVM_INTERNAL_GUEST_SSP {
        access::read_as_host(vcpu, index)
    } else {
        access::read_unfiltered(vcpu, index)
    }
}

struct CompleteRead;
struct CompleteWrite;

fn complete(vcpu: &Vcpu, set: impl FnOnce(u64)) -> Run {
    match user_space_msr::answer(vcpu).map(set) {
        Ok(()) => vcpu.complete_emulation(),
        Err(_) => vcpu.inject_gp(),
    }
}

impl Completion<Protected> for CompleteRead {
    fn complete(vcpu: &Vcpu) -> Run {
        complete(vcpu, |data| vcpu.set_edx_eax(data))
    }
}

impl Completion<Protected> for CompleteWrite {
    fn complete(vcpu: &Vcpu) -> Run {
        complete(vcpu, |_| ())
    }
}
