// SPDX-License-Identifier: GPL-2.0

//! How an MSR is read and written.
//!
//! What an MSR needs is declared in [`super::registers`]; here is what the declarations mean. The
//! vCPU is whatever implements [`Cpu`]: KVM's in the module, a model of one in tests.

mod cet;
pub(crate) mod efer;
mod machine_check;
mod paravirtual;
mod speculation;
mod stored;
mod time;

pub(crate) use stored::is_pat;

use super::{
    exit::{
        Denial,
        INVALID,
        UNSUPPORTED, //
    },
    registers::{
        lookup,
        Feature,
        Field,
        Gate,
        Guard,
        Pv,
        Read,
        Register,
        Vendor,
        Write, //
    },
};

/// Where user space may have put the MSR by which a Xen guest gets its hypercalls. It hides what
/// else is there, and only from the guest: user space's write would take locks.
const XEN: core::ops::RangeInclusive<u32> = 0x4000_0000..=0x4fff_ffff;

/// What came of an access. A denial is one of KVM's reasons, or an errno.
pub(crate) type Result<T = ()> = core::result::Result<T, Denial>;

/// Who accesses an MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The guest, or something on its behalf, like nested VM-entry.
    Guest,
    /// User space, or KVM itself. It is spared some of the checks.
    Host,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Read.
    Read,
    /// Write.
    Write,
}

/// Something to be done before the guest runs again.
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

/// A command to the CPU that the kernel runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// `IA32_PRED_CMD`, with these bits.
    Predict(u64),
    /// `IA32_FLUSH_CMD`: flush the L1 data cache.
    FlushL1d,
}

/// What the log is told of an access to an unknown MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It fails.
    Unhandled(Way),
    /// `ignore_msrs` makes it harmless.
    Ignored(Way),
}

/// What an access to an MSR that does not exist is judged by, be it one of a vCPU or of the host.
pub(crate) trait Excuses {
    /// Whether unknown MSRs do no harm: the parameter `ignore_msrs`.
    fn ignores_unknown(&self) -> bool;
    /// Whether user space is told of an MSR, by one of the lists.
    fn is_listed(&self, register: &Register, index: u32) -> bool;
    /// Tells the log.
    fn report(&self, report: Report, index: u32, data: u64);
}

/// A vCPU as the rules see it.
pub(crate) trait Cpu: Excuses {
    /// A value that KVM keeps for the vCPU.
    fn field(&self, field: Field) -> u64;
    /// Stores such a value.
    fn set_field(&self, field: Field, value: u64);
    /// Whether the guest has a feature.
    fn has(&self, feature: Feature) -> bool;
    /// Whether the guest's CPUID has XSAVES, be it that the guest can use it or not.
    fn has_xsaves(&self) -> bool;
    /// Whether the guest has a paravirtual feature.
    fn has_pv(&self, feature: Pv) -> bool;
    /// Whether the guest's CPUID is that of Intel, or of somebody compatible.
    fn is_intel_compatible(&self) -> bool;
    /// Whether the guest's CPUID is that of AMD, or of somebody compatible.
    fn is_amd_compatible(&self) -> bool;
    /// Whether paging is on.
    fn is_paging(&self) -> bool;
    /// Whether the vCPU is the one with ID 0.
    fn is_boot_cpu(&self) -> bool;
    /// Whether the local APIC is in the kernel.
    fn has_lapic(&self) -> bool;
    /// Whether [`Self::is_nested`] or [`Self::is_protected`].
    #[inline]
    fn is_unusual(&self) -> bool {
        self.is_nested() || self.is_protected()
    }
    /// Whether a guest of the guest runs.
    fn is_nested(&self) -> bool;
    /// Whether the guest's state is encrypted, so that only the vendor module can tell what of
    /// it there is.
    fn is_protected(&self) -> bool;

