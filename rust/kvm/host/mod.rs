// SPDX-License-Identifier: GPL-2.0

//! The CPU that the kernel runs on, and what KVM and its vendor module support there.

mod lists;
pub(crate) mod probed;

use crate::bindings;
use core::marker::PhantomData;

/// Proof that a vendor module, kvm-amd or kvm-intel, is loaded for all of `'a`.
///
/// The vendor module can be called only while it is loaded. Its initialization also determines the
/// features that KVM supports, so these can be read only afterwards.
///
/// # Invariants
///
/// The initialization of a vendor module is complete, and the module stays loaded for all of `'a`.
#[derive(Clone, Copy)]
pub(crate) struct VendorLoaded<'a>(PhantomData<&'a ()>);

impl VendorLoaded<'_> {
    /// Asserts that a vendor module is loaded.
    ///
    /// # Safety
    ///
    /// The initialization of a vendor module must be complete, and the module must stay loaded for
    /// all of the lifetime, e.g. because a VM or an open `/dev/kvm` references it.
    #[inline]
    pub(super) unsafe fn assume() -> Self {
        // INVARIANT: The caller has a VM or an open `/dev/kvm` that references the module.
        Self(PhantomData)
    }

    /// The bits of EFER that KVM supports.
    pub(super) fn supported_efer(self) -> u64 {
        // SAFETY: Only the initialization of a vendor module writes this, and that is complete.
        unsafe { (&raw const bindings::kvm_caps.supported_efer_bits).read() }
    }

    /// Whether KVM can load the guest's `IA32_TSC_AUX` and restore the host's afterwards.
    #[inline]
    pub(super) fn can_switch_tsc_aux(self) -> bool {
        probed::TSC_AUX.get(|| {
            // SAFETY: The function searches a list that only the initialization of a vendor module
            // writes, and that is complete.
            unsafe { bindings::kvm_find_user_return_msr(bindings::MSR_TSC_AUX) >= 0 }
        })
    }
}

/// Determines whether the CPU has SVM or VMX, for [`is_amd`]. It must be called before the engine
/// is registered.
pub(super) fn find_vendor() {
    // SAFETY: The function writes a variable that `is_amd()` reads only after the engine is
    // registered.
    unsafe { bindings::kvm_msr_glue_find_vendor() }
}

/// Whether the CPU has SVM, and so not VMX.
#[inline]
pub(crate) fn is_amd() -> bool {
    // SAFETY: The variable was written before the engine was registered, and does not change
    // anymore.
    unsafe { (&raw const bindings::kvm_msr_glue_amd).read() }
}
