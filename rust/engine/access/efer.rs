// SPDX-License-Identifier: GPL-2.0

//! `EFER`, which enables long mode, SVM and other extensions.

use super::{
    checks::require,
    Cpu,
    Feature,
    Field,
    Initiator,
    Result,
    INVALID, //
};

const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
const NX: u64 = 1 << 11;
/// The guest has enabled SVM.
pub(crate) const SVME: u64 = 1 << 12;
const FFXSR: u64 = 1 << 14;
const AUTOIBRS: u64 = 1 << 21;

/// Whether the guest has the features for all bits that are set.
fn has_features<C: Cpu>(cpu: &C, efer: u64) -> bool {
    [
        (AUTOIBRS, Feature::AutoIbrs),
        (FFXSR, Feature::FxsrOpt),
        (SVME, Feature::Svm),
        (LME | LMA, Feature::Lm),
        (NX, Feature::Nx),
    ]
    .iter()
    .all(|&(bits, feature)| efer & bits == 0 || cpu.has(feature))
}

/// Returns whether KVM supports all bits of a value, and the guest has the features for them.
pub(crate) fn is_valid<C: Cpu>(cpu: &C, efer: u64) -> bool {
    efer & !cpu.supported_efer() == 0 && has_features(cpu, efer)
}

pub(super) fn write<C: Cpu>(cpu: &C, data: u64, initiator: Initiator) -> Result {
    let old = cpu.field(Field::Efer);

    require(data & !cpu.supported_efer() == 0, INVALID)?;
    // User space may set EFER before CPUID, so the guest's features only limit guest writes.
    if initiator == Initiator::Guest {
        require(has_features(cpu, data), INVALID)?;
        // The CPU raises #GP if LME changes while paging is on.
        require(!cpu.is_paging() || old & LME == data & LME, INVALID)?;
    }

    // LMA is read-only: the CPU derives it from LME and paging.
    let new = data & !LMA | old & LMA;

    cpu.vendor_set_efer(new)?;
    cpu.efer_changed(old, new);
    Ok(())
}