    /// Whether the CPU that the kernel runs on has a feature.
    fn host_has(&self, feature: Feature) -> bool;
    /// Whether it has indirect branch prediction barriers.
    fn host_has_ibpb(&self) -> bool;
    /// How many bits a linear address has, at most.
    fn address_bits(&self) -> u32;
    /// Whether KVM can have `IA32_TSC_AUX` be the guest's.
    fn has_user_return_tsc_aux(&self) -> bool;
    /// Whether KVM emulates SMM.
    fn has_smm(&self) -> bool;
    /// Whether the kernel accounts for time that a task waits.
    fn has_sched_info(&self) -> bool;
    /// The bits of EFER that KVM supports.
    fn supported_efer(&self) -> u64;
    /// The bits of `IA32_PERF_CAPABILITIES` that KVM supports.
    fn supported_perf_capabilities(&self) -> u64;
    /// The bits of `IA32_XSS` that the guest supports.
    fn supported_xss(&self) -> u64;
    /// The bits of `IA32_XFD` that the guest supports.
    fn supported_xfd(&self) -> u64;
    /// Whether the guest may read `PLATFORM_INFO`.
    fn may_read_platform_info(&self) -> bool;
    /// Whether `MWAIT` in the guest's CPUID has nothing to do with `IA32_MISC_ENABLE`.
    fn misc_enable_is_quirky(&self) -> bool;

    /// The module for the host's kind of virtualisation.
    fn vendor(&self) -> Vendor;
    /// Has that read an MSR.
    fn vendor_read(&self, index: u32, by: By) -> Result<u64>;
    /// Has that write an MSR.
    fn vendor_write(&self, index: u32, data: u64, by: By) -> Result;
    /// Has it set EFER.
    fn vendor_set_efer(&self, efer: u64) -> Result;
    /// Whether the PMU has an MSR.
    fn pmu_has(&self, index: u32) -> bool;
    /// Has the PMU read an MSR.
    fn pmu_read(&self, index: u32, by: By) -> Result<u64>;
    /// Has the PMU write an MSR.
    fn pmu_write(&self, index: u32, data: u64, by: By) -> Result;
    /// Has the PMU take the guest's CPUID and capabilities anew.
    fn refresh_pmu(&self);
    /// Reads a memory type range register.
    fn read_mtrr(&self, index: u32) -> Result<u64>;
    /// Writes a memory type range register.
    fn write_mtrr(&self, index: u32, data: u64) -> Result;
    /// Reads an MSR of the local APIC.
    fn read_x2apic(&self, index: u32) -> Result<u64>;
    /// Writes an MSR of the local APIC.
    fn write_x2apic(&self, index: u32, data: u64) -> Result;
    /// Reads an MSR of Hyper-V.
    fn read_hyperv(&self, index: u32, by: By) -> Result<u64>;
    /// Writes an MSR of Hyper-V.
    fn write_hyperv(&self, index: u32, data: u64, by: By) -> Result;
    /// Reads an MSR from the guest's FPU state.
    fn read_xstate(&self, index: u32) -> u64;
    /// Writes an MSR to the guest's FPU state.
    fn write_xstate(&self, index: u32, data: u64);
    /// When the local APIC's timer expires.
    fn tsc_deadline(&self) -> u64;
    /// Sets when the local APIC's timer expires.
    fn set_tsc_deadline(&self, data: u64);
    /// Which features of the FPU fault.
    fn xfd(&self) -> u64;
    /// Has the local APIC take `IA32_APICBASE`.
    fn set_apic_base(&self, data: u64, by: By) -> Result;
    /// Has the local APIC take `KVM_PV_EOI_EN`.
    fn set_pv_eoi(&self, data: u64) -> Result;
    /// Writes the page of hypercalls, if this is the MSR that a Xen guest has for it.
    fn write_xen_hypercall_page(&self, index: u32, data: u64) -> Option<Result>;

    /// Has KVM do something before the guest runs again.
    fn request(&self, request: Request);
    /// Commands the CPU.
    fn command(&self, command: Command);
    /// Has the MMU see to bits of EFER that changed.
    fn efer_changed(&self, old: u64, new: u64);
    /// Has bits of CPUID that follow registers be worked out anew.
    fn cpuid_changed(&self);

