// SPDX-License-Identifier: GPL-2.0

//! The time stamp counter.

use super::Vcpu;
use crate::{
    bindings,
    engine::{
        access::Initiator,
        cpu::Clocks, //
    },
};

impl Vcpu {
    /// The offset from the host's scaled TSC to L1's TSC.
    fn l1_tsc_offset(&self) -> u64 {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, writes this.
        unsafe { (*self.as_raw()).arch.l1_tsc_offset }
    }
}

impl Clocks for Vcpu {
    fn tsc(&self, initiator: Initiator) -> u64 {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, writes these.
        let (offset, ratio) = unsafe {
            let arch = &raw const (*self.as_raw()).arch;

            match initiator {
                Initiator::Host => ((*arch).l1_tsc_offset, (*arch).l1_tsc_scaling_ratio),
                Initiator::Guest => ((*arch).tsc_offset, (*arch).tsc_scaling_ratio),
            }
        };

        // SAFETY: The function only scales the CPU's TSC, which any task may read.
        unsafe { bindings::kvm_msr_glue_scaled_tsc(ratio) }.wrapping_add(offset)
    }

    fn is_tsc_protected(&self) -> bool {
        // SAFETY: `self` is a valid vCPU. This is set at its creation only.
        unsafe { (*self.as_raw()).arch.guest_tsc_protected }
    }

    fn synchronize_tsc(&self, mut tsc: u64) {
        // SAFETY: `self` is a valid vCPU that this task has loaded, and `tsc` is valid for the
        // call. The function takes the lock that other vCPUs' clocks need.
        unsafe { bindings::kvm_synchronize_tsc(self.as_raw(), &mut tsc) }
    }

    fn tsc_adjustment(&self, tsc: u64) -> u64 {
        // SAFETY: `self` is a valid vCPU that this task has loaded, so nobody else changes its TSC
        // ratio.
        let offset = unsafe { bindings::kvm_compute_l1_tsc_offset(self.as_raw(), tsc) };

        offset.wrapping_sub(self.l1_tsc_offset())
    }

    #[inline]
    fn adjust_tsc_offset(&self, delta: u64) {
        let offset = self.l1_tsc_offset().wrapping_add(delta);

        // SAFETY: `self` is a valid vCPU that this task has loaded, so nobody else changes its TSC
        // offset.
        unsafe { bindings::kvm_vcpu_write_tsc_offset(self.as_raw(), offset) }
    }
}
