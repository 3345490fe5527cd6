// SPDX-License-Identifier: Apache-2.0 OR MIT

//! cloud-hypervisor's CPU profiles. A profile is two files.
//!
//! The MSR file has `adjustments` of feature MSRs: pairs of an index and of `replacements` and
//! `mask`. The result is the host's value in the bits of `mask`, plus `replacements`. The host
//! must list all `required_msrs`, to save or as a feature. (Profiles of the fork in which this was
//! developed have `permitted_msrs`, `cpu_vendor` and `hypervisor_type` instead.) The results are
//! values for a vCPU, so they are in [`Snapshot::msrs`] and in [`Snapshot::features`]; the
//! required MSRs are in [`Snapshot::saved`].
//!
//! The CPUID file has `adjustments` of registers: pairs of a place (`leaf`, `sub_leaf` from
//! `start` to `end`, `register` in capitals) and the same two numbers of 32 bits. Registers
//! without an adjustment become 0.
//!
//! All numbers are strings in hexadecimal, with `0x`.
//!
//! Source: cloud-hypervisor/cloud-hypervisor at ae44c29 (August 2026),
//! arch/src/x86_64/cpu_profile/msr_adjustments.rs and cpuid_adjustments.rs; for the older form
//! cyberus-technology/cloud-hypervisor at 1f3bc5c, arch/src/x86_64/cpu_profiles/. cloud-hypervisor
//! builds its profiles in; there is no option that reads one.

use serde::Deserialize;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::catalogue;
use crate::compat::features::is_derived;
use crate::compat::features::is_feature;
use crate::compat::leaves::is_the_hosts;
use crate::cpuid::Modifier;
use crate::cpuid::Modifiers;
use crate::cpuid::Register;
use crate::cpuid::Vendor;
use crate::number::Hex;
use crate::snapshot::Host;
use crate::snapshot::Kind;
use crate::snapshot::SCHEMA;
use crate::snapshot::Snapshot;
use crate::snapshot::Value;

/// The MSR file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MsrProfile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_vendor: Option<String>,
    #[serde(default, skip_serializing)]
    #[allow(dead_code, reason = "it is allowed, but not used")]
    hypervisor_type: Option<IgnoredAny>,
    adjustments: Vec<(Hex<u32>, Adjustment<u64>)>,
    #[serde(alias = "permitted_msrs")]
    #[serde(default)]
    required_msrs: Vec<Hex<u32>>,
}

/// The CPUID file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CpuidProfile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_vendor: Option<String>,
    #[serde(default, skip_serializing)]
    #[serde(alias = "hypervisor_type")]
    #[allow(dead_code, reason = "it is allowed, but not used")]
    hypervisor: Option<IgnoredAny>,
    adjustments: Vec<(Place, Adjustment<u32>)>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(bound(deserialize = "T: TryFrom<u64>", serialize = "T: std::fmt::LowerHex"))]
