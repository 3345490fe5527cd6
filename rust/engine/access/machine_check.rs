// SPDX-License-Identifier: GPL-2.0

//! Machine checks.
//!
//! Source: Intel SDM, chapter "Machine-Check Architecture"; AMD APM, chapter "Machine Check
//! Architecture".

use super::{
    checks::require,
    Cpu,
    Field,
    Initiator,
    Result,
    INVALID, //
};

/// The vCPU has `IA32_MCG_CTL`.
const CAP_CTL_P: u64 = 1 << 8;
/// The vCPU has interrupts for corrected errors, and `IA32_MCi_CTL2` to control them.
const CAP_CMCI_P: u64 = 1 << 10;
const CTL2_CMCI_EN: u64 = 1 << 30;
const CTL2_THRESHOLD: u64 = 0x7fff;
/// In `HWCR`: an AMD guest may write values other than 0 to `IA32_MCi_STATUS`.
const HWCR_STATUS_WR_EN: u64 = 1 << 18;

const FIRST_BANK: u32 = 0x400;
const FIRST_CTL2: u32 = 0x280;
/// `IA32_MCi_CTL`, `_STATUS`, `_ADDR` and `_MISC`.
const PER_BANK: u32 = 4;

/// Checks that the vCPU has a capability. Without it, user space can read the MSR and write 0.
fn check_capability<C: Cpu>(cpu: &C, capability: u64, data: u64, initiator: Initiator) -> Result {
    let has = cpu.field(Field::McgCap) & capability != 0;

    require(has || data == 0 && initiator == Initiator::Host, INVALID)
}

/// The distance of an MSR from `first`, if the vCPU has its bank. There are `per_bank` MSRs for each.
fn offset<C: Cpu>(cpu: &C, index: u32, first: u32, per_bank: u32) -> Result<usize> {
    let banks = (cpu.field(Field::McgCap) & 0xff) as u32;
    let offset = index.wrapping_sub(first);

    require(offset < banks.wrapping_mul(per_bank), INVALID)?;
    Ok(offset as usize)
}

pub(super) fn read_ctl<C: Cpu>(cpu: &C, initiator: Initiator) -> Result<u64> {
    check_capability(cpu, CAP_CTL_P, 0, initiator)?;
    Ok(cpu.field(Field::McgCtl))
}

pub(super) fn write_ctl<C: Cpu>(cpu: &C, data: u64, initiator: Initiator) -> Result {
    check_capability(cpu, CAP_CTL_P, data, initiator)?;
    // The SDM defines only these two values of `IA32_MCG_CTL`: all off and all on.
    require(data == 0 || data == u64::MAX, INVALID)?;
    cpu.set_field(Field::McgCtl, data);
    Ok(())
}

pub(super) fn read_bank<C: Cpu>(cpu: &C, index: u32) -> Result<u64> {
    Ok(cpu.mce_bank(offset(cpu, index, FIRST_BANK, PER_BANK)?))
}

pub(super) fn write_bank<C: Cpu>(cpu: &C, index: u32, data: u64, initiator: Initiator) -> Result {
    let offset = offset(cpu, index, FIRST_BANK, PER_BANK)?;

    match index % PER_BANK {
        // A guest enables all errors or none. Two exceptions keep old guests working: Linux clears
        // bit 10 on a K8, whose GART reports spurious errors, and UnixWare clears bit 0, for
        // corrected errors.
        0 if data != 0 && data | 1 << 10 | 1 != u64::MAX => return Err(INVALID),
        // The SDM: software may only clear `IA32_MCi_STATUS`; other values raise #GP.
        1 if data != 0 && initiator == Initiator::Guest && !may_write_status(cpu) => {
            return Err(INVALID)
        }
        _ => (),
    }
    cpu.set_mce_bank(offset, data);
    Ok(())
}

fn may_write_status<C: Cpu>(cpu: &C) -> bool {
    cpu.is_amd_compatible() && cpu.field(Field::Hwcr) & HWCR_STATUS_WR_EN != 0
}

pub(super) fn read_ctl2<C: Cpu>(cpu: &C, index: u32, initiator: Initiator) -> Result<u64> {
    let bank = offset(cpu, index, FIRST_CTL2, 1)?;

    check_capability(cpu, CAP_CMCI_P, 0, initiator)?;
    Ok(cpu.mce_ctl2(bank))
}

pub(super) fn write_ctl2<C: Cpu>(cpu: &C, index: u32, data: u64, initiator: Initiator) -> Result {
    let bank = offset(cpu, index, FIRST_CTL2, 1)?;

    check_capability(cpu, CAP_CMCI_P, data, initiator)?;
    require(data & !(CTL2_CMCI_EN | CTL2_THRESHOLD) == 0, INVALID)?;
    cpu.set_mce_ctl2(bank, data);
    Ok(())
}