    /// A value of a machine check bank: `IA32_MCi_CTL` and the three after it.
    fn mce_bank(&self, offset: usize) -> u64;
    /// Stores such a value.
    fn set_mce_bank(&self, offset: usize, value: u64);
    /// The value of `IA32_MCi_CTL2`.
    fn mce_ctl2(&self, bank: usize) -> u64;
    /// Stores such a value.
    fn set_mce_ctl2(&self, bank: usize, value: u64);

    /// The TSC as the guest sees it, or, for user space, as an L1 guest does.
    fn tsc(&self, by: By) -> u64;
    /// Whether the guest's TSC is out of KVM's hands.
    fn is_tsc_protected(&self) -> bool;
    /// Has KVM make the TSC this, in step with those of other vCPUs.
    fn synchronise_tsc(&self, tsc: u64);
    /// The offset that makes the TSC this, less the present offset.
    fn tsc_adjustment(&self, tsc: u64) -> u64;
    /// Adds to the TSC's offset.
    fn adjust_tsc_offset(&self, by: u64);
    /// The guest's address of the wall clock.
    fn wall_clock(&self) -> u64;
    /// Stores that address, and the time there unless it is 0.
    fn set_wall_clock(&self, address: u64);
    /// Whether the boot CPU's clock is that of the old MSR.
    fn boot_clock_is_old(&self) -> bool;
    /// Stores that.
    fn set_boot_clock_is_old(&self, old: bool);
    /// Has the vCPU's clock be at the guest's address, or nowhere.
    fn set_clock_address(&self, address: Option<u64>);
    /// Has page faults be told of at the guest's address.
    fn set_async_pf_address(&self, address: u64) -> Result;
    /// Wakes all who wait for pages.
    fn wake_async_pf(&self);
    /// Forgets the pages that are waited for.
    fn clear_async_pf(&self);
    /// Stores the vector by which the guest is told that pages are there.
    fn set_async_pf_vector(&self, vector: u8);
    /// The guest has taken note of a page, so there may be another.
    fn acknowledge_async_pf(&self);
    /// Stores which features of the FPU fault.
    fn set_xfd(&self, xfd: u64);

    /// Tells the log of a write that is dropped or refused.
    fn report_unimplemented(&self, index: u32, data: u64);
}

/// Reads an MSR.
///
/// # Errors
///
/// The reason for which it can't be read; [`UNSUPPORTED`] if it does not exist.
#[inline]
pub(crate) fn read<C: Cpu>(cpu: &C, index: u32, by: By) -> Result<u64> {
    read_as(cpu, lookup(index), index, by)
}

#[inline(always)]
fn read_as<C: Cpu>(cpu: &C, register: &Register, index: u32, by: By) -> Result<u64> {
    if register.gates_reads {
        check_read(cpu, register.gate, by)?;
    }
    if is_vendors(cpu, register) {
        return cpu.vendor_read(index, by);
    }
    read_own(cpu, register, index, by)
}

#[inline]
fn is_vendors<C: Cpu>(cpu: &C, register: &Register) -> bool {
    let vendor = cpu.vendor();

    register.vendor.reads(vendor)
        || cpu.is_protected()
        || register.vendor.reads_nested(vendor) && cpu.is_nested()
}

/// Reads an MSR that the vendor module does not have.
///
/// # Errors
///
/// As [`read`].
#[inline]
pub(crate) fn read_common<C: Cpu>(cpu: &C, index: u32, by: By) -> Result<u64> {
    read_own(cpu, lookup(index), index, by)
}

#[inline(always)]
fn read_own<C: Cpu>(cpu: &C, register: &Register, index: u32, by: By) -> Result<u64> {
    if register.read_guard != Guard::None {
        check_guard(cpu, register.read_guard, by)?;
    }
    read_value(cpu, register, index, by)
}

