// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Accesses to test, and a filter's decisions.

use serde::Serialize;

use crate::error::Error;
use crate::error::Result;
use crate::filter::Access;
use crate::filter::Decider;
use crate::filter::Filter;
use crate::filter::Place;
use crate::filter::Proof;
use crate::filter::Run;
use crate::filter::Source;
use crate::filter::Verdict;
use crate::filter::X2APIC;
use crate::filter::msrs;
use crate::number::Hex;
use crate::number::parse_u64;
use crate::snapshot::SCHEMA;

/// The maximum number of accesses at once.
const MOST: u64 = 0x1_0000;

/// An access, or the same access to adjacent MSRs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Accesses {
    /// The kind.
    pub access: Access,
    /// The MSRs.
    pub msrs: Run,
    /// The value that is written.
    pub value: u64,
}

/// Parses `read:MSR` or `write:MSR=VALUE`. The value may be left out and is then 0; the MSR may be
/// a range.
///
/// # Errors
///
/// [`Error::Input`] if it is invalid, or means more than 65,536 accesses.
pub fn parse_accesses(text: &str) -> Result<Vec<Accesses>> {
    let wrong = || {
        Error::Input(format!(
            "'{text}' is not an access: write it as read:MSR, write:MSR or write:MSR=VALUE"
        ))
    };
    let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (name, value) = match rest.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (rest, None),
    };
    let access = match kind {
        "read" | "r" if value.is_none() => Access::Read,
        "read" | "r" => {
            return Err(Error::Input(format!(
                "'{text}' is a read, which has no value: remove '=' and the value"
            )));
        }
        "write" | "w" => Access::Write,
        _ => return Err(wrong()),
    };
    let value = value.map_or(Ok(0), parse_u64)?;
    let msrs = msrs::parse(name)?;

    if msrs.count() > MOST {
        return Err(Error::Input(format!(
            "'{text}' means {} accesses; the limit is {MOST}",
            msrs.count()
        )));
    }
    Ok(msrs
        .iter()
        .map(|msrs| Accesses {
            access,
            msrs,
            value,
        })
        .collect())
}

/// A filter's decisions.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TestReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The accesses, in the order given.
    pub accesses: Vec<Tested>,
}

/// A filter's decision of an access.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tested {
    /// The kind.
    pub access: Access,
    /// The MSR.
    pub index: Hex<u32>,
    /// Its name.
    pub name: Option<String>,
    /// The value that is written.
    pub value: Option<Hex<u64>>,
    /// The decision.
    pub verdict: Verdict,
    /// What decides it.
    pub by: By,
    /// The expected decision, if any.
    pub wanted: Option<Wanted>,
    /// The result on KVM, if it was tested.
    pub on_kvm: Option<Proof>,
}

/// The expected decision, and whether it is met.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Wanted {
    /// The expected decision.
    pub verdict: Verdict,
    /// Whether the decision is as expected.
    pub met: bool,
}

/// What decides an access.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// KVM, which never filters x2APIC MSRs.
    X2apic,
    /// A rule.
    Rule {
        /// Its place.
        place: Place,
        /// Its text for the MSR.
        says: String,
    },
    /// A range, by its number from 0.
    Range {
        /// The number.
        number: usize,
        /// Its flags and MSRs.
        has: String,
    },
    /// The default.
    Default,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            By::X2apic => write!(f, "KVM, which never filters {X2APIC}"),
            By::Rule { place, says } => write!(f, "{place}: {says}"),
            By::Range { number, has } => write!(f, "range {number}: {has}"),
            By::Default => f.write_str("the default"),
        }
    }
}

impl TestReport {
    /// Decides accesses by rules or a filter. `filter` is the one for KVM.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for too many accesses.
    pub fn new(
        source: &Source,
        filter: &Filter,
        accesses: &[Accesses],
        wanted: Option<Verdict>,
    ) -> Result<Self> {
        let count: u64 = accesses.iter().map(|accesses| accesses.msrs.count()).sum();

        if count > MOST {
            return Err(Error::Input(format!(
                "these are {count} accesses; the limit is {MOST}"
            )));
        }
        let tested = accesses.iter().flat_map(|accesses| {
            (accesses.msrs.first..=accesses.msrs.last)
                .map(|index| one(source, filter, accesses, index, wanted))
        });

        Ok(TestReport {
            schema: SCHEMA,
            accesses: tested.collect(),
        })
    }

    /// Whether a decision differs from the expected one, or from KVM's.
    pub fn is_bad(&self) -> bool {
        self.accesses.iter().any(|tested| {
            tested.wanted.is_some_and(|wanted| !wanted.met)
                || tested
                    .on_kvm
                    .as_ref()
                    .is_some_and(|proof| !proof.agrees(tested.verdict))
        })
    }
}

fn one(
    source: &Source,
    filter: &Filter,
    accesses: &Accesses,
    index: u32,
    wanted: Option<Verdict>,
) -> Tested {
    let access = accesses.access;
    let decision = filter.decision(access, index);
    let verdict = if decision.allowed {
        Verdict::Allow
    } else {
        Verdict::Deny
    };
    let by = match (source, decision.by) {
        (_, Decider::X2apic) => By::X2apic,
        (Source::Rules(rules), _) => match rules.deciding(access, index) {
            Some(rule) => By::Rule {
                place: rule.place,
                says: format!(
                    "{} {} {}",
                    rule.verdict,
                    rule.flags,
                    rule.msrs
                        .iter()
                        .find(|run| run.contains(index))
                        .unwrap_or(Run::one(index))
                ),
            },
            None => By::Default,
        },
        (Source::Filter(_), Decider::Range(number)) => By::Range {
            number,
            has: filter
                .ranges
                .get(number)
                .map(ToString::to_string)
                .unwrap_or_default(),
        },
        (Source::Filter(_), Decider::Default) => By::Default,
    };

    Tested {
        access,
        index: Hex(index),
        name: msrs::name(index),
        value: (access == Access::Write).then_some(Hex(accesses.value)),
        verdict,
        by,
        wanted: wanted.map(|wanted| Wanted {
            verdict: wanted,
            met: wanted == verdict,
        }),
        on_kvm: None,
    }
}
