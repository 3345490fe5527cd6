// SPDX-License-Identifier: GPL-2.0

//! The CPU that the kernel runs on, and what KVM and its vendor module support there.

mod lists;
pub(crate) mod probed;

use super::feature;
use crate::{
    bindings,
    engine::registers::Feature, //
};
use core::marker::PhantomData;

/// Shows that a vendor module, kvm-amd or kvm-intel, is loaded for all of `'a`.
///
/// It can be called only then, and only then is it certain that nobody writes what KVM supports,
/// which the vendor module works out while it is loaded.
///
/// # Invariants
///
/// A vendor module has been loaded, and stays for all of `'a`.
#[derive(Clone, Copy)]
pub(crate) struct VendorLoaded<'a>(PhantomData<&'a ()>);

impl VendorLoaded<'_> {
    /// Takes for granted that a vendor module is loaded.
    ///
    /// # Safety
    ///
    /// A vendor module must have been loaded, and must stay for all of the lifetime: a VM exists
    /// that long, or `/dev/kvm` is open, which references the module too.
    #[inline]
    pub(super) unsafe fn assume() -> Self {
        // INVARIANT: The caller promises just that.
        Self(PhantomData)
    }

    /// Whether KVM offers a feature to guests.
    #[inline]
    pub(super) fn offers(self, feature: Feature) -> bool {
        // SAFETY: The array is KVM's own, and only a vendor module writes it that is being loaded:
        // this one has been.
        unsafe { feature::is_set(&raw const bindings::kvm_cpu_caps, feature) }
    }

    /// The bits of EFER that KVM supports.
    pub(super) fn supported_efer(self) -> u64 {
        // SAFETY: Only a vendor module writes it that is being loaded: this one has been.
        unsafe { (&raw const bindings::kvm_caps.supported_efer_bits).read() }
    }

    /// The bits of `IA32_XSS` that KVM supports.
    fn supported_xss(self) -> u64 {
        // SAFETY: Only a vendor module writes it that is being loaded: this one has been.
        unsafe { (&raw const bindings::kvm_caps.supported_xss).read() }
    }

    /// The bits of `IA32_PERF_CAPABILITIES` that KVM supports.
    pub(super) fn supported_perf_capabilities(self) -> u64 {
        // SAFETY: Only a vendor module writes it that is being loaded: this one has been.
        unsafe { (&raw const bindings::kvm_caps.supported_perf_cap).read() }
    }

    /// Whether the vendor module has KVM restore the host's `IA32_TSC_AUX` after the guest ran,
    /// and can so give guests one.
    #[inline]
    pub(super) fn can_switch_tsc_aux(self) -> bool {
        probed::can_switch_tsc_aux(|| {
            // SAFETY: Only a vendor module writes the list that this searches while it is being
            // loaded: this one has been.
            unsafe { bindings::kvm_find_user_return_msr(bindings::KVM_MSR_TSC_AUX) >= 0 }
        })
    }
}

/// Finds out whether the CPU has SVM or VMX, for [`is_amd`]. It is to be called before the engine
/// is registered.
pub(super) fn find_vendor() {
    // SAFETY: It stores what `is_amd()` reads, which nobody does before the engine is registered.
    unsafe { bindings::kvm_msr_glue_find_vendor() }
}

/// Whether the CPU has SVM, and so not VMX.
#[inline]
pub(crate) fn is_amd() -> bool {
    // SAFETY: It was written before the engine was registered, and not since.
    unsafe { (&raw const bindings::kvm_msr_glue_amd).read() }
}