/// Reads an MSR that nothing keeps from being read.
#[inline(always)]
fn read_value<C: Cpu>(cpu: &C, register: &Register, index: u32, by: By) -> Result<u64> {
    match register.read {
        Read::Field(field) => Ok(cpu.field(field)),
        Read::Constant(value) => Ok(value),
        Read::Unsupported if cpu.pmu_has(index) => cpu.pmu_read(index, by),
        Read::Unsupported => Err(UNSUPPORTED),
        Read::LegacyPmu if cpu.pmu_has(index) => cpu.pmu_read(index, by),
        Read::LegacyPmu => Ok(0),
        Read::WallClock => Ok(cpu.wall_clock()),
        Read::Tsc => Ok(cpu.tsc(by)),
        Read::PlatformInfo if by == By::Guest && !cpu.may_read_platform_info() => Err(INVALID),
        Read::PlatformInfo => Ok(cpu.field(Field::PlatformInfo)),
        Read::Xss if by == By::Guest && !cpu.has_xsaves() => Err(INVALID),
        Read::Xss => Ok(cpu.field(Field::Xss)),
        Read::MachineCheckCtl => machine_check::read_ctl(cpu, by),
        Read::MachineCheckBank => machine_check::read_bank(cpu, index),
        Read::MachineCheckCtl2 => machine_check::read_ctl2(cpu, index, by),
        Read::HyperV => cpu.read_hyperv(index, by),
        Read::Mtrr => cpu.read_mtrr(index),
        Read::X2apic => cpu.read_x2apic(index),
        Read::TscDeadline => Ok(cpu.tsc_deadline()),
        Read::Xstate => Ok(cpu.read_xstate(index)),
        Read::Xfd => Ok(cpu.xfd()),
    }
}

/// Writes an MSR.
///
/// # Errors
///
/// The reason for which it can't be written; [`UNSUPPORTED`] if it does not exist.
#[inline]
pub(crate) fn write<C: Cpu>(cpu: &C, index: u32, data: u64, by: By) -> Result {
    write_as(cpu, lookup(index), index, data, by)
}

#[inline]
fn write_as<C: Cpu>(cpu: &C, register: &Register, index: u32, mut data: u64, by: By) -> Result {
    if register.gates_writes {
        data = check_write(cpu, register.gate, data, by)?;
    }
    if register.vendor.writes(cpu.vendor()) || cpu.is_protected() {
        return cpu.vendor_write(index, data, by);
    }
    write_own(cpu, register, index, data, by)
}

/// Writes an MSR that the vendor module does not have.
///
/// # Errors
///
/// As [`write`].
#[inline(always)]
pub(crate) fn write_common<C: Cpu>(cpu: &C, index: u32, data: u64, by: By) -> Result {
    let register = lookup(index);

    // The most frequent of those that vendor modules have a part in.
    if register.write == Write::Pat {
        return stored::write_pat(cpu, data);
    }
    write_own(cpu, register, index, data, by)
}

