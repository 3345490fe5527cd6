// SPDX-License-Identifier: GPL-2.0

//! The model of a vCPU.

use super::{
    Effect,
    Effects,
    Features,
    Owner,
    ANSWER,
    L1_TSC,
    MCE_BANKS,
    MCE_CTL2,
    TSC,
    TSC_DEADLINE,
    WALL_CLOCK,
    XFD, //
};
use crate::engine::{
    access::{
        Initiator,
        Result, //
    },
    cpu::*,
    registers::{
        Feature,
        Field,
        Pv,
        Register,
        Vendor, //
    },
};
use core::cell::Cell;

/// A vCPU.
#[derive(Clone, Debug)]
pub(crate) struct Vcpu {
    pub(crate) fields: [Cell<u64>; Field::ALL.len()],
    pub(crate) done: Cell<Effects>,
    /// The answer of all owners of MSRs.
    pub(crate) answer: Result<u64>,
    pub(crate) features: Features,
    pub(crate) host_features: Features,
    /// A bit for each paravirtual feature.
    pub(crate) pv: u32,
    pub(crate) vendor: Vendor,
    pub(crate) is_amd_compatible: bool,
    pub(crate) has_xsaves: bool,
    pub(crate) is_paging: bool,
    pub(crate) is_boot_cpu: bool,
    pub(crate) has_lapic: bool,
    pub(crate) is_nested: bool,
    pub(crate) is_protected: bool,
    pub(crate) is_tsc_protected: bool,
    pub(crate) host_has_ibpb: bool,
    pub(crate) can_switch_tsc_aux: bool,
    pub(crate) has_smm: bool,
    pub(crate) has_sched_info: bool,
    pub(crate) has_pmu: bool,
    pub(crate) may_read_platform_info: bool,
    pub(crate) misc_enable_is_quirky: bool,
    pub(crate) boot_clock_is_old: bool,
    pub(crate) ignores_unknown: bool,
    pub(crate) is_listed: bool,
    /// The index of the MSR that sets up a Xen guest's hypercall page.
    pub(crate) xen: Option<u32>,
    pub(crate) address_bits: u32,
    pub(crate) supported_efer: u64,
    pub(crate) supported_perf_capabilities: u64,
    pub(crate) supported_xss: u64,
    pub(crate) supported_xfd: u64,
}

impl Vcpu {
    /// A vCPU with all features except a PMU. It runs L1, and its state is not encrypted.
    pub(crate) fn new(vendor: Vendor) -> Self {
        Self {
            fields: [const { Cell::new(0) }; Field::ALL.len()],
            done: Cell::default(),
            answer: Ok(ANSWER),
            features: Features::ALL,
            host_features: Features::ALL,
            pv: u32::MAX,
            vendor,
            is_amd_compatible: vendor == Vendor::Amd,
            has_xsaves: true,
            is_paging: false,
            is_boot_cpu: true,
            has_lapic: true,
            is_nested: false,
            is_protected: false,
            is_tsc_protected: false,
            host_has_ibpb: true,
            can_switch_tsc_aux: true,
            has_smm: true,
            has_sched_info: true,
            has_pmu: false,
            may_read_platform_info: true,
            misc_enable_is_quirky: false,
            boot_clock_is_old: false,
            ignores_unknown: false,
            is_listed: false,
            xen: None,
            address_bits: 48,
            supported_efer: u64::MAX,
            supported_perf_capabilities: u64::MAX,
            supported_xss: u64::MAX,
            supported_xfd: u64::MAX,
        }
    }

    /// Returns the vCPU without a feature.
    pub(crate) fn without(mut self, feature: Feature) -> Self {
        self.features = self.features.without(feature);
        self
    }

    /// Returns the vCPU without a paravirtual feature.
    pub(crate) fn without_pv(mut self, feature: Pv) -> Self {
        self.pv &= !(1 << feature.0);
        self
    }

    /// Sets a field without recording an effect.
    pub(crate) fn preset(&self, field: Field, value: u64) {
        self.fields[field as usize].set(value);
    }

    /// Returns the effects since the last call.
    pub(crate) fn effects(&self) -> Effects {
        self.done.take()
    }

    fn note(&self, effect: Effect) {
        self.done.set(self.done.get().and(effect));
    }

    fn ask(&self, effect: Effect) -> Result<u64> {
        self.note(effect);
        self.answer
    }
}

impl Cpu for Vcpu {}

impl Fields for Vcpu {
    fn field(&self, field: Field) -> u64 {
        self.fields[field as usize].get()
    }

