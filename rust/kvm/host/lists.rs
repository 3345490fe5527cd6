// SPDX-License-Identifier: GPL-2.0

//! The properties of the host that the lists of MSRs depend on.

use super::{
    probed,
    VendorLoaded, //
};
use crate::{
    bindings,
    engine::{
        access::{
            Access,
            Result, //
        },
        cpu::{
            Leniency,
            Report, //
        },
        lists::{
            self,
            Host, //
        },
        registers::{
            index::IA32_UCODE_REV,
            Feature,
            Register,
            Trace, //
        },
    },
    kvm::{
        exit::read_with, //
        feature,
    },
};

/// Reads an MSR of the current CPU, or returns [`None`] if the CPU does not have it.
fn read_host(index: u32) -> Option<u64> {
    let mut data = 0;

    // SAFETY: The function handles the fault of an MSR that does not exist. `data` is valid for the
    // call.
    (unsafe { bindings::kvm_msr_glue_read_host(index, &mut data) } == 0).then_some(data)
}

impl Host for VendorLoaded<'_> {
    #[inline]
    fn has(&self, register: &Register, index: u32) -> bool {
        probed::has_msr(register, index, || read_host(index).is_some())
    }

    fn microcode_revision(&self) -> u64 {
        read_host(IA32_UCODE_REV).unwrap_or(0)
    }

    #[inline]
    fn offers(&self, feature: Feature) -> bool {
        // SAFETY: Only the initialization of a vendor module writes this array, and that is
        // complete.
        unsafe { feature::is_set(&raw const bindings::kvm_cpu_caps, feature) }
    }

    fn offers_mpx(&self) -> bool {
        // SAFETY: The function reads the features that KVM supports. They don't change anymore, as
        // a vendor module has been loaded.
        unsafe { bindings::kvm_msr_glue_offers_mpx() }
    }

    fn offers_xss(&self) -> bool {
        // SAFETY: Only the initialization of a vendor module writes this, and that is complete.
        unsafe { (&raw const bindings::kvm_caps.supported_xss).read() != 0 }
    }

    fn has_hyperv(&self) -> bool {
        cfg!(CONFIG_KVM_HYPERV)
    }

    // Not inlined: otherwise the checks of all MSRs would save registers for it.
    #[inline(never)]
    fn traces(&self, trace: Trace) -> bool {
        // SAFETY: The function reads a capability that the PT driver determined at boot.
        let capability = |number| unsafe { bindings::kvm_msr_glue_pt_capability(number) };

        match trace {
            Trace::Any => true,
            Trace::Cr3Filtering => capability(bindings::pt_capabilities_PT_CAP_cr3_filtering) != 0,
            Trace::Output => {
                capability(bindings::pt_capabilities_PT_CAP_topa_output) != 0
                    || capability(bindings::pt_capabilities_PT_CAP_single_range_output) != 0
            }
            Trace::Ranges(above) => {
                above < capability(bindings::pt_capabilities_PT_CAP_num_address_ranges)
            }
        }
    }

    #[inline]
    fn has_pmu(&self) -> bool {
        // SAFETY: Only the initialization of a vendor module writes the parameter, and that is
        // complete. User space can't write it.
        unsafe { (&raw const bindings::enable_pmu).read() }
    }

    #[inline]
    fn counters(&self, fixed: bool) -> u32 {
        // SAFETY: Only the initialization of a vendor module writes these, and that is complete.
        let counters = unsafe {
            if fixed {
                (&raw const bindings::kvm_pmu_cap.num_counters_fixed).read()
            } else {
                (&raw const bindings::kvm_pmu_cap.num_counters_gp).read()
            }
        };

        counters as u32
    }

    fn arch_capabilities(&self) -> u64 {
        // SAFETY: The function reads the host's mitigations, and capabilities that KVM determined
        // while the vendor module was loaded, which is complete.
        unsafe { bindings::kvm_get_arch_capabilities() }
    }

    fn perf_capabilities(&self) -> u64 {
        // SAFETY: Only the initialization of a vendor module writes this, and that is complete.
        unsafe { (&raw const bindings::kvm_caps.supported_perf_cap).read() }
    }

    #[inline]
    fn emulates(&self, index: u32) -> bool {
        // SAFETY: The function calls the vendor module, which is loaded, and accepts any index.
        unsafe { bindings::kvm_msr_glue_emulates(index) }
    }

    fn vendor_feature(&self, index: u32) -> Result<u64> {
        // SAFETY: The function calls the vendor module, which is loaded, and accepts any index. It
        // stores a value if it returns 0.
        unsafe { read_with(|data| bindings::kvm_msr_glue_vendor_feature(index, data)) }
    }
}

impl Leniency for VendorLoaded<'_> {
    #[inline]
    fn ignores_unknown(&self) -> bool {
        // SAFETY: The module parameter is a plain `bool`, which user space may write at any time.
        unsafe { (&raw const bindings::ignore_msrs).read_volatile() }
    }

    fn is_listed(&self, register: &Register, index: u32) -> bool {
        // Most unknown MSRs are in no list, which is quick to check.
        register.list_position.is_some() && lists::is_listed(self, register, index)
    }

    fn report(&self, report: Report, index: u32, data: u64) {
        // SAFETY: The functions only write to the log.
        unsafe {
            match report {
                Report::Unhandled(access) => {
                    bindings::kvm_msr_glue_report_unhandled(access == Access::Write, index, data)
                }
                Report::Ignored(access) => {
                    bindings::kvm_msr_glue_report_ignored(access == Access::Write, index, data)
                }
            }
        }
    }
}
