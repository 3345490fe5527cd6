// SPDX-License-Identifier: GPL-2.0

//! Interfaces of other hypervisors, if the kernel is configured to emulate them.

use super::Vcpu;
use crate::engine::{
    access::{
        Initiator,
        Result, //
    },
    cpu::Hypervisors,
};
#[cfg(any(CONFIG_KVM_HYPERV, CONFIG_KVM_XEN))]
use crate::{
    bindings,
    kvm::return_code, //
};

impl Hypervisors for Vcpu {
    #[cfg(CONFIG_KVM_HYPERV)]
    #[inline]
    fn read_hyperv(&self, index: u32, initiator: Initiator) -> Result<u64> {
        let host = initiator == Initiator::Host;

        // SAFETY: `self` is a valid vCPU that this task has loaded, and `data` is valid.
        return_code::read_with(|data| unsafe {
            bindings::kvm_hv_get_msr_common(self.as_raw(), index, data, host)
        })
    }

    #[cfg(CONFIG_KVM_HYPERV)]
    fn write_hyperv(&self, index: u32, data: u64, initiator: Initiator) -> Result {
        let host = initiator == Initiator::Host;

        // SAFETY: `self` is a valid vCPU that this task has loaded. The function may write the
        // guest's memory, which requires a section of `kvm->srcu`: `ops/msrs.rs` and
        // `ops/one_reg.rs` enter one, and all other writes of MSRs happen in the run loop's
        // section.
        return_code::to_result(unsafe {
            bindings::kvm_hv_set_msr_common(self.as_raw(), index, data, host)
        })
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
        return_code::to_result(unsafe {
            bindings::kvm_xen_write_hypercall_page(self.as_raw(), data)
        })
    }
}