#[inline(always)]
fn write_own<C: Cpu>(cpu: &C, register: &Register, index: u32, data: u64, by: By) -> Result {
    if by == By::Guest && XEN.contains(&index) {
        if let Some(written) = cpu.write_xen_hypercall_page(index, data) {
            return written;
        }
    }
    if register.write_guard != Guard::None {
        check_guard(cpu, register.write_guard, by)?;
    }
    match register.write {
        Write::Field(field) => cpu.set_field(field, data),
        Write::Ignore => (),
        Write::Drop => cpu.report_unimplemented(index, data),
        Write::Zero if data != 0 => {
            cpu.report_unimplemented(index, data);
            return Err(INVALID);
        }
        Write::Zero => (),
        Write::HostField(field) => {
            if by == By::Host {
                cpu.set_field(field, data);
            }
        }
        Write::Reserved(field, reserved) => {
            if data & reserved != 0 {
                return Err(INVALID);
            }
            cpu.set_field(field, data);
        }
        Write::Unsupported | Write::LegacyPmu => {
            return write_by_pmu(cpu, register, index, data, by);
        }
        Write::HyperV => return cpu.write_hyperv(index, data, by),
        Write::Mtrr => return cpu.write_mtrr(index, data),
        Write::X2apic => return cpu.write_x2apic(index, data),
        Write::TscDeadline => cpu.set_tsc_deadline(data),
        Write::Xstate => cpu.write_xstate(index, data),
        Write::Efer => return efer::write(cpu, data, by),
        Write::Pat => return stored::write_pat(cpu, data),
        Write::ApicBase => return cpu.set_apic_base(data, by),
        Write::Tsc => time::write_tsc(cpu, data, by),
        Write::TscAdjust => time::write_tsc_adjust(cpu, data, by),
        Write::MiscEnable => return stored::write_misc_enable(cpu, data, by),
        Write::PerfCapabilities => return stored::write_perf_capabilities(cpu, data),
        Write::PredCmd => return speculation::write_pred_cmd(cpu, data, by),
        Write::FlushCmd => return speculation::write_flush_cmd(cpu, data, by),
        Write::Xss => return stored::write_xss(cpu, data),
        Write::Xfd => return stored::write_xfd(cpu, data),
        Write::XfdErr => return stored::write_xfd_err(cpu, data),
        Write::Hwcr => return stored::write_hwcr(cpu, index, data),
        Write::MiscFeaturesEnables => return stored::write_misc_features_enables(cpu, data),
        Write::MachineCheckCtl => return machine_check::write_ctl(cpu, data, by),
        Write::MachineCheckBank => return machine_check::write_bank(cpu, index, data, by),
        Write::MachineCheckCtl2 => return machine_check::write_ctl2(cpu, index, data, by),
        Write::WallClock => cpu.set_wall_clock(data),
        Write::SystemTime { old } => paravirtual::write_system_time(cpu, data, old, by),
        Write::AsyncPfEn => return paravirtual::write_async_pf_en(cpu, data),
        Write::AsyncPfInt => return paravirtual::write_async_pf_int(cpu, data),
        Write::AsyncPfAck => paravirtual::write_async_pf_ack(cpu, data),
        Write::StealTime => return paravirtual::write_steal_time(cpu, data),
        Write::PvEoi => return cpu.set_pv_eoi(data),
    }
    Ok(())
}

fn write_by_pmu<C: Cpu>(cpu: &C, register: &Register, index: u32, data: u64, by: By) -> Result {
    if cpu.pmu_has(index) {
        return cpu.pmu_write(index, data, by);
    }
    if register.write == Write::Unsupported {
        return Err(UNSUPPORTED);
    }
    if data != 0 {
        cpu.report_unimplemented(index, data);
    }
    Ok(())
}

/// Reads an MSR, and makes good what may be excused of an MSR that does not exist.
///
/// # Errors
///
/// As [`read`].
#[inline(always)]
pub(crate) fn read_excused<C: Cpu>(cpu: &C, index: u32, by: By) -> Result<u64> {
    read_excused_as(cpu, lookup(index), index, by)
}

/// Does what [`read_excused`] does, to an MSR whose declaration is at hand.
///
/// # Errors
///
/// As [`read`].
#[inline(always)]
pub(crate) fn read_excused_as<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    by: By,
) -> Result<u64> {
    // Most are like one of these. The long way round comes to the same for all of them.
    if register.plain_read && !cpu.is_unusual() {
        return match register.read {
            Read::Field(field) => Ok(cpu.field(field)),
            Read::Constant(value) => Ok(value),
            Read::HyperV => or_excused_read(cpu.read_hyperv(index, by), cpu, register, index, by),
            _ => read_excused_value(cpu, register, index, by),
        };
    }
    if register.vendor.reads(cpu.vendor()) && opens(cpu, register, by) {
        return or_excused_read(cpu.vendor_read(index, by), cpu, register, index, by);
    }
    if !register.gates_reads
        && !cpu.is_unusual()
        && check_guard(cpu, register.read_guard, by).is_ok()
    {
        return match register.read {
            Read::Field(field) => Ok(cpu.field(field)),
            _ => read_excused_value(cpu, register, index, by),
        };
    }
    read_excused_with_care(cpu, register, index, by)
}

