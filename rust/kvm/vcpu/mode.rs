// SPDX-License-Identifier: GPL-2.0

//! The vCPU's mode of operation, and requests to it.

use super::Vcpu;
use crate::{
    bindings,
    engine::cpu::{
        Mode,
        Request, //
    },
};

impl Mode for Vcpu {
    fn is_paging(&self) -> bool {
        self.cr0() >> bindings::X86_CR0_PG_BIT & 1 != 0
    }

    fn is_boot_cpu(&self) -> bool {
        // SAFETY: `self` is a valid vCPU, whose ID does not change.
        unsafe { (*self.as_raw()).vcpu_id == 0 }
    }

    #[inline]
    fn is_nested(&self) -> bool {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, enters L2.
        unsafe { (*self.as_raw()).arch.hflags & bindings::HF_GUEST_MASK != 0 }
    }

    #[inline]
    fn is_protected(&self) -> bool {
        // SAFETY: `self` is a valid vCPU. This is set before its first VM-entry and never cleared.
        // As in C, an access may be concurrent to that; the vendor module handles it.
        unsafe { (*self.as_raw()).arch.guest_state_protected }
    }

    fn request(&self, request: Request) {
        let vcpu = self.as_raw();

        // SAFETY: `self` is a valid vCPU. Any task may make a request to it at any time.
        unsafe {
            match request {
                Request::ClockUpdate => bindings::kvm_msr_glue_request_clock_update(vcpu),
                Request::GlobalClockUpdate => {
                    bindings::kvm_msr_glue_request_global_clock_update(vcpu)
                }
                Request::MasterClockUpdate => {
                    bindings::kvm_msr_glue_request_master_clock_update(vcpu)
                }
                Request::RecalcIntercepts => bindings::kvm_msr_glue_request_recalc_intercepts(vcpu),
                Request::StealUpdate => bindings::kvm_msr_glue_request_steal_update(vcpu),
            }
        }
    }
}
