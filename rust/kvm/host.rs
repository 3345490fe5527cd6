// SPDX-License-Identifier: GPL-2.0

//! The host, and what KVM makes of it.

use super::{
    registers::{
        to_result,
        CpuidBit, //
    },
    Denial, //
};
use crate::bindings;

/// Reads an MSR of the CPU that this runs on, if it has that.
pub(crate) fn read(index: u32) -> Option<u64> {
    let mut data = 0;

    // SAFETY: An MSR that there is not reads as a fault, which is caught.
    (unsafe { bindings::kvm_msr_glue_read_host(index, &mut data) } == 0).then_some(data)
}

/// Whether the CPU has a feature.
pub(crate) fn has(bit: CpuidBit) -> bool {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_msr_glue_host_has(bit.number()) }
}

/// Whether the CPU has indirect branch prediction barriers.
pub(crate) fn has_ibpb() -> bool {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_msr_glue_host_has_ibpb() }
}

/// Finds out whose virtualisation the CPU has, for [`is_amd`].
pub(super) fn find_vendor() {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_msr_glue_find_vendor() }
}

/// Whether the CPU has SVM, and so not VMX.
#[inline]
pub(crate) fn is_amd() -> bool {
    // SAFETY: It was written before there was an engine, if it was.
    unsafe { (&raw const bindings::kvm_msr_glue_amd).read() }
}

/// Whether KVM offers a feature to guests.
pub(crate) fn offers(bit: CpuidBit) -> bool {
    // SAFETY: The vendor module writes this when it is loaded, and whoever asks uses that module.
    let leaves = unsafe { (&raw const bindings::kvm_cpu_caps).as_ref() };

    leaves.is_some_and(|leaves| bit.is_set(leaves))
}

/// Whether KVM offers MPX.
pub(crate) fn offers_mpx() -> bool {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_msr_glue_offers_mpx() }
}

/// The bits that a linear address has.
pub(crate) fn address_bits() -> u32 {
    if offers(CpuidBit::LA57) {
        57
    } else {
        48
    }
}

/// What KVM supports of MSRs that it checks.
#[derive(Clone, Copy)]
pub(crate) struct Supported {
    /// Bits of EFER.
    pub(crate) efer: u64,
    /// Bits of `IA32_XSS`.
    pub(crate) xss: u64,
    /// `IA32_PERF_CAPABILITIES`.
    pub(crate) perf_capabilities: u64,
}

/// What KVM supports.
#[inline]
pub(crate) fn supported() -> Supported {
    // SAFETY: As in `offers()`.
    unsafe {
        Supported {
            efer: (&raw const bindings::kvm_caps.supported_efer_bits).read(),
            xss: (&raw const bindings::kvm_caps.supported_xss).read(),
            perf_capabilities: (&raw const bindings::kvm_caps.supported_perf_cap).read(),
        }
    }
}

/// Whether KVM emulates SMM.
pub(crate) fn has_smm() -> bool {
    bindings::KVM_MSR_WITH_SMM != 0
}

/// Whether the kernel accounts for time that a task waits.
pub(crate) fn has_sched_info() -> bool {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_msr_glue_has_sched_info() }
}

/// Whether KVM can switch `IA32_TSC_AUX` to the guest's value and back.
pub(crate) fn can_switch_tsc_aux() -> bool {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_find_user_return_msr(bindings::KVM_MSR_TSC_AUX) >= 0 }
}

/// Whether there is a virtual PMU.
pub(crate) fn has_pmu() -> bool {
    // SAFETY: A parameter that is only written when the vendor module is loaded.
    unsafe { (&raw const bindings::enable_pmu).read_volatile() }
}

/// The number of the virtual PMU's counters, of the fixed or of the general purpose ones.
pub(crate) fn pmu_counters(fixed: bool) -> u32 {
    // SAFETY: As in `offers()`.
    let counters = unsafe {
        if fixed {
            (&raw const bindings::kvm_pmu_cap.num_counters_fixed).read()
        } else {
            (&raw const bindings::kvm_pmu_cap.num_counters_gp).read()
        }
    };

    counters as u32
}

/// What Intel PT can do, on this CPU.
pub(crate) mod trace {
    use crate::bindings;

    /// Filter by CR3.
    pub(crate) fn filters_cr3() -> bool {
        // SAFETY: It has no preconditions.
        unsafe { bindings::kvm_msr_glue_pt_cr3_filtering() }
    }

    /// Write to memory.
    pub(crate) fn has_output() -> bool {
        // SAFETY: It has no preconditions.
        unsafe { bindings::kvm_msr_glue_pt_any_output() }
    }

    /// Filter by this number of address ranges.
    pub(crate) fn ranges() -> u32 {
        // SAFETY: It has no preconditions.
        unsafe { bindings::kvm_msr_glue_pt_ranges() }
    }
}

/// `IA32_ARCH_CAPABILITIES` as guests may have it.
pub(crate) fn arch_capabilities() -> u64 {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_get_arch_capabilities() }
}

/// Whether the vendor module emulates an MSR. It must be loaded.
pub(crate) fn vendor_emulates(index: u32) -> bool {
    // SAFETY: The caller has a VM, or the device is open: the vendor module is there.
    unsafe { bindings::kvm_msr_glue_vendor_emulates(index) }
}

/// What the vendor module offers of a feature that an MSR describes. It must be loaded.
///
/// # Errors
///
/// `KVM_MSR_RET_UNSUPPORTED` if it does not know the MSR.
pub(crate) fn vendor_feature(index: u32) -> Result<u64, Denial> {
    let mut data = 0;

    // SAFETY: As in `vendor_emulates()`.
    to_result(unsafe { bindings::kvm_msr_glue_vendor_feature(index, &mut data) })?;
    Ok(data)
}

/// Has the CPU do what these bits of `IA32_PRED_CMD` say. It must have all of them.
pub(crate) fn predict(data: u64) {
    // SAFETY: It affects speculation only, and the kernel itself does so at any time.
    unsafe { bindings::kvm_msr_glue_predict(data) }
}

/// Flushes the L1 data cache. The CPU must have the command for it.
pub(crate) fn flush_l1d() {
    // SAFETY: It affects caches only.
    unsafe { bindings::kvm_msr_glue_flush_l1d() }
}

/// Whether unknown MSRs do no harm.
#[inline]
pub(crate) fn ignores_unknown_msrs() -> bool {
    // SAFETY: The parameter may be written any time.
    unsafe { (&raw const bindings::ignore_msrs).read_volatile() }
}

/// Says in the log that an MSR is unknown, and that the access fails.
pub(crate) fn log_unhandled(write: bool, index: u32, data: u64) {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_msr_glue_report_unhandled(write, index, data) }
}

/// Says in the log that an MSR is unknown, and that this is ignored.
pub(crate) fn log_ignored(write: bool, index: u32, data: u64) {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_msr_glue_report_ignored(write, index, data) }
}