#[serde(deny_unknown_fields)]
struct Adjustment<T> {
    replacements: Hex<T>,
    mask: Hex<T>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Place {
    leaf: Hex<u32>,
    sub_leaf: Range,
    register: Capital,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Range {
    start: Hex<u32>,
    end: Hex<u32>,
}

/// A register's name in cloud-hypervisor.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Capital {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl From<Capital> for Register {
    fn from(register: Capital) -> Self {
        match register {
            Capital::Eax => Register::Eax,
            Capital::Ebx => Register::Ebx,
            Capital::Ecx => Register::Ecx,
            Capital::Edx => Register::Edx,
        }
    }
}

impl From<Register> for Capital {
    fn from(register: Register) -> Self {
        match register {
            Register::Eax => Capital::Eax,
            Register::Ebx => Capital::Ebx,
            Register::Ecx => Capital::Ecx,
            Register::Edx => Capital::Edx,
        }
    }
}

/// The `adjustments` of either file, as far as needed to distinguish them.
#[derive(Deserialize)]
pub struct Outline {
    #[serde(default)]
    adjustments: Vec<(First, IgnoredAny)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum First {
    Index(#[allow(dead_code, reason = "its kind says it all")] String),
    Other(#[allow(dead_code, reason = "its kind says it all")] IgnoredAny),
}

impl Outline {
    /// Whether these are adjustments of MSRs.
    pub fn is_of_msrs(&self) -> bool {
        matches!(self.adjustments.first(), Some((First::Index(_), _)))
    }
}

fn host_of(vendor: Option<&str>) -> Host {
    Host {
        vendor: match vendor {
            Some("Intel") => Some(Vendor::Intel),
            Some("AMD") => Some(Vendor::Amd),
            _ => None,
        },
        ..Default::default()
    }
}

impl From<MsrProfile> for Snapshot {
    fn from(profile: MsrProfile) -> Self {
        let host = host_of(profile.cpu_vendor.as_deref());
        let msrs: Vec<Value> = profile
            .adjustments
            .iter()
            .map(|&(index, Adjustment { replacements, mask })| {
                let given = !mask.0 | replacements.0;

                Value {
                    index,
                    name: catalogue::name(index.0, host.vendor),
                    value: replacements,
                    mask: (given != u64::MAX).then_some(Hex(given)),
                    moves: false,
                }
            })
            .collect();

        Snapshot {
            schema: SCHEMA,
            kind: Kind::Profile,
            host,
            saved: profile.required_msrs,
            features: msrs.clone(),
            msrs,
            ..Default::default()
        }
    }
}

impl From<CpuidProfile> for Snapshot {
    fn from(profile: CpuidProfile) -> Self {
        let registers = profile.adjustments.iter().map(|(place, adjustment)| {
            let range = &place.sub_leaf;

            Modifier {
                function: place.leaf,
                index: range.start,
                last_index: (range.end != range.start).then_some(range.end),
                flags: 0,
                register: place.register.into(),
                value: adjustment.replacements,
                mask: Hex(!adjustment.mask.0 | adjustment.replacements.0),
            }
        });

        Snapshot {
            schema: SCHEMA,
            kind: Kind::Profile,
            host: host_of(profile.cpu_vendor.as_deref()),
            cpuid_modifiers: Modifiers {
                zero_rest: true,
                registers: registers.collect(),
            },
            ..Default::default()
        }
    }
}

/// The MSR file for a snapshot: the vCPU's feature MSRs as adjustments, and all MSRs that the host
/// lists as required.
pub fn msr_profile(snapshot: &Snapshot) -> MsrProfile {
    let listed = |index: Hex<u32>| {
        snapshot
            .features
            .iter()
            .any(|feature| feature.index == index)
    };
    let is_feature = |msr: &&Value| match snapshot.features.is_empty() {
        true => is_feature(msr.index.0),
        false => listed(msr.index),
    };
    let adjustments: Vec<_> = snapshot
        .msrs
        .iter()
        .filter(is_feature)
        .filter(|msr| !is_derived(msr.index.0))
        .map(|msr| {
            let adjustment = Adjustment {
                replacements: Hex(msr.value.0 & msr.given()),
                mask: Hex(!msr.given()),
            };

            (msr.index, adjustment)
        })
        .collect();
    let mut required: Vec<Hex<u32>> = snapshot
        .saved
        .iter()
        .copied()
        .chain(snapshot.features.iter().map(|feature| feature.index))
        .collect();

    required.sort_unstable();
    required.dedup();
    MsrProfile {
        cpu_vendor: None,
        hypervisor_type: None,
        adjustments,
        required_msrs: required,
    }
}

/// The CPUID file for a snapshot. Topology, caches and similar properties stay the host's.
///
/// # Errors
///
/// What the format can't express.
pub fn cpuid_profile(snapshot: &Snapshot) -> Result<CpuidProfile, String> {
    let modifiers = &snapshot.cpuid_modifiers;
    let place = |function, start, end, register: Register| Place {
        leaf: function,
        sub_leaf: Range { start, end },
        register: register.into(),
    };
    let mut adjustments = Vec::new();

    if modifiers.is_empty() && snapshot.cpuid.0.is_empty() {
        return Err("it has no CPUID".to_owned());
    }
    if !modifiers.zero_rest && !modifiers.registers.is_empty() {
        return Err(
            "a CPU profile clears all registers that it does not name, but a template leaves \
             them unchanged"
                .to_owned(),
        );
    }
    for modifier in &modifiers.registers {
        adjustments.push((
            place(
                modifier.function,
                modifier.index,
                modifier.last_index.unwrap_or(modifier.index),
                modifier.register,
            ),
            Adjustment {
                replacements: Hex(modifier.value.0 & modifier.mask.0),
                mask: Hex(!modifier.mask.0),
            },
        ));
    }
    for leaf in &snapshot.cpuid.0 {
        for register in Register::ALL {
            let stays = is_the_hosts(leaf.function.0, leaf.index.0, register);

            adjustments.push((
                place(leaf.function, leaf.index, leaf.index, register),
                Adjustment {
                    replacements: Hex(leaf.get(register) & !stays),
                    mask: Hex(stays),
                },
            ));
        }
    }
    Ok(CpuidProfile {
        cpu_vendor: None,
        hypervisor: None,
        adjustments,
    })
}
