// SPDX-License-Identifier: GPL-2.0

//! The parts of KVM that serve MSRs of their own: the vendor module (kvm-amd or kvm-intel), the
//! virtual PMU, the memory type range registers, and the interfaces of other hypervisors, if the
//! kernel is configured to emulate them.

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
        cpu::{
            Hypervisors,
            Mtrrs,
            Pmu,
            VendorModule, //
        },
        registers::Vendor,
    },
    kvm::{
        exit::{
            read_with,
            to_result, //
        },
        host,
    },
};

/// The keys of the static calls in this file. objtool needs the key of each static call in the same
/// object; without it, the module can't be loaded.
#[used]
static STATIC_CALL_KEYS: StaticCallKeys = StaticCallKeys([
    &raw const bindings::__SCK__kvm_x86_get_msr,
    &raw const bindings::__SCK__kvm_x86_set_msr,
]);

#[expect(dead_code, reason = "only objtool looks at them")]
struct StaticCallKeys([*const bindings::static_call_key; 2]);

// SAFETY: Nobody dereferences the pointers.
unsafe impl Sync for StaticCallKeys {}

impl VendorModule for Vcpu {
    #[inline]
    fn vendor(&self) -> Vendor {
        if host::is_amd() {
            Vendor::Amd
        } else {
            Vendor::Intel
        }
    }

    #[inline]
    fn vendor_read(&self, index: u32, initiator: Initiator) -> Result<u64> {
        let mut msr = MsrData::new(index, 0, initiator);

        // SAFETY: `self` is a valid vCPU that this task has loaded, its VM references the vendor
        // module, and `msr` is valid for the call.
        to_result(unsafe { bindings::__SCT__kvm_x86_get_msr(self.as_raw(), &mut msr) })?;
        Ok(msr.data)
    }

    #[inline]
    fn vendor_write(&self, index: u32, data: u64, initiator: Initiator) -> Result {
        let mut msr = MsrData::new(index, data, initiator);

        // SAFETY: `self` is a valid vCPU that this task has loaded, its VM references the vendor
        // module, and `msr` is valid for the call. The function may write the guest's memory, and by
        // the invariants of `Vcpu`, this task is in a section then.
        to_result(unsafe { bindings::__SCT__kvm_x86_set_msr(self.as_raw(), &mut msr) })
    }

    fn vendor_set_efer(&self, efer: u64) -> Result {
        // SAFETY: `self` is a valid vCPU that this task has loaded, and its VM references the
        // vendor module.
        to_result(unsafe { bindings::kvm_msr_glue_vendor_set_efer(self.as_raw(), efer) })
    }

    fn efer_changed(&self, old: u64, new: u64) {
        // SAFETY: `self` is a valid vCPU that this task has loaded, so nobody else uses its MMU.
        unsafe { bindings::kvm_msr_glue_efer_changed(self.as_raw(), old, new) }
    }

    fn report_unimplemented(&self, index: u32, data: u64) {
        // SAFETY: `self` is a valid vCPU, whose ID and RIP are logged.
        unsafe { bindings::kvm_msr_glue_report_unimplemented(self.as_raw(), index, data) }
    }
}

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

impl Mtrrs for Vcpu {
    fn read_mtrr(&self, index: u32) -> Result<u64> {
        // SAFETY: `self` is a valid vCPU that this task has loaded. The function refuses an index
        // that is not one of an MTRR; otherwise it stores a value.
        unsafe { read_with(|data| bindings::kvm_mtrr_get_msr(self.as_raw(), index, data)) }
    }

    fn write_mtrr(&self, index: u32, data: u64) -> Result {
        // SAFETY: `self` is a valid vCPU that this task has loaded. The function refuses an index
        // that is not one of an MTRR.
        to_result(unsafe { bindings::kvm_mtrr_set_msr(self.as_raw(), index, data) })
    }
}

impl Hypervisors for Vcpu {
    #[cfg(CONFIG_KVM_HYPERV)]
    #[inline]
    fn read_hyperv(&self, index: u32, initiator: Initiator) -> Result<u64> {
        let host = initiator == Initiator::Host;

        // SAFETY: `self` is a valid vCPU that this task has loaded. The function stores a value if
        // it returns 0.
        unsafe {
            read_with(|data| bindings::kvm_hv_get_msr_common(self.as_raw(), index, data, host))
        }
    }

    #[cfg(CONFIG_KVM_HYPERV)]
    fn write_hyperv(&self, index: u32, data: u64, initiator: Initiator) -> Result {
        let host = initiator == Initiator::Host;

        // SAFETY: `self` is a valid vCPU that this task has loaded. The function may write the
        // guest's memory, and by the invariants of `Vcpu`, this task is in a section then.
        to_result(unsafe { bindings::kvm_hv_set_msr_common(self.as_raw(), index, data, host) })
    }

    #[cfg(not(CONFIG_KVM_HYPERV))]
    fn read_hyperv(&self, _index: u32, _initiator: Initiator) -> Result<u64> {
        Err(crate::engine::exit::UNSUPPORTED)
    }

    #[cfg(not(CONFIG_KVM_HYPERV))]
    fn write_hyperv(&self, _index: u32, _data: u64, _initiator: Initiator) -> Result {
        Err(crate::engine::exit::UNSUPPORTED)
    }

    #[cfg(CONFIG_KVM_XEN)]
    fn write_xen_hypercall_page(&self, index: u32, data: u64) -> Option<Result> {
        // SAFETY: `self` is a valid vCPU of a valid VM. An ioctl on the VM may write this at any
        // time, as in C.
        let msr =
            unsafe { (&raw const (*(*self.as_raw()).kvm).arch.xen.hvm_config.msr).read_volatile() };

        // User space sets the index; 0 means that there is none.
        (msr != 0 && msr == index).then(|| self.write_hypercall_page(data))
    }

    #[cfg(not(CONFIG_KVM_XEN))]
    fn write_xen_hypercall_page(&self, _index: u32, _data: u64) -> Option<Result> {
        None
    }
}

#[cfg(CONFIG_KVM_XEN)]
impl Vcpu {
    #[cold]
    fn write_hypercall_page(&self, data: u64) -> Result {
        // The function writes the guest's memory, which requires a section.
        let _section = self.vm().read_section();

        // SAFETY: `self` is a valid vCPU that this task has loaded, in a section of its VM's
        // `kvm->srcu`.
        to_result(unsafe { bindings::kvm_xen_write_hypercall_page(self.as_raw(), data) })
    }
}
