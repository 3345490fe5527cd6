// SPDX-License-Identifier: GPL-2.0

//! The guest's CPUID.

use super::Vcpu;
use crate::{
    bindings,
    engine::{
        cpu::Cpuid,
        registers::{
            Feature,
            Pv, //
        },
    },
    kvm::feature,
};

/// The FPU state component of AMX: the only one that `IA32_XFD` can disable.
const XFEATURE_XTILE_DATA: u64 = 1 << 18;

impl Cpuid for Vcpu {
    #[inline]
    fn has(&self, feature: Feature) -> bool {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, sets its CPUID.
        unsafe { feature::is_set(&raw const (*self.as_raw()).arch.cpu_caps, feature) }
    }

    fn has_xsaves(&self) -> bool {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, sets its CPUID.
        unsafe { bindings::kvm_msr_glue_has_xsaves(self.as_raw()) }
    }

    #[inline]
    fn has_pv(&self, feature: Pv) -> bool {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, writes these.
        let (enforce, features) = unsafe {
            let cpuid = &raw const (*self.as_raw()).arch.pv_cpuid;

            ((*cpuid).enforce, (*cpuid).features)
        };

        !enforce || features >> (feature.0 % u32::BITS) & 1 != 0
    }

    fn is_amd_compatible(&self) -> bool {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, sets its CPUID.
        unsafe { (*self.as_raw()).arch.is_amd_compatible }
    }

    fn supported_xss(&self) -> u64 {
        // SAFETY: `self` is a valid vCPU, and only this task sets its CPUID, which decides this.
        unsafe { (*self.as_raw()).arch.guest_supported_xss }
    }

    fn supported_xfd(&self) -> u64 {
        // SAFETY: `self` is a valid vCPU, and only this task sets its CPUID, which decides this.
        let xcr0 = unsafe { (*self.as_raw()).arch.guest_supported_xcr0 };

        xcr0 & XFEATURE_XTILE_DATA
    }

    fn may_read_platform_info(&self) -> bool {
        // SAFETY: `self` is a valid vCPU of a valid VM. An ioctl on the VM may write this at any
        // time, as in C.
        unsafe {
            (&raw const (*(*self.as_raw()).kvm)
                .arch
                .guest_can_read_msr_platform_info)
                .read_volatile()
        }
    }

    fn misc_enable_is_quirky(&self) -> bool {
        self.vm()
            .has_quirk(bindings::KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT)
    }

    fn invalidate_cpuid(&self) {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, uses its CPUID.
        unsafe { (*self.as_raw()).arch.cpuid_dynamic_bits_dirty = true }
    }
}
