// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The state of a vCPU and the features of a host, in a file.

mod host;
mod take;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::cpuid::Cpuid;
use crate::cpuid::Modifiers;
use crate::cpuid::Vendor;
use crate::number::Hex;

/// The version of every file and of every output.
pub const SCHEMA: u32 = 1;

/// The host of a snapshot.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The kernel's release, as in `uname -r`.
    pub kernel: String,
    /// The vendor of its virtualisation.
    pub vendor: Option<Vendor>,
    /// The CPU's name.
    pub cpu: String,
    /// Microcode revision, as in /proc/cpuinfo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microcode: Option<String>,
    /// Readable parameters of KVM's modules, by module.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether the Rust engine (kvm-msr.ko) served the VM.
    #[serde(default)]
    pub engine: bool,
    /// Other facts in a VMM's file, by their names there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// One MSR and its value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its value.
    pub value: Hex<u64>,
    /// The bits that are given, if not all are: a template leaves the others unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Hex<u64>>,
    /// Whether it changes by itself, e.g. a clock.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
}

impl Value {
    /// The mask of given bits.
    pub fn given(&self) -> u64 {
        self.mask.map_or(u64::MAX, |mask| mask.0)
    }

    /// Applies the entry to a vCPU's value.
    pub fn apply(&self, value: u64) -> u64 {
        value & !self.given() | self.value.0 & self.given()
    }
}

/// The MSRs of a vCPU, in an order in which they can be restored.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// [`SCHEMA`]
    pub schema: u32,
    /// `snapshot`, or `profile` for the common part of several hosts.
    pub kind: Kind,
    /// Where it was taken.
    #[serde(default)]
    pub host: Host,
    /// The vCPU's CPUID.
    #[serde(default)]
    pub cpuid: Cpuid,
    /// Changes to the host's CPUID, in a VMM's template.
    #[serde(default, skip_serializing_if = "Modifiers::is_empty")]
    pub cpuid_modifiers: Modifiers,
    /// `KVM_GET_MSR_INDEX_LIST`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saved: Vec<Hex<u32>>,
    /// `KVM_GET_MSR_FEATURE_INDEX_LIST`, with values from `KVM_GET_MSRS` of the device, i.e. the
    /// host's features.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Value>,
    /// The vCPU's MSRs.
    pub msrs: Vec<Value>,
    /// The vCPU's IA32_MCG_CAP, for `KVM_X86_SETUP_MCE`, with the number of machine-check banks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcg_cap: Option<Hex<u64>>,
    /// MSRs that are listed, and can't be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Hex<u32>>,
}

impl Snapshot {
    /// The vendor of its virtualisation, if known.
    pub fn vendor(&self) -> Option<Vendor> {
        self.host.vendor.or_else(|| self.cpuid.vendor())
    }
}

/// The kind of a [`Snapshot`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One vCPU.
    #[default]
    Snapshot,
    /// The common part of several hosts.
    Profile,
}
