// SPDX-License-Identifier: GPL-2.0

//! The lists of indices that user space can ask for.
//!
//! They follow from the table and the host, and are worked out for each call: the vendor module
//! can change while the engine stays.

use super::{
    access::{
        or_excused_read,
        By,
        Excuses,
        Result, //
    },
    registers::{
        lookup,
        Condition,
        Feature,
        Listed,
        Model,
        Register,
        Trace,
        REGISTERS, //
    },
};

const IA32_UCODE_REV: u32 = 0x8b;
const PLATFORM_INFO: u32 = 0xce;
const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
const IA32_PERF_CAPABILITIES: u32 = 0x345;

const ARCH_CAP_TSX_CTRL: u64 = 1 << 7;
const PLATFORM_INFO_CPUID_FAULT: u64 = 1 << 31;

/// The host, as the lists depend on it.
pub(crate) trait Host {
    /// Whether the CPU has a saved MSR. `register` is its declaration.
    fn has(&self, register: &Register, index: u32) -> bool;
    /// The revision of the CPU's microcode.
    fn microcode_revision(&self) -> u64;
    /// Whether KVM offers a feature to guests.
    fn offers(&self, feature: Feature) -> bool;
    /// Whether KVM offers MPX.
    fn offers_mpx(&self) -> bool;
    /// Whether KVM offers a component that `IA32_XSS` enables.
    fn offers_xss(&self) -> bool;
    /// Whether the CPU has what Intel PT needs for an MSR.
    fn traces(&self, trace: Trace) -> bool;
    /// Whether KVM has a virtual PMU.
    fn has_pmu(&self) -> bool;
    /// The number of the PMU's counters, of the fixed or of the general purpose ones.
    fn counters(&self, fixed: bool) -> u32;
    /// What KVM would have guests see as `IA32_ARCH_CAPABILITIES`.
    fn arch_capabilities(&self) -> u64;
    /// What KVM would have guests see as `IA32_PERF_CAPABILITIES`.
    fn perf_capabilities(&self) -> u64;
    /// Whether the vendor module emulates an MSR.
    fn emulates(&self, index: u32) -> bool;
    /// Has the vendor module say what a guest can have of a feature.
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
pub(crate) fn is_listed<H: Host>(host: &H, register: &Register, index: u32) -> bool {
    let condition = match register.listed {
        Listed::No => return false,
        Listed::Emulated => return host.emulates(index),
        Listed::SavedPmu(_) if !host.has_pmu() => return false,
        Listed::SavedPmu(condition) | Listed::Saved(condition) => condition,
    };

    meets(host, condition, index.wrapping_sub(register.first)) && host.has(register, index)
}

/// The list of `KVM_GET_MSR_INDEX_LIST`.
pub(crate) fn indices<H: Host>(host: &H) -> impl Iterator<Item = u32> + '_ {
    REGISTERS
        .iter()
        // Those of nothing have all the indices.
        .filter(|register| register.list_position.is_some())
        .flat_map(|register| (register.first..=register.last).map(move |index| (register, index)))
        .filter(|&(register, index)| is_listed(host, register, index))
        .map(|(_, index)| index)
}

/// The list of `KVM_GET_MSR_FEATURE_INDEX_LIST`.
pub(crate) fn model_indices<H: Host>(host: &H) -> impl Iterator<Item = u32> + '_ {
    (0..=u8::MAX)
        .map_while(|place| {
            REGISTERS.iter().find(
                |register| matches!(register.model, Model::Fixed(at) | Model::Changing(at) if at == place),
            )
        })
        .map(|register| register.first)
        .filter(|&index| read_model(host, index).is_ok())
}

/// Reads what a guest can have of a feature: `KVM_GET_MSRS` on the device.
///
/// # Errors
///
/// `UNSUPPORTED` if the MSR does not describe a feature, or the vendor module does not know it.
pub(crate) fn read_model<H: Host>(host: &H, index: u32) -> Result<u64> {
    match index {
        IA32_ARCH_CAPABILITIES => Ok(host.arch_capabilities()),
        IA32_PERF_CAPABILITIES => Ok(host.perf_capabilities()),
        PLATFORM_INFO => Ok(PLATFORM_INFO_CPUID_FAULT),
        // A CPU may be without, and there is nothing to tell then.
        IA32_UCODE_REV => Ok(host.microcode_revision()),
        _ => host.vendor_feature(index),
    }
}

/// Does what [`read_model`] does, and makes good what may be excused of an MSR that does not
/// exist, as on a vCPU.
///
/// # Errors
///
/// As [`read_model`].
pub(crate) fn read_model_excused<H: Host + Excuses>(host: &H, index: u32) -> Result<u64> {
    or_excused_read(
        read_model(host, index),
        host,
        lookup(index),
        index,
        By::Host,
    )
}
