// SPDX-License-Identifier: GPL-2.0

//! The interface of the rules to a vCPU: one trait for each part of KVM that holds some of the
//! vCPU's state.
//!
//! The module implements these traits for KVM's vCPU (`kvm/vcpu/`). The tests implement them for a
//! model that records all calls (`tests/model/`).

use super::{
    access::{
        Access,
        Initiator,
        Result, //
    },
    registers::{
        Feature,
        Field,
        Pv,
        Register,
        Vendor, //
    },
};

/// A vCPU.
pub(crate) trait Cpu:
    Clocks
    + Cpuid
    + Fields
    + Fpu
    + HostCpu
    + Hypervisors
    + Lapic
    + Leniency
    + Mode
    + Mtrrs
    + Paravirtual
    + Pmu
    + VendorModule
{
}

/// The 64-bit values that KVM keeps for the vCPU.
pub(crate) trait Fields {
    /// Reads a value.
    fn field(&self, field: Field) -> u64;
    /// Stores a value.
    fn set_field(&self, field: Field, value: u64);
    /// Reads `IA32_MCi_CTL`, `_STATUS`, `_ADDR` or `_MISC`. `offset` is the distance from
    /// `IA32_MC0_CTL`. An offset past the last bank wraps around.
    fn mce_bank(&self, offset: usize) -> u64;
    /// Stores one of these values.
    fn set_mce_bank(&self, offset: usize, value: u64);
    /// Reads `IA32_MCi_CTL2`. A number past the last bank wraps around.
    fn mce_ctl2(&self, bank: usize) -> u64;
    /// Stores `IA32_MCi_CTL2`.
    fn set_mce_ctl2(&self, bank: usize, value: u64);
}

/// The guest's CPUID.
pub(crate) trait Cpuid {
    /// Whether the guest's CPUID has a feature that KVM supports.
    fn has(&self, feature: Feature) -> bool;
    /// Whether CPUID has XSAVES, even if the guest can't use it.
    fn has_xsaves(&self) -> bool;
    /// Whether the guest may use a paravirtual feature. It may use all of them unless user space
    /// enabled `KVM_CAP_ENFORCE_PV_FEATURE_CPUID`.
    fn has_pv(&self, feature: Pv) -> bool;
    /// Whether CPUID names AMD or a compatible vendor. All others are compatible with Intel.
    fn is_amd_compatible(&self) -> bool;
    /// The bits of `IA32_XSS` that the guest supports.
    fn supported_xss(&self) -> u64;
    /// The bits of `IA32_XFD` that the guest supports.
    fn supported_xfd(&self) -> u64;
    /// Whether the guest may read `PLATFORM_INFO`.
    fn may_read_platform_info(&self) -> bool;
    /// Whether MWAIT in CPUID is independent of `IA32_MISC_ENABLE`
    /// (`KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT`).
    fn misc_enable_is_quirky(&self) -> bool;
    /// Marks state-dependent CPUID bits stale.
    fn invalidate_cpuid(&self);
}

/// The vCPU's mode of operation, and requests to it.
pub(crate) trait Mode {
    /// Whether paging is on.
    fn is_paging(&self) -> bool;
    /// Whether the vCPU is the one with ID 0.
    fn is_boot_cpu(&self) -> bool;
    /// Whether the vCPU runs L2.
    fn is_nested(&self) -> bool;
    /// Whether the guest's state is encrypted, so that only the vendor module knows what can be
    /// accessed.
    fn is_protected(&self) -> bool;
    /// Whether the vCPU runs L2 or its state is encrypted. In both cases the vendor module serves
    /// more MSRs.
    #[inline]
    fn is_unusual(&self) -> bool {
        self.is_nested() || self.is_protected()
    }
    /// Requests work that KVM does before the next VM-entry.
    fn request(&self, request: Request);
}

