// SPDX-License-Identifier: GPL-2.0

//! The machine check banks.

use super::Vcpu;
use crate::{
    bindings,
    engine::cpu::MachineChecks, //
};

/// The number of banks. It is a power of two, so that a remainder is a mask, which keeps an index
/// that the guest chose in bounds, even if the CPU mispredicts a branch.
const BANKS: usize = bindings::KVM_MSR_MCE_BANKS as usize;
const _: () = assert!(BANKS.is_power_of_two());

/// Each bank has `IA32_MCi_CTL`, `_STATUS`, `_ADDR` and `_MISC`.
const VALUES: usize = BANKS * 4;

impl Vcpu {
    fn mce_bank_ptr(&self, offset: usize) -> *mut u64 {
        // SAFETY: `self` is a valid vCPU, whose creation allocated `VALUES` values.
        unsafe { (*self.as_raw()).arch.mce_banks.add(offset % VALUES) }
    }

    fn mce_ctl2_ptr(&self, bank: usize) -> *mut u64 {
        // SAFETY: `self` is a valid vCPU, whose creation allocated a value for each of `BANKS`.
        unsafe { (*self.as_raw()).arch.mci_ctl2_banks.add(bank % BANKS) }
    }
}

impl MachineChecks for Vcpu {
    fn mce_bank(&self, offset: usize) -> u64 {
        // SAFETY: The pointer is to one of the vCPU's values, and only this task, which has the
        // vCPU loaded, writes them.
        unsafe { self.mce_bank_ptr(offset).read() }
    }

    fn set_mce_bank(&self, offset: usize, value: u64) {
        // SAFETY: The pointer is to one of the vCPU's values, and only this task, which has the
        // vCPU loaded, uses them.
        unsafe { self.mce_bank_ptr(offset).write(value) }
    }

    fn mce_ctl2(&self, bank: usize) -> u64 {
        // SAFETY: The pointer is to one of the vCPU's values, and only this task, which has the
        // vCPU loaded, writes them.
        unsafe { self.mce_ctl2_ptr(bank).read() }
    }

    fn set_mce_ctl2(&self, bank: usize, value: u64) {
        // SAFETY: The pointer is to one of the vCPU's values, and only this task, which has the
        // vCPU loaded, uses them.
        unsafe { self.mce_ctl2_ptr(bank).write(value) }
    }
}
