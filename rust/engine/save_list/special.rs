// SPDX-License-Identifier: GPL-2.0

//! What the declarations don't say of an MSR: many are declared together, in a range that another
//! part of KVM serves, or the vendor module serves them.
//!
//! Source: Intel SDM, AMD APM, Hyper-V TLFS, and the behavior of KVM in Linux 7.3.

use super::{
    Owner,
    Stage,
    IGNORED,
    SIDE_EFFECT,
    VOLATILE,
    WRITE_ONLY, //
};

/// What is special of an MSR. Without an owner or a stage, these derive from its declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Special {
    pub(super) owner: Option<Owner>,
    pub(super) stage: Option<Stage>,
    pub(super) attributes: u32,
}

impl Special {
    const NONE: Self = Self {
        owner: None,
        stage: None,
        attributes: 0,
    };

    const fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    const fn stage(mut self, stage: Stage) -> Self {
        self.stage = Some(stage);
        self
    }

    const fn is(mut self, attributes: u32) -> Self {
        self.attributes |= attributes;
        self
    }

    /// What is special of an index.
    pub(super) fn of(index: u32) -> Self {
        SPECIAL
            .iter()
            .find(|&&(first, last, _)| first <= index && index <= last)
            .map_or(Self::NONE, |&(_, _, special)| special)
    }
}

const S: Special = Special::NONE;

/// Inclusive ranges of indices. They don't overlap.
#[rustfmt::skip]
const SPECIAL: &[(u32, u32, Special)] = &[
    // IA32_FEAT_CTL: user space leaves VMX operation with 0.
    (0x3a, 0x3a, S.stage(Stage::Model).is(SIDE_EFFECT)),
    // IA32_DEBUGCTLMSR: it enables branch records.
    (0x1d9, 0x1d9, S.stage(Stage::Enable).is(SIDE_EFFECT)),
    // IA32_RTIT_CTL
    (0x570, 0x570, S.stage(Stage::Enable).is(SIDE_EFFECT)),
    // MTRRdefType
    (0x2ff, 0x2ff, S.stage(Stage::Enable)),
    // The control of fixed counters, and PEBS_ENABLE.
    (0x38d, 0x38d, S.stage(Stage::Enable).is(SIDE_EFFECT)),
    (0x3f1, 0x3f1, S.stage(Stage::Enable).is(SIDE_EFFECT)),
    // CORE_PERF_GLOBAL_CTRL and AMD64_PERF_CNTR_GLOBAL_CTL
    (0x38f, 0x38f, S.stage(Stage::PmuControl).is(SIDE_EFFECT)),
    (0xc000_0301, 0xc000_0301, S.stage(Stage::PmuControl).is(SIDE_EFFECT)),
    // CORE_PERF_GLOBAL_OVF_CTRL, and AMD64_PERF_CNTR_GLOBAL_STATUS_CLR and _SET: commands for the
    // guest, without effect for user space.
    (0x390, 0x390, S.is(WRITE_ONLY | IGNORED)),
    (0xc000_0302, 0xc000_0303, S.is(WRITE_ONLY | IGNORED)),
    // VM_IGNNE
    (0xc001_0115, 0xc001_0115, S.is(IGNORED)),
    // FS_BASE and GS_BASE: KVM_SET_SREGS2 writes them with their segments.
    (0xc000_0100, 0xc000_0101, S.owner(Owner::Sregs).stage(Stage::Mode)),

    // x2APIC: EOI, the requested interrupts, the current count of the timer, and SELF_IPI.
    (X2APIC_EOI, X2APIC_EOI, S.is(WRITE_ONLY)),
    (0x820, 0x827, S.is(VOLATILE)),
    (0x839, 0x839, S.is(VOLATILE)),
    (X2APIC_SELF_IPI, X2APIC_SELF_IPI, S.is(WRITE_ONLY)),

    // Hyper-V: GUEST_OS_ID, which enables HYPERCALL, and VP_INDEX.
    (0x4000_0000, 0x4000_0000, S.stage(Stage::Value)),
    (0x4000_0002, 0x4000_0002, S.stage(Stage::Value)),
    // RESET
    (0x4000_0003, 0x4000_0003, S.is(WRITE_ONLY)),
    // VP_RUNTIME: the time that the task ran.
    (0x4000_0010, 0x4000_0010, S.is(VOLATILE)),
    // TIME_REF_COUNT, which derives from the time since the VM was created.
    (0x4000_0020, 0x4000_0020, S.is(VOLATILE | IGNORED)),
    // TSC_FREQUENCY and APIC_FREQUENCY: user space has ioctls for these.
    (0x4000_0022, 0x4000_0023, S.is(IGNORED)),
    // EOI, ICR and TPR are other names of the local APIC's registers.
    (0x4000_0070, 0x4000_0070, S.owner(Owner::Lapic).stage(Stage::LocalApic).is(WRITE_ONLY)),
    (0x4000_0071, 0x4000_0072, S.owner(Owner::Lapic).stage(Stage::LocalApic)),
    // EOM
    (0x4000_0084, 0x4000_0084, S.is(WRITE_ONLY)),
    // STIMERi_CONFIG
    (0x4000_00b0, 0x4000_00b0, S.stage(Stage::Enable)),
    (0x4000_00b2, 0x4000_00b2, S.stage(Stage::Enable)),
    (0x4000_00b4, 0x4000_00b4, S.stage(Stage::Enable)),
    (0x4000_00b6, 0x4000_00b6, S.stage(Stage::Enable)),
];

