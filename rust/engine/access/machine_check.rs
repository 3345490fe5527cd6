// SPDX-License-Identifier: GPL-2.0

//! Machine checks.
//!
//! Source: Intel SDM, chapter "Machine-Check Architecture"; AMD APM, chapter "Machine Check
//! Architecture".

use super::{
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

fn banks<C: Cpu>(cpu: &C) -> u32 {
    (cpu.field(Field::McgCap) & 0xff) as u32
}

fn has<C: Cpu>(cpu: &C, capability: u64) -> bool {
    cpu.field(Field::McgCap) & capability != 0
}

/// The offset of an MSR from `IA32_MC0_CTL`, if the vCPU has its bank.
fn bank_offset<C: Cpu>(cpu: &C, index: u32) -> Result<usize> {
    let offset = index.wrapping_sub(FIRST_BANK);

    if offset < banks(cpu).wrapping_mul(PER_BANK) {
        Ok(offset as usize)
    } else {
        Err(INVALID)
    }
}

fn ctl2_offset<C: Cpu>(cpu: &C, index: u32) -> Result<usize> {
    let offset = index.wrapping_sub(FIRST_CTL2);

    if offset < banks(cpu) {
        Ok(offset as usize)
    } else {
        Err(INVALID)
    }
}

pub(super) fn read_ctl<C: Cpu>(cpu: &C, initiator: Initiator) -> Result<u64> {
    if initiator == Initiator::Guest && !has(cpu, CAP_CTL_P) {
        return Err(INVALID);
    }
    Ok(cpu.field(Field::McgCtl))
}

pub(super) fn write_ctl<C: Cpu>(cpu: &C, data: u64, initiator: Initiator) -> Result {
    if !has(cpu, CAP_CTL_P) && (data != 0 || initiator == Initiator::Guest) {
        return Err(INVALID);
    }
    // The SDM defines only these two values of `IA32_MCG_CTL`: all off and all on.
    if data != 0 && data != u64::MAX {
        return Err(INVALID);
    }
    cpu.set_field(Field::McgCtl, data);
    Ok(())
}

pub(super) fn read_bank<C: Cpu>(cpu: &C, index: u32) -> Result<u64> {
    Ok(cpu.mce_bank(bank_offset(cpu, index)?))
}

pub(super) fn write_bank<C: Cpu>(cpu: &C, index: u32, data: u64, initiator: Initiator) -> Result {
    let offset = bank_offset(cpu, index)?;

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
    let bank = ctl2_offset(cpu, index)?;

    if initiator == Initiator::Guest && !has(cpu, CAP_CMCI_P) {
        return Err(INVALID);
    }
    Ok(cpu.mce_ctl2(bank))
}

pub(super) fn write_ctl2<C: Cpu>(cpu: &C, index: u32, data: u64, initiator: Initiator) -> Result {
    let bank = ctl2_offset(cpu, index)?;

    if !has(cpu, CAP_CMCI_P) && (data != 0 || initiator == Initiator::Guest) {
        return Err(INVALID);
    }
    if data & !(CTL2_CMCI_EN | CTL2_THRESHOLD) != 0 {
        return Err(INVALID);
    }
    cpu.set_mce_ctl2(bank, data);
    Ok(())
}
