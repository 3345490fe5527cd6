// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds the causes of refused accesses, by comparing the stages.

use std::fmt;

use serde::Serialize;

use super::Access;
use super::Probed;
use super::What;
use super::When;
use super::Who;
use crate::access::RefusalKind;
use crate::number::Hex;
use crate::number::bit_ranges;

/// The local APIC's registers in x2APIC mode.
const X2APIC: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// The cause of a refusal.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cause {
    /// The initiator and time of the access.
    pub stages: Vec<Stage>,
    /// The kind of access.
    pub what: What,
    /// The refused bits of a write; none if it is refused with any bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<Hex<u64>>,
    /// The cause.
    pub kind: CauseKind,
    /// The missing CPUID bits, of which one is needed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// The initiator of an access, and its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// User space, on a vCPU that has never run.
    UserBeforeRun,
    /// User space, on a vCPU that has run.
    UserAfterRun,
    /// The guest, with the vCPU's first instruction.
    GuestFirst,
    /// The guest, on a vCPU that has run.
    GuestLater,
}

impl Stage {
    /// All stages.
    pub const ALL: [Stage; 4] = [
        Stage::UserBeforeRun,
        Stage::UserAfterRun,
        Stage::GuestFirst,
        Stage::GuestLater,
    ];

    /// The initiator.
    pub fn who(self) -> Who {
        match self {
            Stage::UserBeforeRun | Stage::UserAfterRun => Who::User,
            Stage::GuestFirst | Stage::GuestLater => Who::Guest,
        }
    }

    /// The time.
    pub fn when(self) -> When {
        match self {
            Stage::UserBeforeRun | Stage::GuestFirst => When::BeforeRun,
            Stage::UserAfterRun | Stage::GuestLater => When::AfterRun,
        }
    }
}

/// Causes of refusals.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// This KVM does not know the MSR.
    UnknownHere,
    /// It depends on a CPUID bit that the vCPU lacks.
    CpuidBitMissing,
    /// These bits are reserved, or can't change.
    ReservedBits,
    /// It can't change once the vCPU has run.
    FixedAfterRun,
    /// Only user space has access.
    HostOnly,
    /// Only the guest has access.
    GuestOnly,
    /// The local APIC is not in x2APIC mode.
    NotX2apic,
    /// KVM_RUN fails.
    LeavesGuest,
    /// The filter denies it.
    Filter,
    /// KVM knows the MSR, but refuses this access.
    NotThisAccess,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages: Vec<_> = self
            .stages
            .iter()
            .map(|stage| match stage {
                Stage::UserBeforeRun => "user space before a run",
                Stage::UserAfterRun => "user space after a run",
                Stage::GuestFirst => "guest's first instruction",
                Stage::GuestLater => "guest later",
            })
            .collect();
        let what = match (self.what, self.bits) {
            (What::Read, _) => "read".to_owned(),
            (What::Write, None) => "write".to_owned(),
            (What::Write, Some(bits)) => format!("change of bits {}", bit_ranges(bits.0)),
        };
        let why = match self.kind {
            CauseKind::UnknownHere => "KVM does not know the MSR here",
            CauseKind::CpuidBitMissing => "the vCPU's CPUID lacks",
            CauseKind::ReservedBits => "reserved or fixed",
            CauseKind::FixedAfterRun => "fixed once the vCPU has run",
            CauseKind::HostOnly => "user space only",
            CauseKind::GuestOnly => "the guest only",
            CauseKind::NotX2apic => "the local APIC is not in x2APIC mode",
            CauseKind::LeavesGuest => "KVM_RUN fails, and the guest can't continue",
            CauseKind::Filter => "the filter denies it",
            CauseKind::NotThisAccess => "KVM knows the MSR, but refuses this access",
        };

        write!(f, "{what}: {why}")?;
        if !self.features.is_empty() {
            write!(f, " {}", self.features.join(" or "))?;
        }
        write!(f, " ({})", stages.join(", "))
    }
}

