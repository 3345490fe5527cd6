// SPDX-License-Identifier: GPL-2.0

//! How an MSR is read and written.
//!
//! [`super::registers`] declares the rules of each MSR. This module applies them to any vCPU that
//! implements [`Cpu`].
//!
//! [`read`] and [`write`] perform all steps of an access:
//!
//! 1. the checks that precede the vendor module,
//! 2. the vendor module, if it serves the access; the remaining steps are skipped then,
//! 3. the permission to access the MSR,
//! 4. the value,
//! 5. for an unknown MSR, whether the access succeeds nevertheless.
//!
//! [`read_existing`] and [`write_existing`] omit the last step. [`read_common`] and
//! [`write_common`] perform only steps 3 and 4: the vendor module calls them for MSRs that it does
//! not serve itself.

mod cet;
mod checks;
pub(crate) mod efer;
pub(crate) mod judged;
mod machine_check;
mod paravirtual;
mod speculation;
mod stored;
mod time;

pub(crate) use stored::is_pat;

use self::checks::{
    check_permission,
    pre_check_read,
    pre_check_write, //
};
use super::{
    cpu::{
        Cpu,
        Leniency,
        Report,
        Request, //
    },
    exit::{
        Denial,
        INVALID,
        UNSUPPORTED, //
    },
    registers::{
        lookup,
        Feature,
        Field,
        Permission,
        PreCheck,
        Pv,
        Read,
        Register,
        Write, //
    },
};

/// The range from which user space can choose the MSR that sets up a Xen guest's hypercall page.
/// Only guest writes have that effect: user space has an ioctl for it.
pub(super) const XEN: core::ops::RangeInclusive<u32> = 0x4000_0000..=0x4fff_ffff;

/// The result of an access. A [`Denial`] is one of KVM's reasons, e.g. [`UNSUPPORTED`] if the MSR
/// does not exist, or an errno.
pub(crate) type Result<T = ()> = core::result::Result<T, Denial>;

/// Who accesses an MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initiator {
    /// The guest, or KVM on its behalf, e.g. in nested VM-entry.
    Guest,
    /// User space, or KVM itself. Fewer checks apply.
    Host,
}

/// The kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// RDMSR, or another access that reads.
    Read,
    /// WRMSR, or another access that writes.
    Write,
}

/// Reads an MSR. An unknown MSR reads as 0 if user space reads it and it is listed, or with
/// `ignore_msrs`.
#[inline(always)]
pub(crate) fn read<C: Cpu>(cpu: &C, index: u32, initiator: Initiator) -> Result<u64> {
    read_register(cpu, lookup(index), index, initiator)
}

/// Does what [`read`] does, given the MSR's declaration.
#[inline(always)]
pub(crate) fn read_register<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    initiator: Initiator,
) -> Result<u64> {
    if let Some(read) = read_simple(cpu, register, index, initiator) {
        return read;
    }
    read_fully(cpu, register, index, initiator)
}

/// Does what [`read_fully`] does for the frequent kinds of MSRs, or returns [`None`] for the others.
#[inline(always)]
pub(crate) fn read_simple<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    initiator: Initiator,
) -> Option<Result<u64>> {
    if !reads_simply(cpu, register) {
        return None;
    }
    match register.read {
        Read::Field(field) => Some(Ok(cpu.field(field))),
        Read::HyperV => match cpu.read_hyperv(index, initiator) {
            Ok(value) => Some(Ok(value)),
            Err(UNSUPPORTED) => Some(tolerate_read(cpu, register, index, initiator)),
            Err(denial) => Some(Err(denial)),
        },
        Read::Constant(value) => Some(Ok(value)),
        _ => None,
    }
}

/// Does what [`read_register`] does, without the shortcut.
#[inline(always)]
pub(crate) fn read_fully<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    initiator: Initiator,
) -> Result<u64> {
    match read_declared(cpu, register, index, initiator) {
        Ok(value) => Ok(value),
        Err(UNSUPPORTED) => tolerate_read(cpu, register, index, initiator),
        Err(denial) => Err(denial),
    }
}

/// Decides a read of an unknown MSR: it may read as 0.
#[inline(always)]
fn tolerate_read<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    initiator: Initiator,
) -> Result<u64> {
    tolerate(cpu, register, index, 0, initiator, Access::Read).map(|()| 0)
}