/// Inclusive ranges of indices without a declaration that a PMU may have, sorted.
pub(super) const UNDECLARED: &[(u32, u32)] = &[
    // LBR_SELECT and LBR_TOS, for the branch records below.
    (0x1c8, 0x1c9),
    // CORE_PERF_GLOBAL_OVF_CTRL
    (0x390, 0x390),
    // IA32_PMC0: the general purpose counters, with all their bits.
    (0x4c1, 0x4c8),
    // LBR_NHM_FROM, LBR_NHM_TO and LBR_INFO_0
    (0x680, 0x69f),
    (0x6c0, 0x6df),
    (0xdc0, 0xddf),
];

/// `HV_X64_EOI`, `_ICR` and `_TPR`; `_SVERSION`, `_SIEFP`, `_SIMP` and `_EOM`; `_SINT0` to
/// `_SINT15`. The other indices of this range are declared, or Hyper-V does not define them.
const HYPERV: [core::ops::RangeInclusive<u32>; 3] = [
    0x4000_0070..=0x4000_0072,
    0x4000_0081..=0x4000_0084,
    0x4000_0090..=0x4000_009f,
];

const X2APIC_EOI: u32 = 0x80b;
const X2APIC_SELF_IPI: u32 = 0x83f;
/// A register that each x2APIC has.
pub(super) const X2APIC_ID: u32 = 0x802;

/// The MSR of Hyper-V that can be read if a vCPU has this one: `HV_X64_TPR` for `HV_X64_EOI`, which
/// can only be written.
pub(super) fn readable(index: u32) -> u32 {
    match index {
        0x4000_0070 => 0x4000_0072,
        index => index,
    }
}

/// Whether Hyper-V defines an index.
pub(super) fn is_defined_by_hyperv(index: u32) -> bool {
    let register = crate::engine::registers::lookup(index);

    register.first == register.last
        || register.first != 0x4000_0000
        || HYPERV.iter().any(|range| range.contains(&index))
}

/// Whether KVM derives an MSR, so that nobody can write it: `IA32_VMX_PINBASED_CTLS`,
/// `_PROCBASED_CTLS`, `_EXIT_CTLS` and `_ENTRY_CTLS` from the `TRUE` MSRs of these names,
/// `_CR0_FIXED1`, which is constant, and `_CR4_FIXED1` from CPUID.
pub(super) fn is_derived(index: u32) -> bool {
    matches!(index, 0x481..=0x484 | 0x487 | 0x489)
}

/// Whether a register of the x2APIC can only be written.
pub(super) fn is_x2apic_command(index: u32) -> bool {
    matches!(index, X2APIC_EOI | X2APIC_SELF_IPI)
}