#[inline(never)]
fn read_excused_value<C: Cpu>(cpu: &C, register: &Register, index: u32, by: By) -> Result<u64> {
    or_excused_read(
        read_value(cpu, register, index, by),
        cpu,
        register,
        index,
        by,
    )
}

/// Whether a gate surely lets a read pass, by a look.
#[inline(always)]
fn opens<C: Cpu>(cpu: &C, register: &Register, by: By) -> bool {
    !register.gates_reads
        || register.gate == Gate::TscAux && by == By::Host && cpu.has_user_return_tsc_aux()
}

#[inline(never)]
fn read_excused_with_care<C: Cpu>(cpu: &C, register: &Register, index: u32, by: By) -> Result<u64> {
    or_excused_read(read_as(cpu, register, index, by), cpu, register, index, by)
}

/// Makes good what may be excused of a read.
///
/// # Errors
///
/// That of the read.
#[inline(always)]
pub(crate) fn or_excused_read<E: Excuses>(
    read: Result<u64>,
    excuses: &E,
    register: &Register,
    index: u32,
    by: By,
) -> Result<u64> {
    if read != Err(UNSUPPORTED) {
        return read;
    }
    excuse(excuses, register, index, 0, by, Way::Read).map(|()| 0)
}

/// Writes an MSR, and makes good what may be excused of an MSR that does not exist.
///
/// # Errors
///
/// As [`write`].
#[inline(always)]
pub(crate) fn write_excused<C: Cpu>(cpu: &C, index: u32, data: u64, by: By) -> Result {
    write_excused_as(cpu, lookup(index), index, data, by)
}

/// Does what [`write_excused`] does, to an MSR whose declaration is at hand.
///
/// # Errors
///
/// As [`write`].
#[inline(always)]
pub(crate) fn write_excused_as<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    data: u64,
    by: By,
) -> Result {
    if register.plain_write && !cpu.is_unusual() {
        match register.write {
            Write::Field(field) => {
                cpu.set_field(field, data);
                return Ok(());
            }
            Write::HostField(_) if by == By::Guest => return Ok(()),
            // A guest's could be the one for Xen.
            Write::Unsupported if by == By::Host => {
                return write_unknown(cpu, register, index, data, by)
            }
            _ => (),
        }
    } else if !register.gates_writes && register.vendor.writes(cpu.vendor()) {
        let write = cpu.vendor_write(index, data, by);

        return or_excused_write(write, cpu, register, index, data, by);
    }
    write_excused_with_care(cpu, register, index, data, by)
}

/// Writes an MSR that only the PMU could have.
#[inline(never)]
fn write_unknown<C: Cpu>(cpu: &C, register: &Register, index: u32, data: u64, by: By) -> Result {
    let write = write_by_pmu(cpu, register, index, data, by);

    or_excused_write(write, cpu, register, index, data, by)
}

#[inline(never)]
fn write_excused_with_care<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    data: u64,
    by: By,
) -> Result {
    let write = write_as(cpu, register, index, data, by);

    or_excused_write(write, cpu, register, index, data, by)
}

#[inline(always)]
fn or_excused_write<C: Cpu>(
    write: Result,
    cpu: &C,
    register: &Register,
    index: u32,
    data: u64,
    by: By,
) -> Result {
    if write != Err(UNSUPPORTED) {
        return write;
    }
    excuse(cpu, register, index, data, by, Way::Write)
}

/// Returns whether an MSR is in the guest's FPU state, and the vCPU has it: then that state has to
/// be loaded for an access.
#[inline]
pub(crate) fn needs_fpu<C: Cpu>(cpu: &C, register: &Register) -> bool {
    register.is_xstate && check_read(cpu, register.gate, By::Host).is_ok()
}