/// Whether an MSR is of a frequent kind, and the vCPU in no state that needs more checks.
#[inline(always)]
pub(crate) fn reads_simply<C: Cpu>(cpu: &C, register: &Register) -> bool {
    register.is_simple_read && !cpu.is_unusual()
}

/// Does what [`read_simple`] does, given that [`reads_simply`], if the value is only loaded.
#[inline(always)]
pub(crate) fn load<C: Cpu>(cpu: &C, register: &Register) -> Option<u64> {
    match register.read {
        Read::Field(field) => Some(cpu.field(field)),
        Read::Constant(value) => Some(value),
        _ => None,
    }
}

/// Reads an MSR; an unknown one is always denied.
pub(crate) fn read_existing<C: Cpu>(cpu: &C, index: u32, initiator: Initiator) -> Result<u64> {
    read_declared(cpu, lookup(index), index, initiator)
}

/// Does what [`read_existing`] does, given the MSR's declaration.
#[inline(always)]
pub(crate) fn read_declared<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    initiator: Initiator,
) -> Result<u64> {
    if register.pre_checks_reads {
        pre_check_read(cpu, register.pre_check, initiator)?;
    }
    // Only the vendor module knows which MSRs of an encrypted guest can be accessed.
    if register.vendor.reads(cpu.vendor())
        || cpu.is_protected()
        || register.vendor.reads_nested(cpu.vendor()) && cpu.is_nested()
    {
        return cpu.vendor_read(index, initiator);
    }
    read_own(cpu, register, index, initiator)
}

/// Reads an MSR for the vendor module, which does not serve it.
pub(crate) fn read_common<C: Cpu>(cpu: &C, index: u32, initiator: Initiator) -> Result<u64> {
    read_own(cpu, lookup(index), index, initiator)
}

#[inline(never)]
fn read_own<C: Cpu>(cpu: &C, register: &Register, index: u32, initiator: Initiator) -> Result<u64> {
    if register.read_permission != Permission::Everybody {
        check_permission(cpu, &register.read_permission, initiator)?;
    }
    match register.read {
        Read::Field(field) => Ok(cpu.field(field)),
        Read::Constant(value) => Ok(value),
        Read::HyperV => cpu.read_hyperv(index, initiator),
        Read::Unsupported if cpu.pmu_has(index) => cpu.pmu_read(index, initiator),
        Read::Unsupported => Err(UNSUPPORTED),
        Read::LegacyPmu if cpu.pmu_has(index) => cpu.pmu_read(index, initiator),
        Read::LegacyPmu => Ok(0),
        Read::WallClock => Ok(cpu.wall_clock()),
        Read::Tsc => Ok(cpu.tsc(initiator)),
        Read::PlatformInfo if initiator == Initiator::Guest && !cpu.may_read_platform_info() => {
            Err(INVALID)
        }
        Read::PlatformInfo => Ok(cpu.field(Field::PlatformInfo)),
        Read::Xss if initiator == Initiator::Guest && !cpu.has_xsaves() => Err(INVALID),
        Read::Xss => Ok(cpu.field(Field::Xss)),
        Read::MachineCheckCtl => machine_check::read_ctl(cpu, initiator),
        Read::MachineCheckBank => machine_check::read_bank(cpu, index),
        Read::MachineCheckCtl2 => machine_check::read_ctl2(cpu, index, initiator),
        Read::Mtrr => cpu.read_mtrr(index),
        Read::X2apic => cpu.read_x2apic(index),
        Read::TscDeadline => Ok(cpu.tsc_deadline()),
        Read::Xstate => Ok(cpu.read_xstate(index)),
        Read::Xfd => Ok(cpu.xfd()),
    }
}

/// Writes an MSR. The write of an unknown MSR succeeds if user space writes 0 and it is listed, or
/// with `ignore_msrs`.
#[inline(always)]
pub(crate) fn write<C: Cpu>(cpu: &C, index: u32, data: u64, initiator: Initiator) -> Result {
    write_register(cpu, lookup(index), index, data, initiator)
}

/// Does what [`write`] does, given the MSR's declaration.
#[inline(always)]
pub(crate) fn write_register<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    data: u64,
    initiator: Initiator,
) -> Result {
    // A shortcut, as in `read_register()`.
    if let Some(written) = write_simple(cpu, register, data, initiator) {
        return written;
    }
    match write_declared(cpu, register, index, data, initiator) {
        Err(UNSUPPORTED) => tolerate(cpu, register, index, data, initiator, Access::Write),
        written => written,
    }
}

