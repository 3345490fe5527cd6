// SPDX-License-Identifier: GPL-2.0

//! The local APIC.

use super::Vcpu;
use crate::{
    bindings,
    engine::{
        access::{
            Initiator,
            Result, //
        },
        cpu::Lapic,
        exit::INVALID,
    },
    kvm::exit::{
        read_with,
        to_result, //
    },
};

impl Lapic for Vcpu {
    fn has_lapic(&self) -> bool {
        // SAFETY: `self` is a valid vCPU. Its creation decided whether it has a local APIC.
        unsafe { !(*self.as_raw()).arch.apic.is_null() }
    }

    fn read_x2apic(&self, index: u32) -> Result<u64> {
        // SAFETY: `self` is a valid vCPU that this task has loaded. The function refuses if there
        // is no local APIC in x2APIC mode, and an unknown index; otherwise it stores a value.
        unsafe { read_with(|data| bindings::kvm_x2apic_msr_read(self.as_raw(), index, data)) }
    }

    fn write_x2apic(&self, index: u32, data: u64) -> Result {
        // SAFETY: `self` is a valid vCPU that this task has loaded. The function refuses if there
        // is no local APIC in x2APIC mode, and an unknown index.
        to_result(unsafe { bindings::kvm_x2apic_msr_write(self.as_raw(), index, data) })
    }

    fn tsc_deadline(&self) -> u64 {
        // SAFETY: `self` is a valid vCPU that this task has loaded. The function returns 0 if
        // there is no timer.
        unsafe { bindings::kvm_get_lapic_tscdeadline_msr(self.as_raw()) }
    }

    fn set_tsc_deadline(&self, data: u64) {
        // SAFETY: `self` is a valid vCPU that this task has loaded. The function does nothing if
        // there is no timer.
        unsafe { bindings::kvm_set_lapic_tscdeadline_msr(self.as_raw(), data) }
    }

    fn set_apic_base(&self, data: u64, initiator: Initiator) -> Result {
        let host = initiator == Initiator::Host;

        // SAFETY: `self` is a valid vCPU that this task has loaded. The function handles a vCPU
        // without a local APIC.
        to_result(unsafe { bindings::kvm_apic_set_base(self.as_raw(), data, host) })
    }

    // Not inlined: otherwise all writes of MSRs would save registers for the section.
    #[inline(never)]
    fn set_pv_eoi(&self, data: u64) -> Result {
        let enables = data & u64::from(bindings::KVM_MSR_ENABLED) != 0;
        // If it enables the feature, the function looks up the guest's memory.
        let _section = enables.then(|| self.vm().read_section());

        // SAFETY: `self` is a valid vCPU that this task has loaded, in a section of its VM's
        // `kvm->srcu` if the function accesses the guest's memory. 1 is the size of KVM's data
        // there, in bytes.
        to_result(unsafe { bindings::kvm_lapic_set_pv_eoi(self.as_raw(), data, 1) })
            // For an invalid address it returns an errno, which would fail KVM_RUN instead of
            // injecting #GP.
            .map_err(|_| INVALID)
    }
}

impl Vcpu {
    /// Sends the IPI of a write to the x2APIC's ICR, if the fast path supports it. Returns whether
    /// it was sent.
    pub(crate) fn send_ipi_fast(&self, data: u64) -> bool {
        // SAFETY: `self` is a valid vCPU that this task has loaded. The function checks that there
        // is a local APIC in x2APIC mode, and does not sleep.
        unsafe { bindings::kvm_msr_glue_send_ipi_fast(self.as_raw(), data) }
    }
}
