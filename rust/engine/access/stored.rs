// SPDX-License-Identifier: GPL-2.0

//! MSRs whose value is checked and stored.

use super::{
    checks::require,
    Cpu,
    Feature,
    Field,
    Initiator,
    Request,
    Result,
    INVALID,
    UNSUPPORTED, //
};
use crate::engine::registers::index::PLATFORM_INFO_CPUID_FAULT;

/// The bits of the memory types.
const PAT_TYPES: u64 = 0x0707_0707_0707_0707;
const PAT_BIT_1: u64 = 0x0202_0202_0202_0202;

const MISC_ENABLE_EMON: u64 = 1 << 7;
const MISC_ENABLE_BTS_UNAVAIL: u64 = 1 << 11;
const MISC_ENABLE_PEBS_UNAVAIL: u64 = 1 << 12;
const MISC_ENABLE_MWAIT: u64 = 1 << 18;

const HWCR_TLB_CACHE_DIS: u64 = 1 << 3;
const HWCR_FLUSH_FILTER_DIS: u64 = 1 << 6;
const HWCR_IGNNE_EM: u64 = 1 << 8;
const HWCR_MC_STATUS_WR_EN: u64 = 1 << 18;
const HWCR_TSC_FREQ_SEL: u64 = 1 << 24;
const HWCR_CPUID_USER_DIS: u64 = 1 << 35;

/// Makes CPUID raise #GP in user mode. [`PLATFORM_INFO_CPUID_FAULT`] says that it is supported.
const MISC_FEATURES_CPUID_FAULT: u64 = 1 << 0;

/// Returns whether a value is valid for `IA32_PAT`, and for `G_PAT` of a VMCB.
pub(crate) const fn is_pat(data: u64) -> bool {
    // Each byte is a memory type. 0, 1 and 4 to 7 are defined, so bit 1 requires bit 2.
    let required = (data & PAT_BIT_1) << 1;

    data | required == data & PAT_TYPES
}

pub(super) fn write_pat<C: Cpu>(cpu: &C, data: u64) -> Result {
    if !is_pat(data) {
        return refuse();
    }
    cpu.set_field(Field::Pat, data);
    Ok(())
}

/// Tells the compiler that valid values are frequent.
#[cold]
fn refuse() -> Result {
    Err(INVALID)
}

pub(super) fn write_misc_enable<C: Cpu>(cpu: &C, mut data: u64, initiator: Initiator) -> Result {
    let old = cpu.field(Field::MiscEnable);

    if initiator == Initiator::Guest {
        let read_only = MISC_ENABLE_BTS_UNAVAIL | MISC_ENABLE_PEBS_UNAVAIL;

        require((old ^ data) & read_only == 0, INVALID)?;
        // For the guest, the performance monitoring bit is read-only: writes to it are ignored.
        data = data & !MISC_ENABLE_EMON | old & MISC_ENABLE_EMON;
    }
    // CPUID reports MWAIT only while this bit is set. The bit requires SSE3 (`XMM3`), as in the
    // SDM.
    let changes_mwait = (old ^ data) & MISC_ENABLE_MWAIT != 0 && !cpu.misc_enable_is_quirky();

    require(!changes_mwait || cpu.has(Feature::Xmm3), INVALID)?;
    cpu.set_field(Field::MiscEnable, data);
    if changes_mwait {
        cpu.invalidate_cpuid();
    }
    Ok(())
}

pub(super) fn write_perf_capabilities<C: Cpu>(cpu: &C, data: u64) -> Result {
    require(data & !cpu.supported_perf_capabilities() == 0, INVALID)?;
    // KVM can't refresh the PMU once the vCPU has run. User space may still write the same value.
    if cpu.field(Field::PerfCapabilities) != data {
        cpu.set_field(Field::PerfCapabilities, data);
        cpu.refresh_pmu();
        cpu.request(Request::RecalcIntercepts);
    }
    Ok(())
}

pub(super) fn write_xss<C: Cpu>(cpu: &C, data: u64) -> Result {
    require(cpu.has_xsaves(), UNSUPPORTED)?;
    require(data & !cpu.supported_xss() == 0, INVALID)?;
    // CPUID reports the size of the XSAVE area, which depends on this value.
    if cpu.field(Field::Xss) != data {
        cpu.set_field(Field::Xss, data);
        cpu.invalidate_cpuid();
    }
    Ok(())
}

pub(super) fn write_xfd<C: Cpu>(cpu: &C, data: u64) -> Result {
    require(data & !cpu.supported_xfd() == 0, INVALID)?;
    cpu.set_xfd(data);
    Ok(())
}

pub(super) fn write_xfd_err<C: Cpu>(cpu: &C, data: u64) -> Result {
    require(data & !cpu.supported_xfd() == 0, INVALID)?;
    cpu.set_field(Field::XfdErr, data);
    Ok(())
}

pub(super) fn write_hwcr<C: Cpu>(cpu: &C, index: u32, data: u64) -> Result {
    // Firmware and old guests set these bits. They have no effect in a VM.
    let data = data & !(HWCR_TLB_CACHE_DIS | HWCR_FLUSH_FILTER_DIS | HWCR_IGNNE_EM);
    let mut valid = HWCR_MC_STATUS_WR_EN | HWCR_TSC_FREQ_SEL;

    if cpu.has(Feature::CpuidUserDis) {
        valid |= HWCR_CPUID_USER_DIS;
    }
    if data & !valid != 0 {
        cpu.report_unimplemented(index, data);
        return Err(INVALID);
    }
    cpu.set_field(Field::Hwcr, data);
    Ok(())
}

pub(super) fn write_misc_features_enables<C: Cpu>(cpu: &C, data: u64) -> Result {
    let can_fault = cpu.field(Field::PlatformInfo) & PLATFORM_INFO_CPUID_FAULT != 0;

    match data {
        0 => (),
        MISC_FEATURES_CPUID_FAULT if can_fault => (),
        _ => return Err(INVALID),
    }
    cpu.set_field(Field::MiscFeaturesEnables, data);
    Ok(())
}
