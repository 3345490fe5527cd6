// SPDX-License-Identifier: GPL-2.0

//! The properties of the host that a vCPU's MSRs depend on.

use super::Vcpu;
use crate::{
    bindings,
    engine::{
        cpu::{
            HostCpu,
            Leniency,
            Report, //
        },
        lists::Host,
        registers::{
            Feature,
            Register, //
        },
    },
    kvm::{
        feature,
        host::VendorLoaded, //
    },
};

impl Vcpu {
    /// Proof that the vendor module is loaded, as the vCPU's VM references it.
    #[inline]
    fn vendor_loaded(&self) -> VendorLoaded<'_> {
        // SAFETY: `self` is a vCPU of a VM, and every VM references the vendor module.
        unsafe { VendorLoaded::assume() }
    }
}

impl HostCpu for Vcpu {
    #[inline]
    fn host_has(&self, feature: Feature) -> bool {
        // SAFETY: The function reads a bit of the kernel's CPUID words. `number()` returns the
        // kernel's number, which is in bounds.
        unsafe { bindings::kvm_msr_glue_host_has(feature::number(feature)) }
    }

    fn host_has_ibpb(&self) -> bool {
        // SAFETY: The function reads a bit of the kernel's CPUID words, which has this number.
        unsafe { bindings::kvm_msr_glue_host_has(bindings::X86_FEATURE_IBPB) }
    }

    fn address_bits(&self) -> u32 {
        if self.vendor_loaded().offers(Feature::La57) {
            57
        } else {
            48
        }
    }

    #[inline]
    fn can_switch_tsc_aux(&self) -> bool {
        self.vendor_loaded().can_switch_tsc_aux()
    }

    fn has_smm(&self) -> bool {
        cfg!(CONFIG_KVM_SMM)
    }

    fn has_sched_info(&self) -> bool {
        // SAFETY: The function reads a setting that any task may read at any time.
        unsafe { bindings::kvm_msr_glue_has_sched_info() }
    }

    fn supported_efer(&self) -> u64 {
        self.vendor_loaded().supported_efer()
    }

    fn supported_perf_capabilities(&self) -> u64 {
        self.vendor_loaded().perf_capabilities()
    }

    fn predict(&self, data: u64) {
        // SAFETY: A barrier for indirect branch prediction affects speculation only. Bits that the
        // CPU lacks would raise a fault, which the kernel reports and survives.
        unsafe { bindings::kvm_msr_glue_predict(data) }
    }

    fn flush_l1d(&self) {
        // SAFETY: The command affects a cache only. If the CPU lacks the MSR, this raises a fault,
        // which the kernel reports and survives.
        unsafe { bindings::kvm_msr_glue_flush_l1d() }
    }
}

impl Leniency for Vcpu {
    #[inline]
    fn ignores_unknown(&self) -> bool {
        self.vendor_loaded().ignores_unknown()
    }

    fn is_listed(&self, register: &Register, index: u32) -> bool {
        self.vendor_loaded().is_listed(register, index)
    }

    fn report(&self, report: Report, index: u32, data: u64) {
        self.vendor_loaded().report(report, index, data);
    }
}