/// User space may save all MSRs that it is told of and restore what it got, even if the vCPU's
/// model lacks them. For the others there is a module parameter.
#[cold]
fn excuse<E: Excuses>(
    excuses: &E,
    register: &Register,
    index: u32,
    data: u64,
    by: By,
    way: Way,
) -> Result {
    if by == By::Host && data == 0 && excuses.is_listed(register, index) {
        return Ok(());
    }
    if !excuses.ignores_unknown() {
        excuses.report(Report::Unhandled(way), index, data);
        return Err(UNSUPPORTED);
    }
    excuses.report(Report::Ignored(way), index, data);
    Ok(())
}

#[inline(always)]
fn check_guard<C: Cpu>(cpu: &C, guard: Guard, by: By) -> Result {
    let host = by == By::Host;
    let (allowed, denial) = match guard {
        Guard::None => (true, INVALID),
        Guard::Feature(feature) => (cpu.has(feature), UNSUPPORTED),
        Guard::FeatureElseInvalid(feature) => (cpu.has(feature), INVALID),
        Guard::GuestFeature(feature) => (host || cpu.has(feature), INVALID),
        Guard::HostFeature(feature) => (host && cpu.has(feature), UNSUPPORTED),
        Guard::Pv(feature) => (cpu.has_pv(feature), UNSUPPORTED),
        Guard::Host => (host, INVALID),
        Guard::Smm => (host && cpu.has_smm(), INVALID),
    };

    if allowed {
        Ok(())
    } else {
        Err(denial)
    }
}

fn check_read<C: Cpu>(cpu: &C, gate: Gate, by: By) -> Result {
    match gate {
        Gate::None | Gate::Canonical | Gate::MakeCanonical => Ok(()),
        Gate::TscAux => check_tsc_aux(cpu, by),
        Gate::Cet => cet::check(cpu),
        Gate::ShadowStackPointer | Gate::ShadowStackTable => cet::check_shadow_stack(cpu),
        Gate::GuestShadowStackPointer if by == By::Guest => Err(INVALID),
        Gate::GuestShadowStackPointer => cet::check_shadow_stack(cpu),
    }
}

/// Returns the value to be written.
fn check_write<C: Cpu>(cpu: &C, gate: Gate, data: u64, by: By) -> Result<u64> {
    match gate {
        Gate::None => (),
        Gate::Canonical => check_canonical(cpu, data)?,
        // AMD takes any address, as it has no SYSENTER in 64-bit mode. Intel would fail VM-entry.
        Gate::MakeCanonical => return Ok(canonical(cpu, data)),
        Gate::TscAux => {
            check_tsc_aux(cpu, by)?;
            if cpu.is_intel_compatible() && data >> 32 != 0 {
                return Err(INVALID);
            }
            // AMD ignores the upper half, which reads as zeros.
            return Ok(data & u64::from(u32::MAX));
        }
        Gate::Cet => cet::check_settings(cpu, data)?,
        Gate::GuestShadowStackPointer if by == By::Guest => return Err(INVALID),
        Gate::GuestShadowStackPointer | Gate::ShadowStackPointer => cet::check_pointer(cpu, data)?,
        Gate::ShadowStackTable => cet::check_table(cpu, data)?,
    }
    Ok(data)
}

fn check_tsc_aux<C: Cpu>(cpu: &C, by: By) -> Result {
    let readable = by == By::Host || cpu.has(Feature::Rdtscp) || cpu.has(Feature::Rdpid);

    if cpu.has_user_return_tsc_aux() && readable {
        Ok(())
    } else {
        Err(INVALID)
    }
}

/// The address with its upper bits like the highest that counts.
fn canonical<C: Cpu>(cpu: &C, address: u64) -> u64 {
    let unused = u64::BITS.saturating_sub(cpu.address_bits());

    (address.wrapping_shl(unused) as i64).wrapping_shr(unused) as u64
}

fn check_canonical<C: Cpu>(cpu: &C, address: u64) -> Result {
    if canonical(cpu, address) == address {
        Ok(())
    } else {
        Err(INVALID)
    }
}
