// SPDX-License-Identifier: GPL-2.0

//! The virtual PMU.

use super::{
    MsrData,
    Vcpu, //
};
use crate::{
    bindings,
    engine::{
        access::{
            Initiator,
            Result, //
        },
        cpu::Pmu,
    },
    kvm::return_code::to_result,
};

impl Pmu for Vcpu {
    fn pmu_has(&self, index: u32) -> bool {
        // SAFETY: `self` is a valid vCPU that this task has loaded. Every vCPU has a PMU, possibly
        // without counters.
        unsafe { bindings::kvm_pmu_is_valid_msr(self.as_raw(), index) }
    }

    fn pmu_read(&self, index: u32, initiator: Initiator) -> Result<u64> {
        let mut msr = MsrData::new(index, 0, initiator);

        // SAFETY: `self` is a valid vCPU that this task has loaded, and `msr` is valid for the
        // call. The function denies an MSR that the PMU does not have.
        to_result(unsafe { bindings::kvm_pmu_get_msr(self.as_raw(), &mut msr) })?;
        Ok(msr.data)
    }

    fn pmu_write(&self, index: u32, data: u64, initiator: Initiator) -> Result {
        let mut msr = MsrData::new(index, data, initiator);

        // SAFETY: `self` is a valid vCPU that this task has loaded, and `msr` is valid for the
        // call. The function denies an MSR that the PMU does not have.
        to_result(unsafe { bindings::kvm_pmu_set_msr(self.as_raw(), &mut msr) })
    }

    fn refresh_pmu(&self) {
        // SAFETY: `self` is a valid vCPU that this task has loaded. KVM warns and does nothing if
        // the vCPU has run.
        unsafe { bindings::kvm_pmu_refresh(self.as_raw()) }
    }
}

impl Vcpu {
    /// Whether the PMU counts no instructions, so that the fast path may emulate one.
    pub(crate) fn pmu_allows_fastpath(&self) -> bool {
        // SAFETY: `self` is a valid vCPU that this task has loaded.
        unsafe { bindings::kvm_msr_glue_pmu_allows_fastpath(self.as_raw()) }
    }
}
