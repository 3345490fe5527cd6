// SPDX-License-Identifier: GPL-2.0

//! The model of a host.

use super::{
    Features,
    ANSWER, //
};
use crate::engine::{
    access::Result,
    cpu::{
        Leniency,
        Report, //
    },
    lists,
    registers::{
        Feature,
        Register,
        Trace, //
    },
};

/// A host.
#[derive(Clone, Copy)]
pub(crate) struct Host<'a> {
    pub(crate) has: &'a dyn Fn(u32) -> bool,
    pub(crate) emulates: &'a dyn Fn(u32) -> bool,
    pub(crate) vendor_feature: &'a dyn Fn(u32) -> Result<u64>,
    pub(crate) features: Features,
    pub(crate) has_mpx: bool,
    pub(crate) has_xss: bool,
    pub(crate) has_hyperv: bool,
    pub(crate) has_pmu: bool,
    pub(crate) fixed_counters: u32,
    pub(crate) general_counters: u32,
    /// The capabilities of Intel PT.
    pub(crate) cr3_filtering: bool,
    pub(crate) trace_output: bool,
    pub(crate) trace_ranges: u32,
    pub(crate) arch_capabilities: u64,
    pub(crate) perf_capabilities: u64,
    pub(crate) microcode_revision: u64,
    pub(crate) ignores_unknown: bool,
    pub(crate) report: &'a dyn Fn(Report, u32),
}

impl Host<'_> {
    /// A host with all features.
    pub(crate) const fn new() -> Self {
        Self {
            has: &|_| true,
            emulates: &|_| true,
            vendor_feature: &|_| Ok(ANSWER),
            features: Features::ALL,
            has_mpx: true,
            has_xss: true,
            has_hyperv: true,
            has_pmu: true,
            fixed_counters: u32::MAX,
            general_counters: u32::MAX,
            cr3_filtering: true,
            trace_output: true,
            trace_ranges: u32::MAX,
            arch_capabilities: u64::MAX,
            perf_capabilities: u64::MAX,
            microcode_revision: u64::MAX,
            ignores_unknown: false,
            report: &|_, _| (),
        }
    }
}

impl lists::Host for Host<'_> {
    fn has(&self, _register: &Register, index: u32) -> bool {
        (self.has)(index)
    }

    fn microcode_revision(&self) -> u64 {
        self.microcode_revision
    }

    fn offers(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    fn offers_mpx(&self) -> bool {
        self.has_mpx
    }

    fn offers_xss(&self) -> bool {
        self.has_xss
    }

    fn has_hyperv(&self) -> bool {
        self.has_hyperv
    }

    fn traces(&self, trace: Trace) -> bool {
        match trace {
            Trace::Any => true,
            Trace::Cr3Filtering => self.cr3_filtering,
            Trace::Output => self.trace_output,
            Trace::Ranges(above) => above < self.trace_ranges,
        }
    }

    fn has_pmu(&self) -> bool {
        self.has_pmu
    }

    fn counters(&self, fixed: bool) -> u32 {
        if fixed {
            self.fixed_counters
        } else {
            self.general_counters
        }
    }

    fn arch_capabilities(&self) -> u64 {
        self.arch_capabilities
    }

    fn perf_capabilities(&self) -> u64 {
        self.perf_capabilities
    }

    fn emulates(&self, index: u32) -> bool {
        (self.emulates)(index)
    }

    fn vendor_feature(&self, index: u32) -> Result<u64> {
        (self.vendor_feature)(index)
    }
}

impl Leniency for Host<'_> {
    fn ignores_unknown(&self) -> bool {
        self.ignores_unknown
    }

    fn is_listed(&self, register: &Register, index: u32) -> bool {
        lists::is_listed(self, register, index)
    }

    fn report(&self, report: Report, index: u32, _data: u64) {
        (self.report)(report, index);
    }
}