/// Work that KVM does before the next VM-entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `KVM_REQ_CLOCK_UPDATE`
    ClockUpdate,
    /// `KVM_REQ_GLOBAL_CLOCK_UPDATE`
    GlobalClockUpdate,
    /// `KVM_REQ_MASTERCLOCK_UPDATE`
    MasterClockUpdate,
    /// `KVM_REQ_RECALC_INTERCEPTS`
    RecalcIntercepts,
    /// `KVM_REQ_STEAL_UPDATE`
    StealUpdate,
}

/// The CPU that the kernel runs on, and what KVM supports there.
pub(crate) trait HostCpu {
    /// Whether the CPU has a feature.
    fn host_has(&self, feature: Feature) -> bool;
    /// Whether the CPU has indirect branch prediction barriers.
    fn host_has_ibpb(&self) -> bool;
    /// The maximum number of bits in a linear address.
    fn address_bits(&self) -> u32;
    /// Whether KVM can load the guest's `IA32_TSC_AUX` and restore the host's.
    fn can_switch_tsc_aux(&self) -> bool;
    /// Whether KVM emulates SMM.
    fn has_smm(&self) -> bool;
    /// Whether the kernel measures how long tasks wait for a CPU, which steal time is computed
    /// from.
    fn has_sched_info(&self) -> bool;
    /// The bits of EFER that KVM supports.
    fn supported_efer(&self) -> u64;
    /// The bits of `IA32_PERF_CAPABILITIES` that KVM supports.
    fn supported_perf_capabilities(&self) -> u64;
    /// Writes the CPU's `IA32_PRED_CMD`. The CPU must support all bits that are set in `data`.
    fn predict(&self, data: u64);
    /// Flushes the L1 data cache. The CPU must have `IA32_FLUSH_CMD`.
    fn flush_l1d(&self);
}

/// Decides whether an access to an unknown MSR may succeed.
pub(crate) trait Leniency {
    /// The module parameter `ignore_msrs`.
    fn ignores_unknown(&self) -> bool;
    /// Whether `KVM_GET_MSR_INDEX_LIST` has the index.
    fn is_listed(&self, register: &Register, index: u32) -> bool;
    /// Logs an access to an unknown MSR.
    fn report(&self, report: Report, index: u32, data: u64);
}

/// The outcome of an access to an unknown MSR, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The access fails.
    Unhandled(Access),
    /// The access succeeds because of `ignore_msrs`.
    Ignored(Access),
}

/// The vendor module, kvm-amd or kvm-intel.
pub(crate) trait VendorModule {
    /// The vendor.
    fn vendor(&self) -> Vendor;
    /// Reads an MSR that the vendor module serves.
    fn vendor_read(&self, index: u32, initiator: Initiator) -> Result<u64>;
    /// Writes an MSR that the vendor module serves.
    fn vendor_write(&self, index: u32, data: u64, initiator: Initiator) -> Result;
    /// Sets EFER.
    fn vendor_set_efer(&self, efer: u64) -> Result;
    /// Tells the MMU that EFER has changed.
    fn efer_changed(&self, old: u64, new: u64);
    /// Logs a write that KVM drops or denies because it does not implement the value.
    fn report_unimplemented(&self, index: u32, data: u64);
}

/// The virtual PMU.
pub(crate) trait Pmu {
    /// Whether the PMU has an MSR.
    fn pmu_has(&self, index: u32) -> bool;
    /// Reads an MSR of the PMU.
    fn pmu_read(&self, index: u32, initiator: Initiator) -> Result<u64>;
    /// Writes an MSR of the PMU.
    fn pmu_write(&self, index: u32, data: u64, initiator: Initiator) -> Result;
    /// Configures the PMU according to CPUID and `IA32_PERF_CAPABILITIES`.
    fn refresh_pmu(&self);
}

/// Memory type range registers.
pub(crate) trait Mtrrs {
    /// Reads an MTRR.
    fn read_mtrr(&self, index: u32) -> Result<u64>;
    /// Writes an MTRR.
    fn write_mtrr(&self, index: u32, data: u64) -> Result;
}

