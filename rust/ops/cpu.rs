// SPDX-License-Identifier: GPL-2.0

//! What the engine's rules ask for, on a real vCPU and a real host.

use super::Vcpu;
use crate::{
    engine::{
        access::{
            By,
            Command,
            Cpu,
            Excuses,
            Report,
            Request,
            Result,
            Way, //
        },
        exit::INVALID,
        lists,
        registers::{
            Feature,
            Field,
            Pv,
            Register,
            Trace,
            Vendor,
            NR_LISTED, //
        },
    },
    kvm::{
        host,
        CpuidBit,
        KvmRequest,
        Place, //
    },
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

const IA32_UCODE_REV: u32 = 0x8b;

/// The component of the FPU's state that has to be enabled by the host, for AMX.
const XFEATURE_XTILE_DATA: u64 = 1 << 18;

const fn place(field: Field) -> Place {
    match field {
        Field::ApicBase => Place::APIC_BASE,
        Field::ArchCapabilities => Place::ARCH_CAPABILITIES,
        Field::AsyncPfEn => Place::ASYNC_PF_EN,
        Field::AsyncPfInt => Place::ASYNC_PF_INT,
        Field::Efer => Place::EFER,
        Field::Hwcr => Place::HWCR,
        Field::McgCap => Place::MCG_CAP,
        Field::McgCtl => Place::MCG_CTL,
        Field::McgStatus => Place::MCG_STATUS,
        Field::MicrocodeVersion => Place::MICROCODE_VERSION,
        Field::MiscEnable => Place::MISC_ENABLE,
        Field::MiscFeaturesEnables => Place::MISC_FEATURES_ENABLES,
        Field::OsvwLength => Place::OSVW_LENGTH,
        Field::OsvwStatus => Place::OSVW_STATUS,
        Field::Pat => Place::PAT,
        Field::PerfCapabilities => Place::PERF_CAPABILITIES,
        Field::PlatformInfo => Place::PLATFORM_INFO,
        Field::PollControl => Place::POLL_CONTROL,
        Field::PowerCtl => Place::POWER_CTL,
        Field::PvEoi => Place::PV_EOI,
        Field::Smbase => Place::SMBASE,
        Field::SmiCount => Place::SMI_COUNT,
        Field::StealTime => Place::STEAL_TIME,
        Field::SystemTime => Place::SYSTEM_TIME,
        Field::TscAdjust => Place::TSC_ADJUST,
        Field::XfdErr => Place::XFD_ERR,
        Field::Xss => Place::XSS,
    }
}

const fn cpuid_bit(feature: Feature) -> CpuidBit {
    match feature {
        Feature::Xmm3 => CpuidBit::XMM3,
        Feature::Pdcm => CpuidBit::PDCM,
        Feature::Nx => CpuidBit::NX,
        Feature::FxsrOpt => CpuidBit::FXSR_OPT,
        Feature::Rdtscp => CpuidBit::RDTSCP,
        Feature::Lm => CpuidBit::LM,
        Feature::Svm => CpuidBit::SVM,
        Feature::Osvw => CpuidBit::OSVW,
        Feature::TscAdjust => CpuidBit::TSC_ADJUST,
        Feature::IntelPt => CpuidBit::INTEL_PT,
        Feature::Xfd => CpuidBit::XFD,
        Feature::AmdIbpb => CpuidBit::AMD_IBPB,
        Feature::ShadowStack => CpuidBit::SHSTK,
        Feature::Waitpkg => CpuidBit::WAITPKG,
        Feature::Rdpid => CpuidBit::RDPID,
        Feature::BranchTracking => CpuidBit::IBT,
        Feature::SpecCtrl => CpuidBit::SPEC_CTRL,
        Feature::FlushL1d => CpuidBit::FLUSH_L1D,
        Feature::ArchCapabilities => CpuidBit::ARCH_CAPABILITIES,
        Feature::AutoIbrs => CpuidBit::AUTOIBRS,
        Feature::Sbpb => CpuidBit::SBPB,
        Feature::CpuidUserDis => CpuidBit::GP_ON_USER_CPUID,
        Feature::PerfmonV2 => CpuidBit::PERFMON_V2,
    }
}

/// The same as arrays: a `match` is a tree of comparisons where there may be no jump tables.
static PLACES: [Place; Field::ALL.len()] = {
    let mut places = [Place::PAT; Field::ALL.len()];
    let mut i = 0;

    while i < places.len() {
        places[i] = place(Field::ALL[i]);
        i += 1;
    }
    places
};

static CPUID_BITS: [CpuidBit; Feature::ALL.len()] = {
    let mut bits = [CpuidBit::NX; Feature::ALL.len()];
    let mut i = 0;

    while i < bits.len() {
        bits[i] = cpuid_bit(Feature::ALL[i]);
        i += 1;
    }
    bits
};

impl Cpu for Vcpu {
    #[inline]
    fn field(&self, field: Field) -> u64 {
        self.value(PLACES[field as usize])
    }

    #[inline]
    fn set_field(&self, field: Field, value: u64) {
        self.set_value(PLACES[field as usize], value)
    }

    #[inline]
    fn has(&self, feature: Feature) -> bool {
        self.has_cpuid(CPUID_BITS[feature as usize])
    }

    fn has_xsaves(&self) -> bool {
        self.cpuid_has_xsaves()
    }

    #[inline]
    fn has_pv(&self, feature: Pv) -> bool {
        self.has_pv_feature(feature.0)
    }

    fn is_intel_compatible(&self) -> bool {
        self.cpuid_is_intel_compatible()
    }

    fn is_amd_compatible(&self) -> bool {
        self.cpuid_is_amd_compatible()
    }

    fn is_paging(&self) -> bool {
        self.has_paging()
    }

    fn is_boot_cpu(&self) -> bool {
        self.id() == 0
    }

    fn has_lapic(&self) -> bool {
        self.has_lapic_in_kernel()
    }

    #[inline]
    fn is_nested(&self) -> bool {
        self.is_in_guest_mode()
    }

    #[inline]
    fn is_protected(&self) -> bool {
        self.has_protected_state()
    }

    fn host_has(&self, feature: Feature) -> bool {
        host::has(cpuid_bit(feature))
    }

    fn host_has_ibpb(&self) -> bool {
        host::has_ibpb()
    }

    fn address_bits(&self) -> u32 {
        host::address_bits()
    }

    #[inline]
    fn has_user_return_tsc_aux(&self) -> bool {
        probe(&TSC_AUX, host::can_switch_tsc_aux)
    }

    fn has_smm(&self) -> bool {
        host::has_smm()
    }

    fn has_sched_info(&self) -> bool {
        host::has_sched_info()
    }

    fn supported_efer(&self) -> u64 {
        host::supported().efer
    }

    fn supported_perf_capabilities(&self) -> u64 {
        host::supported().perf_capabilities
    }

    fn supported_xss(&self) -> u64 {
        self.xss_mask()
    }

    fn supported_xfd(&self) -> u64 {
        self.xcr0_mask() & XFEATURE_XTILE_DATA
    }

    fn may_read_platform_info(&self) -> bool {
        self.vm().guest_can_read_platform_info()
    }

    fn misc_enable_is_quirky(&self) -> bool {
        self.has_misc_enable_quirk()
    }

    #[inline]
    fn vendor(&self) -> Vendor {
        if host::is_amd() {
            Vendor::Amd
        } else {
            Vendor::Intel
        }
    }

    #[inline]
    fn vendor_read(&self, index: u32, by: By) -> Result<u64> {
        self.vendor_get(index, by == By::Host)
    }

    #[inline]
    fn vendor_write(&self, index: u32, data: u64, by: By) -> Result {
        self.vendor_set(index, data, by == By::Host)
    }

    fn vendor_set_efer(&self, efer: u64) -> Result {
        self.set_vendor_efer(efer)
    }

    fn pmu_has(&self, index: u32) -> bool {
        self.pmu_knows(index)
    }

    fn pmu_read(&self, index: u32, by: By) -> Result<u64> {
        self.pmu_get(index, by == By::Host)
    }

    fn pmu_write(&self, index: u32, data: u64, by: By) -> Result {
        self.pmu_set(index, data, by == By::Host)
    }

    fn refresh_pmu(&self) {
        self.pmu_refresh()
    }

    fn read_mtrr(&self, index: u32) -> Result<u64> {
        self.mtrr(index)
    }

    fn write_mtrr(&self, index: u32, data: u64) -> Result {
        self.set_mtrr(index, data)
    }

    fn read_x2apic(&self, index: u32) -> Result<u64> {
        self.x2apic(index)
    }

    fn write_x2apic(&self, index: u32, data: u64) -> Result {
        self.set_x2apic(index, data)
    }

    #[inline]
    fn read_hyperv(&self, index: u32, by: By) -> Result<u64> {
        self.hyperv(index, by == By::Host)
    }

    fn write_hyperv(&self, index: u32, data: u64, by: By) -> Result {
        self.set_hyperv(index, data, by == By::Host)
    }

    fn read_xstate(&self, index: u32) -> u64 {
        self.xstate(index)
    }

    fn write_xstate(&self, index: u32, data: u64) {
        self.set_xstate(index, data)
    }

    fn tsc_deadline(&self) -> u64 {
        self.lapic_tsc_deadline()
    }

    fn set_tsc_deadline(&self, data: u64) {
        self.set_lapic_tsc_deadline(data)
    }

    fn xfd(&self) -> u64 {
        self.xfd_mask()
    }

    fn set_apic_base(&self, data: u64, by: By) -> Result {
        self.set_lapic_base(data, by == By::Host)
    }

    fn set_pv_eoi(&self, data: u64) -> Result {
        // Whatever it is that failed, the guest wrote an address that is none.
        self.set_lapic_pv_eoi(data).map_err(|_| INVALID)
    }

    fn write_xen_hypercall_page(&self, index: u32, data: u64) -> Option<Result> {
        self.xen_hypercall_page(index, data)
    }

    fn request(&self, request: Request) {
        self.make_request(match request {
            Request::ClockUpdate => KvmRequest::Clock,
            Request::GlobalClockUpdate => KvmRequest::GlobalClock,
            Request::MasterClockUpdate => KvmRequest::MasterClock,
            Request::RecalcIntercepts => KvmRequest::Intercepts,
            Request::StealUpdate => KvmRequest::StealTime,
        })
    }

    fn command(&self, command: Command) {
        match command {
            Command::Predict(data) => host::predict(data),
            Command::FlushL1d => host::flush_l1d(),
        }
    }

    fn efer_changed(&self, old: u64, new: u64) {
        self.note_efer(old, new)
    }

    fn cpuid_changed(&self) {
        self.mark_cpuid_dirty()
    }

    fn mce_bank(&self, offset: usize) -> u64 {
        self.mce(offset)
    }

    fn set_mce_bank(&self, offset: usize, value: u64) {
        self.set_mce(offset, value)
    }

    fn mce_ctl2(&self, bank: usize) -> u64 {
        self.mce_ctl2_of(bank)
    }

    fn set_mce_ctl2(&self, bank: usize, value: u64) {
        self.set_mce_ctl2_of(bank, value)
    }

    fn tsc(&self, by: By) -> u64 {
        self.guest_tsc(by == By::Host)
    }

    fn is_tsc_protected(&self) -> bool {
        self.has_protected_tsc()
    }

    fn synchronise_tsc(&self, tsc: u64) {
        self.synchronise_guest_tsc(tsc)
    }

    fn tsc_adjustment(&self, tsc: u64) -> u64 {
        self.l1_tsc_offset_for(tsc)
            .wrapping_sub(self.l1_tsc_offset())
    }

    fn adjust_tsc_offset(&self, by: u64) {
        self.set_l1_tsc_offset(self.l1_tsc_offset().wrapping_add(by))
    }

    fn wall_clock(&self) -> u64 {
        self.vm().wall_clock_address()
    }

    fn set_wall_clock(&self, address: u64) {
        self.vm().set_wall_clock_address(address);
        if address != 0 {
            self.vm().write_wall_clock(address);
        }
    }

    fn boot_clock_is_old(&self) -> bool {
        self.vm().boot_clock_is_old()
    }

    fn set_boot_clock_is_old(&self, old: bool) {
        self.vm().set_boot_clock_is_old(old)
    }

    fn set_clock_address(&self, address: Option<u64>) {
        self.set_clock(address)
    }

    fn set_async_pf_address(&self, address: u64) -> Result {
        self.set_async_pf(address).map_err(|_| INVALID)
    }

    fn wake_async_pf(&self) {
        self.wake_all_async_pf()
    }

    fn clear_async_pf(&self) {
        self.forget_async_pf()
    }

    fn set_async_pf_vector(&self, vector: u8) {
        self.set_async_pf_vec(vector)
    }

    fn acknowledge_async_pf(&self) {
        self.next_async_pf()
    }

    fn set_xfd(&self, xfd: u64) {
        self.set_xfd_mask(xfd)
    }

    fn report_unimplemented(&self, index: u32, data: u64) {
        self.log_unimplemented(index, data);
    }
}

impl Excuses for Vcpu {
    #[inline]
    fn ignores_unknown(&self) -> bool {
        Host.ignores_unknown()
    }

    fn is_listed(&self, register: &Register, index: u32) -> bool {
        Host.is_listed(register, index)
    }

    fn report(&self, report: Report, index: u32, data: u64) {
        Host.report(report, index, data);
    }
}

/// Whether the CPU has an MSR does not change, and a read that faults costs a thousand others.
static PROBED: [Atomic<u32>; NR_LISTED] = [const { Atomic::new(0) }; NR_LISTED];
const PROBED_HAS: u32 = 1;
const PROBED_LACKS: u32 = 2;

/// Whether the vendor module switches `IA32_TSC_AUX`, which it does if the CPU has it.
static TSC_AUX: Atomic<u32> = Atomic::new(0);

/// What is known of the CPU, or found out now.
#[inline]
fn probe(probed: &Atomic<u32>, has: impl FnOnce() -> bool) -> bool {
    match probed.load(Relaxed) {
        PROBED_HAS => true,
        PROBED_LACKS => false,
        // If others find out at the same time, they find the same.
        _ => {
            let has = has();

            probed.store(if has { PROBED_HAS } else { PROBED_LACKS }, Relaxed);
            has
        }
    }
}

/// The place of an MSR in [`PROBED`], which has one for every MSR that is declared up to there.
fn probed_of(register: &Register, index: u32) -> Option<&'static Atomic<u32>> {
    let offset = index.wrapping_sub(register.first) as usize;

    PROBED.get(usize::from(register.list_position?).checked_add(offset)?)
}

