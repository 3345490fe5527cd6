// SPDX-License-Identifier: GPL-2.0

//! The lists of MSRs for user space.

use super::Feature;

/// Whether `KVM_GET_MSR_INDEX_LIST` has an MSR. The table has the list's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// No.
    No,
    /// If the host's CPU has the MSR and the condition holds.
    Saved(Condition),
    /// As [`Self::Saved`], if KVM also has a virtual PMU.
    SavedPmu(Condition),
    /// If the vendor module emulates the MSR.
    Emulated,
    /// As [`Self::Emulated`], if KVM is built with Hyper-V's enlightenments (`CONFIG_KVM_HYPERV`).
    EmulatedHyperV,
}

/// What a saved MSR depends on, in addition to the host's CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing.
    Always,
    /// KVM offers either feature to guests.
    Either(Feature, Feature),
    /// KVM offers both features to guests.
    Both(Feature, Feature),
    /// KVM offers the feature to guests.
    Offers(Feature),
    /// Intel PT, and one of its capabilities.
    ProcessorTrace(Trace),
    /// The PMU has more counters than this number.
    Counter {
        /// Fixed counters, instead of general purpose counters.
        fixed: bool,
        /// The counter's number.
        number: u32,
    },
    /// `IA32_ARCH_CAPABILITIES` reports `IA32_TSX_CTRL`.
    TsxCtrl,
    /// KVM supports a supervisor component of XSAVES.
    Xss,
    /// KVM supports MPX.
    Mpx,
}

/// The capability of Intel PT that an MSR depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    /// None.
    Any,
    /// CR3 filtering.
    Cr3Filtering,
    /// Output to memory, of either kind.
    Output,
    /// Address ranges, more than this number.
    Ranges(u32),
}

/// Whether an MSR is a feature MSR, which describes features as CPUID does.
/// `KVM_GET_MSR_FEATURE_INDEX_LIST` has these, in the order of [`super::FEATURE_MSRS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeatureMsr {
    /// It is not.
    No,
    /// It is, and its value can't change once the vCPU has run.
    Immutable,
    /// It is, and its value can change at any time.
    Mutable,
}