/// The local APIC.
pub(crate) trait Lapic {
    /// Whether the vCPU has a local APIC in the kernel.
    fn has_lapic(&self) -> bool;
    /// Reads an MSR of the x2APIC.
    fn read_x2apic(&self, index: u32) -> Result<u64>;
    /// Writes an MSR of the x2APIC.
    fn write_x2apic(&self, index: u32, data: u64) -> Result;
    /// The TSC value at which the timer expires.
    fn tsc_deadline(&self) -> u64;
    /// Sets the TSC value at which the timer expires.
    fn set_tsc_deadline(&self, data: u64);
    /// Writes `IA32_APICBASE`.
    fn set_apic_base(&self, data: u64, initiator: Initiator) -> Result;
    /// Writes `KVM_PV_EOI_EN`.
    fn set_pv_eoi(&self, data: u64) -> Result;
}

/// Interfaces of other hypervisors that KVM emulates.
pub(crate) trait Hypervisors {
    /// Reads an MSR of Hyper-V.
    fn read_hyperv(&self, index: u32, initiator: Initiator) -> Result<u64>;
    /// Writes an MSR of Hyper-V.
    fn write_hyperv(&self, index: u32, data: u64, initiator: Initiator) -> Result;
    /// Writes the hypercall page of a Xen guest if user space chose this index for it. Returns
    /// [`None`] otherwise.
    fn write_xen_hypercall_page(&self, index: u32, data: u64) -> Option<Result>;
}

/// The guest's FPU state, which must be loaded for MSRs that XSAVES manages.
pub(crate) trait Fpu {
    /// Reads an MSR that XSAVES manages.
    fn read_xstate(&self, index: u32) -> u64;
    /// Writes an MSR that XSAVES manages.
    fn write_xstate(&self, index: u32, data: u64);
    /// The guest's `IA32_XFD`.
    fn xfd(&self) -> u64;
    /// Sets the guest's `IA32_XFD`.
    fn set_xfd(&self, xfd: u64);
}

/// The time stamp counter.
pub(crate) trait Clocks {
    /// The guest's TSC: as L1 or L2, whichever runs, reads it; for the host, as L1 reads it.
    fn tsc(&self, initiator: Initiator) -> u64;
    /// Whether KVM can't change the guest's TSC, as for an encrypted VM with a secure TSC.
    fn is_tsc_protected(&self) -> bool;
    /// Sets the TSC. If the value is close to the TSC of the other vCPUs, KVM makes them equal.
    fn synchronize_tsc(&self, tsc: u64);
    /// The value to add to the TSC's offset so that the TSC becomes `tsc`.
    fn tsc_adjustment(&self, tsc: u64) -> u64;
    /// Adds to the TSC's offset.
    fn adjust_tsc_offset(&self, delta: u64);
}

/// KVM's paravirtual features, as in `Documentation/virt/kvm/x86/msr.rst`.
pub(crate) trait Paravirtual {
    /// The guest address of the wall clock.
    fn wall_clock(&self) -> u64;
    /// Stores the guest address of the wall clock, and writes the time there unless the address is
    /// 0.
    fn set_wall_clock(&self, address: u64);
    /// Whether the boot vCPU set up its clock with `KVM_SYSTEM_TIME`, not `KVM_SYSTEM_TIME_NEW`.
    fn boot_clock_is_old(&self) -> bool;
    /// Stores the value of [`Self::boot_clock_is_old`].
    fn set_boot_clock_is_old(&self, old: bool);
    /// Maps the vCPU's clock at a guest address, or unmaps it.
    fn set_clock_address(&self, address: Option<u64>);
    /// Sets the guest address at which page faults are reported.
    fn set_async_pf_address(&self, address: u64) -> Result;
    /// Wakes all tasks that wait for a page.
    fn wake_async_pf(&self);
    /// Drops all pages that tasks wait for.
    fn clear_async_pf(&self);
    /// Sets the vector of the interrupt that reports a page as ready.
    fn set_async_pf_vector(&self, vector: u8);
    /// Lets KVM report the next ready page, as the guest has acknowledged the last one.
    fn acknowledge_async_pf(&self);
}