    fn set_field(&self, field: Field, value: u64) {
        self.note(Effect::Field(field, value));
        self.preset(field, value);
    }

    fn mce_bank(&self, offset: usize) -> u64 {
        MCE_BANKS + offset as u64
    }

    fn set_mce_bank(&self, offset: usize, value: u64) {
        self.note(Effect::MceBank(offset, value));
    }

    fn mce_ctl2(&self, bank: usize) -> u64 {
        MCE_CTL2 + bank as u64
    }

    fn set_mce_ctl2(&self, bank: usize, value: u64) {
        self.note(Effect::MceCtl2(bank, value));
    }
}

impl Cpuid for Vcpu {
    fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    fn has_xsaves(&self) -> bool {
        self.has_xsaves
    }

    fn has_pv(&self, feature: Pv) -> bool {
        self.pv & 1 << feature.0 != 0
    }

    fn is_amd_compatible(&self) -> bool {
        self.is_amd_compatible
    }

    fn supported_xss(&self) -> u64 {
        self.supported_xss
    }

    fn supported_xfd(&self) -> u64 {
        self.supported_xfd
    }

    fn may_read_platform_info(&self) -> bool {
        self.may_read_platform_info
    }

    fn misc_enable_is_quirky(&self) -> bool {
        self.misc_enable_is_quirky
    }

    fn invalidate_cpuid(&self) {
        self.note(Effect::InvalidateCpuid);
    }
}

impl Mode for Vcpu {
    fn is_paging(&self) -> bool {
        self.is_paging
    }

    fn is_boot_cpu(&self) -> bool {
        self.is_boot_cpu
    }

    fn is_nested(&self) -> bool {
        self.is_nested
    }

    fn is_protected(&self) -> bool {
        self.is_protected
    }

    fn request(&self, request: Request) {
        self.note(Effect::Request(request));
    }
}

impl HostCpu for Vcpu {
    fn host_has(&self, feature: Feature) -> bool {
        self.host_features.has(feature)
    }

    fn host_has_ibpb(&self) -> bool {
        self.host_has_ibpb
    }

    fn address_bits(&self) -> u32 {
        self.address_bits
    }

    fn can_switch_tsc_aux(&self) -> bool {
        self.can_switch_tsc_aux
    }

    fn has_smm(&self) -> bool {
        self.has_smm
    }

    fn has_sched_info(&self) -> bool {
        self.has_sched_info
    }

    fn supported_efer(&self) -> u64 {
        self.supported_efer
    }

    fn supported_perf_capabilities(&self) -> u64 {
        self.supported_perf_capabilities
    }

    fn predict(&self, data: u64) {
        self.note(Effect::Predict(data));
    }

    fn flush_l1d(&self) {
        self.note(Effect::FlushL1d);
    }
}

impl VendorModule for Vcpu {
    fn vendor(&self) -> Vendor {
        self.vendor
    }

    fn vendor_read(&self, index: u32, initiator: Initiator) -> Result<u64> {
        self.ask(Effect::Read(Owner::Vendor(initiator), index))
    }

    fn vendor_write(&self, index: u32, data: u64, initiator: Initiator) -> Result {
        self.ask(Effect::Write(Owner::Vendor(initiator), index, data))?;
        Ok(())
    }

    fn vendor_set_efer(&self, efer: u64) -> Result {
        self.ask(Effect::VendorEfer(efer))?;
        Ok(())
    }

    fn efer_changed(&self, old: u64, new: u64) {
        self.note(Effect::EferChanged(old, new));
    }

    fn report_unimplemented(&self, index: u32, data: u64) {
        self.note(Effect::Unimplemented(index, data));
    }
}

impl Pmu for Vcpu {
    fn pmu_has(&self, _index: u32) -> bool {
        self.has_pmu
    }

    fn pmu_read(&self, index: u32, initiator: Initiator) -> Result<u64> {
        self.ask(Effect::Read(Owner::Pmu(initiator), index))
    }

    fn pmu_write(&self, index: u32, data: u64, initiator: Initiator) -> Result {
        self.ask(Effect::Write(Owner::Pmu(initiator), index, data))?;
        Ok(())
    }

    fn refresh_pmu(&self) {
        self.note(Effect::RefreshPmu);
    }
}

impl Mtrrs for Vcpu {
    fn read_mtrr(&self, index: u32) -> Result<u64> {
        self.ask(Effect::Read(Owner::Mtrr, index))
    }

