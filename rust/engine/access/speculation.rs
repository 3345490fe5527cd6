// SPDX-License-Identifier: GPL-2.0

//! `IA32_PRED_CMD` and `IA32_FLUSH_CMD`: commands against speculative side channels, which KVM
//! passes on to the CPU.

use super::{
    checks::require,
    Cpu,
    Feature,
    Initiator,
    Result,
    INVALID, //
};

/// Indirect branch prediction barrier.
const IBPB: u64 = 1 << 0;
/// Selective branch predictor barrier, of AMD.
const SBPB: u64 = 1 << 7;
const L1D_FLUSH: u64 = 1 << 0;

pub(super) fn write_pred_cmd<C: Cpu>(cpu: &C, data: u64, initiator: Initiator) -> Result {
    // User space may write any bit that the host has, whatever the guest's CPUID.
    let mut allowed = IBPB | SBPB;

    if initiator == Initiator::Guest {
        let ibpb = cpu.has(Feature::SpecCtrl) || cpu.has(Feature::AmdIbpb);
        let sbpb = cpu.has(Feature::Sbpb);

        require(ibpb || sbpb, INVALID)?;
        if !ibpb {
            allowed &= !IBPB;
        }
        if !sbpb {
            allowed &= !SBPB;
        }
    }
    if !cpu.host_has_ibpb() {
        allowed &= !IBPB;
    }
    if !cpu.host_has(Feature::Sbpb) {
        allowed &= !SBPB;
    }
    require(data & !allowed == 0, INVALID)?;
    if data != 0 {
        cpu.predict(data);
    }
    Ok(())
}

pub(super) fn write_flush_cmd<C: Cpu>(cpu: &C, data: u64, initiator: Initiator) -> Result {
    if initiator == Initiator::Guest && !cpu.has(Feature::FlushL1d)
        || !cpu.host_has(Feature::FlushL1d)
        || data & !L1D_FLUSH != 0
    {
        return Err(INVALID);
    }
    if data != 0 {
        cpu.flush_l1d();
    }
    Ok(())
}
