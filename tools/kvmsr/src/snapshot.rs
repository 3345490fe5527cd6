// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a vCPU has and what a host offers, in a file.

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

/// Where a snapshot was taken.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The kernel's release, as `uname -r`.
    pub kernel: String,
    /// Whose virtualisation it has.
    pub vendor: Option<Vendor>,
    /// The CPU's name.
    pub cpu: String,
    /// Microcode revision, as the kernel says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microcode: Option<String>,
    /// Parameters of KVM's modules that can be read, by module.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether the Rust engine (kvm-msr.ko) served the VM.
    #[serde(default)]
    pub engine: bool,
    /// What a VMM's file says besides, by the name that it has there.
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
    /// Which bits of it are given, if not all are: a template leaves the others as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Hex<u64>>,
    /// Whether it changes by itself, as a clock does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
}

impl Value {
    /// Which bits are given.
    pub fn given(&self) -> u64 {
        self.mask.map_or(u64::MAX, |mask| mask.0)
    }

    /// What it makes of a vCPU's value.
    pub fn apply(&self, value: u64) -> u64 {
        value & !self.given() | self.value.0 & self.given()
    }
}

/// Everything about the MSRs of a vCPU, in the order in which they can be restored.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// [`SCHEMA`]
    pub schema: u32,
    /// `snapshot`, or `profile` if it is what several hosts have in common.
    pub kind: Kind,
    /// Where it was taken.
    #[serde(default)]
    pub host: Host,
    /// What the vCPU's CPUID says.
    #[serde(default)]
    pub cpuid: Cpuid,
    /// How the host's CPUID is to be changed, in a VMM's template.
    #[serde(default, skip_serializing_if = "Modifiers::is_empty")]
    pub cpuid_modifiers: Modifiers,
    /// `KVM_GET_MSR_INDEX_LIST`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saved: Vec<Hex<u32>>,
    /// `KVM_GET_MSR_FEATURE_INDEX_LIST`, with what `KVM_GET_MSRS` of the device says: what the
    /// host supports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Value>,
    /// The vCPU's MSRs.
    pub msrs: Vec<Value>,
    /// The vCPU's IA32_MCG_CAP, for `KVM_X86_SETUP_MCE`: how many machine check banks there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcg_cap: Option<Hex<u64>>,
    /// MSRs that are listed, and can't be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Hex<u32>>,
}

impl Snapshot {
    /// Whose virtualisation it is of, as far as it says.
    pub fn vendor(&self) -> Option<Vendor> {
        self.host.vendor.or_else(|| self.cpuid.vendor())
    }
}

/// What a [`Snapshot`] is of.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One vCPU.
    #[default]
    Snapshot,
    /// What several hosts take.
    Profile,
}
