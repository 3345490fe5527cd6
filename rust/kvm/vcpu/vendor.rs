// SPDX-License-Identifier: GPL-2.0

//! The vendor module, kvm-amd or kvm-intel.

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
        cpu::VendorModule,
        registers::Vendor,
    },
    kvm::{
        exit::to_result, //
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