/// The host, whose vendor module is loaded as long as anybody can ask.
pub(crate) struct Host;

impl lists::Host for Host {
    fn has(&self, register: &Register, index: u32) -> bool {
        let has = || host::read(index).is_some();

        match probed_of(register, index) {
            Some(probed) => probe(probed, has),
            None => has(),
        }
    }

    fn microcode_revision(&self) -> u64 {
        host::read(IA32_UCODE_REV).unwrap_or(0)
    }

    fn offers(&self, feature: Feature) -> bool {
        host::offers(cpuid_bit(feature))
    }

    fn offers_mpx(&self) -> bool {
        host::offers_mpx()
    }

    fn offers_xss(&self) -> bool {
        host::supported().xss != 0
    }

    fn traces(&self, trace: Trace) -> bool {
        match trace {
            Trace::Any => true,
            Trace::Cr3Filtering => host::trace::filters_cr3(),
            Trace::Output => host::trace::has_output(),
            Trace::Ranges(above) => above < host::trace::ranges(),
        }
    }

    fn has_pmu(&self) -> bool {
        host::has_pmu()
    }

    fn counters(&self, fixed: bool) -> u32 {
        host::pmu_counters(fixed)
    }

    fn arch_capabilities(&self) -> u64 {
        host::arch_capabilities()
    }

    fn perf_capabilities(&self) -> u64 {
        host::supported().perf_capabilities
    }

    fn emulates(&self, index: u32) -> bool {
        host::vendor_emulates(index)
    }

    fn vendor_feature(&self, index: u32) -> Result<u64> {
        host::vendor_feature(index)
    }
}

impl Excuses for Host {
    #[inline]
    fn ignores_unknown(&self) -> bool {
        host::ignores_unknown_msrs()
    }

    fn is_listed(&self, register: &Register, index: u32) -> bool {
        lists::is_listed(self, register, index)
    }

    fn report(&self, report: Report, index: u32, data: u64) {
        match report {
            Report::Unhandled(way) => host::log_unhandled(way == Way::Write, index, data),
            Report::Ignored(way) => host::log_ignored(way == Way::Write, index, data),
        }
    }
}