/// Whether an MSR's value is only stored or dropped, see [`reads_simply`].
#[inline(always)]
pub(crate) fn writes_simply<C: Cpu>(cpu: &C, register: &Register) -> bool {
    register.is_simple_write && !cpu.is_unusual()
}

/// Writes an MSR for the guest, given that [`writes_simply`]. Returns false, and writes nothing, if
/// the value has to be checked.
#[inline(always)]
pub(crate) fn store_unchecked<C: Cpu>(cpu: &C, register: &Register, data: u64) -> bool {
    match register.write {
        Write::Field(field) => cpu.set_field(field, data),
        Write::HostField(_) | Write::Ignore => (),
        _ => return false,
    }
    true
}

/// Does what [`write_register`] does if [`writes_simply`], or returns [`None`].
#[inline(always)]
pub(crate) fn write_simple<C: Cpu>(
    cpu: &C,
    register: &Register,
    data: u64,
    initiator: Initiator,
) -> Option<Result> {
    writes_simply(cpu, register).then(|| store(cpu, register, data, initiator))
}

/// Does what [`write_register`] does, or returns [`None`] if the engine has to check anything before
/// the MSR is written.
#[inline(always)]
pub(crate) fn write_unchecked<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    data: u64,
    initiator: Initiator,
) -> Option<Result> {
    if register.vendor.writes_unchecked(cpu.vendor()) {
        return Some(match cpu.vendor_write(index, data, initiator) {
            Err(UNSUPPORTED) => tolerate(cpu, register, index, data, initiator, Access::Write),
            written => written,
        });
    }
    write_simple(cpu, register, data, initiator)
}

/// Writes an MSR; an unknown one is always denied.
pub(crate) fn write_existing<C: Cpu>(
    cpu: &C,
    index: u32,
    data: u64,
    initiator: Initiator,
) -> Result {
    write_declared(cpu, lookup(index), index, data, initiator)
}

/// Does what [`write_existing`] does, given the MSR's declaration.
#[inline(always)]
pub(crate) fn write_declared<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    mut data: u64,
    initiator: Initiator,
) -> Result {
    if register.pre_check != PreCheck::None {
        data = pre_check_write(cpu, register.pre_check, data, initiator)?;
    }
    // Only the vendor module knows which MSRs of an encrypted guest can be accessed.
    if register.vendor.writes(cpu.vendor()) || cpu.is_protected() {
        return cpu.vendor_write(index, data, initiator);
    }
    write_own(cpu, register, index, data, initiator)
}

/// Writes an MSR for the vendor module, which does not serve it.
#[inline]
pub(crate) fn write_common<C: Cpu>(cpu: &C, index: u32, data: u64, initiator: Initiator) -> Result {
    let register = lookup(index);

    if register.is_stored {
        return store_value(cpu, register, data);
    }
    write_own(cpu, register, index, data, initiator)
}

/// Writes an MSR whose value is only stored or dropped.
#[inline(always)]
fn store<C: Cpu>(cpu: &C, register: &Register, data: u64, initiator: Initiator) -> Result {
    if let Write::HostField(field) = register.write {
        if initiator == Initiator::Host {
            cpu.set_field(field, data);
        }
        return Ok(());
    }
    store_value(cpu, register, data)
}

/// Writes an MSR whose value is stored or dropped, whoever writes it.
#[inline(always)]
fn store_value<C: Cpu>(cpu: &C, register: &Register, data: u64) -> Result {
    match register.write {
        Write::Field(field) => cpu.set_field(field, data),
        Write::Pat => return stored::write_pat(cpu, data),
        _ => (),
    }
    Ok(())
}