    fn write_mtrr(&self, index: u32, data: u64) -> Result {
        self.ask(Effect::Write(Owner::Mtrr, index, data))?;
        Ok(())
    }
}

impl Lapic for Vcpu {
    fn has_lapic(&self) -> bool {
        self.has_lapic
    }

    fn read_x2apic(&self, index: u32) -> Result<u64> {
        self.ask(Effect::Read(Owner::X2apic, index))
    }

    fn write_x2apic(&self, index: u32, data: u64) -> Result {
        self.ask(Effect::Write(Owner::X2apic, index, data))?;
        Ok(())
    }

    fn tsc_deadline(&self) -> u64 {
        TSC_DEADLINE
    }

    fn set_tsc_deadline(&self, data: u64) {
        self.note(Effect::TscDeadline(data));
    }

    fn set_apic_base(&self, data: u64, initiator: Initiator) -> Result {
        self.ask(Effect::ApicBase(data, initiator))?;
        Ok(())
    }

    fn set_pv_eoi(&self, data: u64) -> Result {
        self.ask(Effect::PvEoi(data))?;
        Ok(())
    }
}

impl Hypervisors for Vcpu {
    fn read_hyperv(&self, index: u32, initiator: Initiator) -> Result<u64> {
        self.ask(Effect::Read(Owner::HyperV(initiator), index))
    }

    fn write_hyperv(&self, index: u32, data: u64, initiator: Initiator) -> Result {
        self.ask(Effect::Write(Owner::HyperV(initiator), index, data))?;
        Ok(())
    }

    fn write_xen_hypercall_page(&self, index: u32, data: u64) -> Option<Result> {
        (self.xen == Some(index)).then(|| {
            self.ask(Effect::Write(Owner::XenHypercallPage, index, data))?;
            Ok(())
        })
    }
}

impl Fpu for Vcpu {
    fn read_xstate(&self, index: u32) -> u64 {
        self.note(Effect::Read(Owner::Xstate, index));
        ANSWER
    }

    fn write_xstate(&self, index: u32, data: u64) {
        self.note(Effect::Write(Owner::Xstate, index, data));
    }

    fn xfd(&self) -> u64 {
        XFD
    }

    fn set_xfd(&self, xfd: u64) {
        self.note(Effect::Xfd(xfd));
    }
}

impl Clocks for Vcpu {
    fn tsc(&self, initiator: Initiator) -> u64 {
        match initiator {
            Initiator::Guest => TSC,
            Initiator::Host => L1_TSC,
        }
    }

    fn is_tsc_protected(&self) -> bool {
        self.is_tsc_protected
    }

    fn synchronize_tsc(&self, tsc: u64) {
        self.note(Effect::SynchronizeTsc(tsc));
    }

    fn tsc_adjustment(&self, tsc: u64) -> u64 {
        tsc.wrapping_sub(L1_TSC)
    }

    fn adjust_tsc_offset(&self, delta: u64) {
        self.note(Effect::AdjustTscOffset(delta));
    }
}

impl Paravirtual for Vcpu {
    fn wall_clock(&self) -> u64 {
        WALL_CLOCK
    }

    fn set_wall_clock(&self, address: u64) {
        self.note(Effect::WallClock(address));
    }

    fn boot_clock_is_old(&self) -> bool {
        self.boot_clock_is_old
    }

    fn set_boot_clock_is_old(&self, old: bool) {
        self.note(Effect::BootClockIsOld(old));
    }

    fn set_clock_address(&self, address: Option<u64>) {
        self.note(Effect::ClockAddress(address));
    }

    fn set_async_pf_address(&self, address: u64) -> Result {
        self.ask(Effect::AsyncPfAddress(address))?;
        Ok(())
    }

    fn wake_async_pf(&self) {
        self.note(Effect::WakeAsyncPf);
    }

    fn clear_async_pf(&self) {
        self.note(Effect::ClearAsyncPf);
    }

    fn set_async_pf_vector(&self, vector: u8) {
        self.note(Effect::AsyncPfVector(vector));
    }

    fn acknowledge_async_pf(&self) {
        self.note(Effect::AcknowledgeAsyncPf);
    }
}

impl Leniency for Vcpu {
    fn ignores_unknown(&self) -> bool {
        self.ignores_unknown
    }

    fn is_listed(&self, _register: &Register, _index: u32) -> bool {
        self.is_listed
    }

    fn report(&self, report: Report, index: u32, data: u64) {
        self.note(Effect::Report(report, index, data));
    }
}