/// The causes of all refusals.
pub(super) fn of(probed: &Probed) -> Vec<Cause> {
    let mut all = Vec::new();

    for stage in Stage::ALL {
        let Some(access) = probed.access(stage.who(), stage.when()) else {
            continue;
        };

        for what in [What::Read, What::Write] {
            if !access.allows(what) {
                all.push(whole(probed, access, stage, what));
            }
        }
        if access.writable {
            some_bits(probed, access, stage, &mut all);
        }
    }
    merge(all)
}

/// Combines equal causes of several stages.
fn merge(all: Vec<Cause>) -> Vec<Cause> {
    let mut merged: Vec<Cause> = Vec::new();

    for cause in all {
        let same = merged.iter_mut().find(|other| {
            (other.what, other.kind, other.bits, &other.features)
                == (cause.what, cause.kind, cause.bits, &cause.features)
        });

        match same {
            Some(other) => other.stages.extend(cause.stages),
            None => merged.push(cause),
        }
    }
    merged
}

/// Why an access is refused completely.
fn whole(probed: &Probed, access: &Access, stage: Stage, what: What) -> Cause {
    let (who, when) = (stage.who(), stage.when());
    let cause = |kind| Cause {
        stages: vec![stage],
        what,
        bits: None,
        kind,
        features: Vec::new(),
    };
    let missing = probed
        .needs
        .iter()
        .find(|need| need.who == who && need.what == what && !need.present);

    if let Some(need) = missing {
        return Cause {
            features: need.features.clone(),
            ..cause(CauseKind::CpuidBitMissing)
        };
    }
    let allowed = |who, when| {
        probed
            .access(who, when)
            .is_some_and(|access| access.allows(what))
    };
    // KVM gives the reason for a guest's access, and refuses user space's access for the same
    // reason.
    let said = access
        .refusal(what)
        .filter(|_| who == Who::Guest)
        .or_else(|| probed.guest.after_run.refusal(what))
        .map(|refusal| refusal.kind);

    cause(match (who, said) {
        (Who::User, _) if when == When::AfterRun && allowed(who, When::BeforeRun) => {
            CauseKind::FixedAfterRun
        }
        (Who::User, _) if allowed(Who::Guest, When::AfterRun) => CauseKind::GuestOnly,
        (Who::Guest, Some(RefusalKind::Left)) => CauseKind::LeavesGuest,
        (Who::Guest, Some(RefusalKind::Filter)) => CauseKind::Filter,
        (Who::Guest, _) if allowed(Who::User, when) => CauseKind::HostOnly,
        _ if X2APIC.contains(&probed.index.0) => CauseKind::NotX2apic,
        (_, Some(RefusalKind::Unknown)) => CauseKind::UnknownHere,
        _ => CauseKind::NotThisAccess,
    })
}

/// Why some bits are refused.
fn some_bits(probed: &Probed, access: &Access, stage: Stage, causes: &mut Vec<Cause>) {
    let (who, when) = (stage.who(), stage.when());
    let Some(bits) = access.bits else { return };
    let taken = |who, when| {
        probed
            .access(who, when)
            .and_then(|access| access.bits)
            .map_or(0, |bits| bits.taken())
    };
    let (elsewhere, kind) = match (who, when) {
        (Who::User, When::AfterRun) => (taken(who, When::BeforeRun), CauseKind::FixedAfterRun),
        (Who::User, When::BeforeRun) => (taken(Who::Guest, When::AfterRun), CauseKind::GuestOnly),
        (Who::Guest, _) => (taken(Who::User, When::BeforeRun), CauseKind::HostOnly),
    };

    for (mask, kind) in [
        (bits.refused.0 & elsewhere, kind),
        (bits.refused.0 & !elsewhere, CauseKind::ReservedBits),
        (bits.left.0, CauseKind::LeavesGuest),
    ] {
        if mask != 0 {
            causes.push(Cause {
                stages: vec![stage],
                what: What::Write,
                bits: Some(Hex(mask)),
                kind,
                features: Vec::new(),
            });
        }
    }
}