#[inline(never)]
fn write_own<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    data: u64,
    initiator: Initiator,
) -> Result {
    if initiator == Initiator::Guest && XEN.contains(&index) {
        if let Some(written) = cpu.write_xen_hypercall_page(index, data) {
            return written;
        }
    }
    if register.write_permission != Permission::Everybody {
        check_permission(cpu, &register.write_permission, initiator)?;
    }
    match register.write {
        Write::Field(_) | Write::HostField(_) | Write::Ignore | Write::Pat => {
            return store(cpu, register, data, initiator);
        }
        Write::Drop => cpu.report_unimplemented(index, data),
        Write::Zero if data != 0 => {
            cpu.report_unimplemented(index, data);
            return Err(INVALID);
        }
        Write::Zero => (),
        Write::Reserved(field, reserved) => {
            if data & reserved != 0 {
                return Err(INVALID);
            }
            cpu.set_field(field, data);
        }
        Write::Unsupported if cpu.pmu_has(index) => return cpu.pmu_write(index, data, initiator),
        Write::Unsupported => return Err(UNSUPPORTED),
        Write::LegacyPmu if cpu.pmu_has(index) => return cpu.pmu_write(index, data, initiator),
        Write::LegacyPmu if data != 0 => cpu.report_unimplemented(index, data),
        Write::LegacyPmu => (),
        Write::HyperV => return cpu.write_hyperv(index, data, initiator),
        Write::Mtrr => return cpu.write_mtrr(index, data),
        Write::X2apic => return cpu.write_x2apic(index, data),
        Write::TscDeadline => cpu.set_tsc_deadline(data),
        Write::Xstate => cpu.write_xstate(index, data),
        Write::Efer => return efer::write(cpu, data, initiator),
        Write::ApicBase => return cpu.set_apic_base(data, initiator),
        Write::Tsc => time::write_tsc(cpu, data, initiator),
        Write::TscAdjust => time::write_tsc_adjust(cpu, data, initiator),
        Write::MiscEnable => return stored::write_misc_enable(cpu, data, initiator),
        Write::PerfCapabilities => return stored::write_perf_capabilities(cpu, data),
        Write::PredCmd => return speculation::write_pred_cmd(cpu, data, initiator),
        Write::FlushCmd => return speculation::write_flush_cmd(cpu, data, initiator),
        Write::Xss => return stored::write_xss(cpu, data),
        Write::Xfd => return stored::write_xfd(cpu, data),
        Write::XfdErr => return stored::write_xfd_err(cpu, data),
        Write::Hwcr => return stored::write_hwcr(cpu, index, data),
        Write::MiscFeaturesEnables => return stored::write_misc_features_enables(cpu, data),
        Write::MachineCheckCtl => return machine_check::write_ctl(cpu, data, initiator),
        Write::MachineCheckBank => return machine_check::write_bank(cpu, index, data, initiator),
        Write::MachineCheckCtl2 => return machine_check::write_ctl2(cpu, index, data, initiator),
        Write::WallClock => cpu.set_wall_clock(data),
        Write::SystemTime { old } => paravirtual::write_system_time(cpu, data, old, initiator),
        Write::AsyncPfEn => return paravirtual::write_async_pf_en(cpu, data),
        Write::AsyncPfInt => return paravirtual::write_async_pf_int(cpu, data),
        Write::AsyncPfAck => paravirtual::write_async_pf_ack(cpu, data),
        Write::StealTime => return paravirtual::write_steal_time(cpu, data),
        Write::PvEoi => return cpu.set_pv_eoi(data),
    }
    Ok(())
}

/// Returns whether the guest's FPU state must be loaded for an access: the MSR is part of that
/// state, and the vCPU has the MSR.
pub(crate) fn needs_fpu<C: Cpu>(cpu: &C, register: &Register) -> bool {
    register.is_xstate && pre_check_read(cpu, register.pre_check, Initiator::Host).is_ok()
}

/// Decides whether an access to an unknown MSR succeeds nevertheless.
///
/// User space saves and restores all listed MSRs, even if the vCPU lacks some of them. So a listed
/// MSR that is unknown reads as 0 for user space, which may write 0 back. All other accesses to
/// unknown MSRs succeed only with `ignore_msrs`.
///
/// # Errors
///
/// [`UNSUPPORTED`], if the access fails.
#[cold]
pub(crate) fn tolerate<L: Leniency>(
    leniency: &L,
    register: &Register,
    index: u32,
    data: u64,
    initiator: Initiator,
    access: Access,
) -> Result {
    if initiator == Initiator::Host && data == 0 && leniency.is_listed(register, index) {
        return Ok(());
    }
    if !leniency.ignores_unknown() {
        leniency.report(Report::Unhandled(access), index, data);
        return Err(UNSUPPORTED);
    }
    leniency.report(Report::Ignored(access), index, data);
    Ok(())
}
