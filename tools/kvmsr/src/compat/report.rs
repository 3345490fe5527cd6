// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What became of what the hosts have.

use serde::Serialize;

use super::rule::Change;
use super::rule::Rule;
use crate::catalogue;
use crate::cpuid::Register;
use crate::number::Hex;
use crate::snapshot::Snapshot;

/// A profile, and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// [`SCHEMA`](crate::snapshot::SCHEMA)
    pub schema: u32,
    /// The files, in the order in which they were given.
    pub files: Vec<String>,
    /// What their hosts have in common.
    pub profile: Snapshot,
    /// What some have, and the profile has not or otherwise.
    pub lost: Vec<Lost>,
    /// What to know before it is used.
    pub warnings: Vec<String>,
}

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// CPUID.
    Cpuid,
    /// The list of MSRs that are saved.
    Saved,
    /// What the host supports.
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

/// Something that the profile does not have from all files.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lost {
    /// Where.
    pub part: Part,
    /// Which MSR, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msr: Option<Hex<u32>>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where in CPUID, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuid: Option<Place>,
    /// Which bits, if not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<Hex<u64>>,
    /// The fields of an MSR that these bits are, where they are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Why.
    pub reason: String,
    /// The files that it is due to.
    pub files: Vec<String>,
}

const MISSING: &str = "not there";

impl Lost {
    /// Whether it is a whole MSR that files have not.
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

    /// By a rule.
    pub(super) fn by(mut self, change: &Change, names: &[&str]) -> Self {
        let files = change
            .hosts
            .iter()
            .filter_map(|&host| names.get(host))
            .map(|&name| name.to_owned())
            .collect();
        let reason = match change.rule {
            Rule::And(_) => "not offered".to_owned(),
            Rule::Or(_) => "lacked or demanded there, and so by the profile".to_owned(),
            Rule::Least(_) => format!("{:#x}, the least, is there", change.value),
            Rule::Most(_) => format!("{:#x}, the most, is there", change.value),
            Rule::Same(_) => "hosts differ, and take their own only".to_owned(),
            Rule::SameOrZero(_) => "hosts differ, so it is 0".to_owned(),
            Rule::SameModelOrZero(_) => "hangs on the model of the CPU, so it is 0".to_owned(),
            Rule::Hosts(_) => "describes the host, and is that one's".to_owned(),
        };

        self.bits = (change.bits != u64::MAX).then_some(Hex(change.bits));
        self.because(reason, files).with_fields()
    }

    /// With the names of the fields that all bits are lost of.
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
