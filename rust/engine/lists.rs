// SPDX-License-Identifier: GPL-2.0

//! The lists of indices that user space can ask for.
//!
//! They derive from the table and the host. Each call computes them, as the vendor module may be
//! replaced while the engine stays loaded.

use super::{
    access::{
        tolerate,
        Access,
        Initiator,
        Result, //
    },
    cpu::Leniency,
    exit::UNSUPPORTED,
    registers::{
        index::*,
        lookup,
        Condition,
        Feature,
        Listed,
        Register,
        Trace,
        FEATURE_MSRS,
        REGISTERS, //
    },
};

/// The properties of the host that the lists depend on.
pub(crate) trait Host {
    /// Whether the host's CPU has an MSR. `register` is the MSR's declaration.
    fn has(&self, register: &Register, index: u32) -> bool;
    /// The revision of the CPU's microcode, or 0 if it has none.
    fn microcode_revision(&self) -> u64;
    /// Whether KVM offers a feature to guests.
    fn offers(&self, feature: Feature) -> bool;
    /// Whether KVM offers MPX to guests.
    fn offers_mpx(&self) -> bool;
    /// Whether KVM offers a component that `IA32_XSS` enables.
    fn offers_xss(&self) -> bool;
    /// Whether KVM is built with Hyper-V's enlightenments.
    fn has_hyperv(&self) -> bool;
    /// Whether the CPU has a capability of Intel PT.
    fn traces(&self, trace: Trace) -> bool;
    /// Whether KVM has a virtual PMU.
    fn has_pmu(&self) -> bool;
    /// The number of the PMU's fixed or general purpose counters.
    fn counters(&self, fixed: bool) -> u32;
    /// The value of `IA32_ARCH_CAPABILITIES` that KVM offers to guests.
    fn arch_capabilities(&self) -> u64;
    /// The value of `IA32_PERF_CAPABILITIES` that KVM offers to guests.
    fn perf_capabilities(&self) -> u64;
    /// Whether the vendor module emulates an MSR.
    fn emulates(&self, index: u32) -> bool;
    /// The value of a feature MSR that the vendor module offers to guests.
    fn vendor_feature(&self, index: u32) -> Result<u64>;
}

fn meets<H: Host>(host: &H, condition: Condition, offset: u32) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Either(one, other) => host.offers(one) || host.offers(other),
        Condition::Both(one, other) => host.offers(one) && host.offers(other),
        Condition::Offers(feature) => host.offers(feature),
        Condition::ProcessorTrace(trace) => host.offers(Feature::IntelPt) && host.traces(trace),
        Condition::Counter { fixed, number } => {
            number.saturating_add(offset) < host.counters(fixed)
        }
        Condition::TsxCtrl => host.arch_capabilities() & ARCH_CAP_TSX_CTRL != 0,
        Condition::Xss => host.offers_xss(),
        Condition::Mpx => host.offers_mpx(),
    }
}

/// Returns whether `KVM_GET_MSR_INDEX_LIST` has an index.
#[inline]
pub(crate) fn is_listed<H: Host>(host: &H, register: &Register, index: u32) -> bool {
    let condition = match register.listed {
        Listed::No => return false,
        Listed::Emulated => return host.emulates(index),
        Listed::EmulatedHyperV => return host.has_hyperv() && host.emulates(index),
        Listed::SavedPmu(_) if !host.has_pmu() => return false,
        Listed::SavedPmu(condition) | Listed::Saved(condition) => condition,
    };

    meets(host, condition, index.wrapping_sub(register.first)) && host.has(register, index)
}

/// Returns the list of `KVM_GET_MSR_INDEX_LIST`.
pub(crate) fn indices<H: Host>(host: &H) -> impl Iterator<Item = u32> + '_ {
    REGISTERS
        .iter()
        // Skip unused slots, which span every index.
        .filter(|register| register.list_position.is_some())
        .flat_map(|register| (register.first..=register.last).map(move |index| (register, index)))
        .filter(|&(register, index)| is_listed(host, register, index))
        .map(|(_, index)| index)
}

/// Returns the list of `KVM_GET_MSR_FEATURE_INDEX_LIST`.
pub(crate) fn feature_indices<H: Host>(host: &H) -> impl Iterator<Item = u32> + '_ {
    FEATURE_MSRS
        .iter()
        .copied()
        .filter(|&index| read_existing_feature(host, index).is_ok())
}

/// Reads the value of a feature MSR that KVM offers to guests, for `KVM_GET_MSRS` on `/dev/kvm`. An
/// unknown MSR reads as 0 if it is listed, or with `ignore_msrs`, as on a vCPU.
///
/// # Errors
///
/// [`UNSUPPORTED`] if the MSR is not a feature MSR, or the vendor module
/// does not know it.
pub(crate) fn read_feature<H: Host + Leniency>(host: &H, index: u32) -> Result<u64> {
    match read_existing_feature(host, index) {
        Err(UNSUPPORTED) => {
            let register = lookup(index);

            tolerate(host, register, index, 0, Initiator::Host, Access::Read).map(|()| 0)
        }
        read => read,
    }
}

/// Reads a feature MSR; an unknown one is always denied.
///
/// # Errors
///
/// As [`read_feature`].
pub(crate) fn read_existing_feature<H: Host>(host: &H, index: u32) -> Result<u64> {
    match index {
        IA32_ARCH_CAPABILITIES => Ok(host.arch_capabilities()),
        IA32_PERF_CAPABILITIES => Ok(host.perf_capabilities()),
        PLATFORM_INFO => Ok(PLATFORM_INFO_CPUID_FAULT),
        // KVM always lists this MSR, also if the host does not have it.
        IA32_UCODE_REV => Ok(host.microcode_revision()),
        _ => host.vendor_feature(index),
    }
}
