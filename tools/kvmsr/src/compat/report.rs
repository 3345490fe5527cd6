// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The result of combining several hosts.

use serde::Serialize;

use super::rule::Change;
use super::rule::Rule;
use crate::catalogue;
use crate::cpuid::Register;
use crate::number::Hex;
use crate::snapshot::Snapshot;

/// A profile, and what it leaves out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// [`SCHEMA`](crate::snapshot::SCHEMA)
    pub schema: u32,
    /// The files, in the order of the command line.
    pub files: Vec<String>,
    /// The common part of the hosts.
    pub profile: Snapshot,
    /// What some hosts have, but the profile lacks or changes.
    pub lost: Vec<Lost>,
    /// Warnings about the use of the profile.
    pub warnings: Vec<String>,
}

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// CPUID.
    Cpuid,
    /// The list of MSRs to save.
    Saved,
    /// The host's features.
    Features,
    /// The vCPU's MSRs.
    Msrs,
}

/// A place in CPUID.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Place {
    /// EAX of the instruction.
    pub function: Hex<u32>,
    /// ECX of the instruction.
    pub index: Hex<u32>,
    /// The register; none for the whole leaf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub register: Option<Register>,
}

/// Something that the profile leaves out or changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lost {
    /// The part.
    pub part: Part,
    /// The MSR, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msr: Option<Hex<u32>>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The place in CPUID, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuid: Option<Place>,
    /// The bits, if not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<Hex<u64>>,
    /// The names of these bits, if known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The reason.
    pub reason: String,
    /// The files that cause it.
    pub files: Vec<String>,
}

const MISSING: &str = "missing";

impl Lost {
    /// Whether a whole MSR is missing from files.
    pub fn is_missing(&self) -> bool {
        self.reason == MISSING
    }

    pub(super) fn missing(self, files: Vec<String>) -> Self {
        self.because(MISSING, files)
    }

    pub(super) fn msr(part: Part, index: Hex<u32>, name: Option<String>) -> Self {
        Lost {
            part,
            msr: Some(index),
            name,
            cpuid: None,
            bits: None,
            fields: Vec::new(),
            reason: String::new(),
            files: Vec::new(),
        }
    }

    pub(super) fn cpuid(place: Place) -> Self {
        Lost {
            part: Part::Cpuid,
            msr: None,
            name: None,
            cpuid: Some(place),
            bits: None,
            fields: Vec::new(),
            reason: String::new(),
            files: Vec::new(),
        }
    }

    pub(super) fn because(mut self, reason: impl Into<String>, files: Vec<String>) -> Self {
        self.reason = reason.into();
        self.files = files;
        self
    }

    /// The reason for a rule.
    pub(super) fn by(mut self, change: &Change, names: &[&str]) -> Self {
        let files = change
            .hosts
            .iter()
            .filter_map(|&host| names.get(host))
            .map(|&name| name.to_owned())
            .collect();
        let reason = match change.rule {
            Rule::And(_) => "not supported".to_owned(),
            Rule::Or(_) => "a weakness or requirement there, and so in the profile".to_owned(),
            Rule::Least(_) => format!("the minimum is {:#x}", change.value),
            Rule::Most(_) => format!("the maximum is {:#x}", change.value),
            Rule::Same(_) => "hosts differ, and accept only their own".to_owned(),
            Rule::SameOrZero(_) => "hosts differ, so it is 0".to_owned(),
            Rule::SameModelOrZero(_) => "depends on the CPU model, so it is 0".to_owned(),
            Rule::Hosts(_) => "describes the host; taken from this one".to_owned(),
        };

        self.bits = (change.bits != u64::MAX).then_some(Hex(change.bits));
        self.because(reason, files).with_fields()
    }

    /// Adds the names of fields if all their bits are lost.
    pub(super) fn with_fields(mut self) -> Self {
        if let (Some(index), Some(Hex(bits))) = (self.msr, self.bits) {
            self.fields = catalogue::changes(index.0, 0, bits, None)
                .into_iter()
                .filter_map(|change| change.field)
                .filter(|field| field.bits.mask() & !bits == 0)
                .map(|field| field.name.to_owned())
                .collect();
        }
        self
    }
}
