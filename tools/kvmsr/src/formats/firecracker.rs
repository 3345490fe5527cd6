// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Firecracker's custom CPU templates and the fingerprints of its cpu-template-helper.
//!
//! A template has lists of modifiers:
//!
//! - `cpuid_modifiers`: `leaf` and `subleaf` as strings, `flags` (`KVM_CPUID_FLAG_*`) as a number,
//!   and `modifiers`, each with a `register` and a `bitmap` of up to 32 bits;
//! - `msr_modifiers`: `addr` as a string, and a `bitmap` of up to 64 bits;
//! - `kvm_capabilities`: numbers as strings, `"!69"` for one that is not checked.
//!
//! All members are optional. `cpu-template-helper template dump` writes the same form, with all
//! bits and all leaves of a guest; such a file becomes a CPUID, any other one [`Modifiers`]. A
//! template for Arm has `reg_modifiers` instead.
//!
//! A fingerprint has a dumped template in `guest_cpu_config`, and five strings about the host.
//! `kernel_version` and `microcode_version` are in [`Host`], the others in [`Host::facts`].
//!
//! Source: firecracker-microvm/firecracker at 81b38b9 (1.16.0-dev), docs/cpu_templates/schema.json,
//! src/vmm/src/cpu_config/x86_64/custom_cpu_template.rs, src/vmm/src/cpu_config/templates.rs and
//! src/cpu-template-helper/src/fingerprint/mod.rs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::bitmap::Bitmap;
use crate::catalogue;
use crate::cpuid::Cpuid;
use crate::cpuid::Leaf;
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

/// A template.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    #[serde(default)]
    kvm_capabilities: Vec<String>,
    #[serde(default)]
    cpuid_modifiers: Vec<LeafModifier>,
    #[serde(default)]
    msr_modifiers: Vec<MsrModifier>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LeafModifier {
    leaf: Hex<u32>,
    subleaf: Hex<u32>,
    flags: u32,
    modifiers: Vec<RegisterModifier>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RegisterModifier {
    register: Register,
    bitmap: Bitmap<32>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct MsrModifier {
    addr: Hex<u32>,
    bitmap: Bitmap<64>,
}

/// A fingerprint.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    firecracker_version: String,
    kernel_version: String,
    microcode_version: String,
    bios_version: String,
    bios_revision: String,
    guest_cpu_config: Template,
}

/// The members of a fingerprint's template that tell its architecture.
#[derive(Debug, Deserialize)]
pub struct Outline {
    guest_cpu_config: BTreeMap<String, IgnoredAny>,
}

impl Outline {
    /// Whether it is for Arm.
    pub fn is_for_arm(&self) -> bool {
        ["reg_modifiers", "vcpu_features"]
            .iter()
            .any(|&key| self.guest_cpu_config.contains_key(key))
    }
}

const CAPABILITIES: &str = "kvm_capabilities";
const FIRECRACKER_VERSION: &str = "firecracker_version";
const BIOS_VERSION: &str = "bios_version";
const BIOS_REVISION: &str = "bios_revision";

impl From<Template> for Snapshot {
    fn from(template: Template) -> Self {
        let mut facts = BTreeMap::new();
        let (cpuid, cpuid_modifiers) = cpuid_of(&template.cpuid_modifiers);
        let vendor = cpuid.vendor();

        if !template.kvm_capabilities.is_empty() {
            facts.insert(CAPABILITIES.to_owned(), template.kvm_capabilities.join(" "));
        }
        Snapshot {
            schema: SCHEMA,
            kind: Kind::Profile,
            host: Host {
                facts,
                ..Default::default()
            },
            msrs: template
                .msr_modifiers
                .iter()
                .map(|modifier| Value {
                    index: modifier.addr,
                    name: catalogue::name(modifier.addr.0, vendor),
                    value: Hex(modifier.bitmap.value),
                    mask: (modifier.bitmap.mask != u64::MAX).then_some(Hex(modifier.bitmap.mask)),
                    moves: catalogue::moves(modifier.addr.0),
                })
                .collect(),
            cpuid,
            cpuid_modifiers,
            ..Default::default()
        }
    }
}

impl From<Fingerprint> for Snapshot {
    fn from(fingerprint: Fingerprint) -> Self {
        let mut snapshot = Snapshot::from(fingerprint.guest_cpu_config);

        snapshot.host.vendor = snapshot.cpuid.vendor();
        snapshot.host.kernel = fingerprint.kernel_version;
        snapshot.host.microcode = Some(fingerprint.microcode_version);
        snapshot.host.facts.extend([
            (
                FIRECRACKER_VERSION.to_owned(),
                fingerprint.firecracker_version,
            ),
            (BIOS_VERSION.to_owned(), fingerprint.bios_version),
            (BIOS_REVISION.to_owned(), fingerprint.bios_revision),
        ]);
        snapshot
    }
}

/// A CPUID if it is complete, otherwise modifiers.
fn cpuid_of(modifiers: &[LeafModifier]) -> (Cpuid, Modifiers) {
    let leaves: Option<Vec<Leaf>> = modifiers.iter().map(whole_leaf).collect();

    match leaves {
        Some(leaves) if leaves.iter().any(|leaf| leaf.function.0 == 0) => {
            (Cpuid(leaves), Modifiers::default())
        }
        _ => (Cpuid::default(), partial(modifiers)),
    }
}

/// A leaf whose registers are given completely.
fn whole_leaf(modifier: &LeafModifier) -> Option<Leaf> {
    let register = |register| {
        let mut of_it = modifier.modifiers.iter().filter(|m| m.register == register);
        let bitmap = of_it.next()?.bitmap;

        (bitmap.mask == Bitmap::<32>::ALL && of_it.next().is_none())
            .then_some(Hex(bitmap.value as u32))
    };

    Some(Leaf {
        function: modifier.leaf,
        index: modifier.subleaf,
        flags: modifier.flags,
        eax: register(Register::Eax)?,
        ebx: register(Register::Ebx)?,
        ecx: register(Register::Ecx)?,
        edx: register(Register::Edx)?,
    })
}

fn partial(modifiers: &[LeafModifier]) -> Modifiers {
    let registers = modifiers.iter().flat_map(|leaf| {
        leaf.modifiers.iter().map(|modifier| Modifier {
            function: leaf.leaf,
            index: leaf.subleaf,
            last_index: None,
            flags: leaf.flags,
            register: modifier.register,
            value: Hex(modifier.bitmap.value as u32),
            mask: Hex(modifier.bitmap.mask as u32),
        })
    });

    Modifiers {
        zero_rest: false,
        registers: registers.collect(),
    }
}

/// MSRs that Firecracker's tool leaves out of a template: those that change by themselves, and
/// those that its guests lack (machine checks, PEBS, AMD's performance counters,
/// IA32_PERF_CAPABILITIES).
///
/// Source: firecracker, `src/cpu-template-helper/src/template/dump/x86_64.rs`, 1.16.
const LEFT_OUT: &[RangeInclusive<u32>] = &[
    0x10..=0x10,
    0x17a..=0x17a,
    0x345..=0x345,
    0x3f1..=0x3f2,
    0x4d0..=0x4d0,
    0x600..=0x600,
    0x6e0..=0x6e0,
    0xc001_0000..=0xc001_0007,
    0xc001_0200..=0xc001_020b,
];

/// An MSR that it also leaves out on AMD: IA32_ARCH_CAPABILITIES.
const LEFT_OUT_ON_AMD: u32 = 0x10a;

/// Whether a template has an MSR of a snapshot: Firecracker's tool starts with KVM's list. A file
/// without this list is a template itself, and keeps its MSRs.
fn is_for_template(snapshot: &Snapshot, msr: &Value) -> bool {
    let index = msr.index.0;

    if snapshot.saved.is_empty() {
        return !msr.moves;
    }
    snapshot.saved.contains(&msr.index)
        && !msr.moves
        && !LEFT_OUT.iter().any(|range| range.contains(&index))
        && (index != LEFT_OUT_ON_AMD || snapshot.vendor() != Some(Vendor::Amd))
}

/// A template for a snapshot, with the MSRs that Firecracker's own tool selects.
///
/// # Errors
///
/// What a template can't express.
pub fn template(snapshot: &Snapshot) -> Result<Template, String> {
    let capabilities = snapshot.host.facts.get(CAPABILITIES);
    let mut cpuid_modifiers: Vec<LeafModifier> =
        snapshot.cpuid.0.iter().map(leaf_modifier).collect();

    if snapshot.cpuid_modifiers.zero_rest {
        return Err("a template can't clear all other registers of CPUID".to_owned());
    }
    for modifier in &snapshot.cpuid_modifiers.registers {
        if modifier.last_index.is_some() {
            return Err(format!(
                "a template can't have a range of subleaves, as for CPUID {:#x}",
                modifier.function.0
            ));
        }
        let register = RegisterModifier {
            register: modifier.register,
            bitmap: Bitmap {
                value: modifier.value.0.into(),
                mask: modifier.mask.0.into(),
            },
        };

        match cpuid_modifiers.last_mut() {
            Some(leaf) if leaf.leaf == modifier.function && leaf.subleaf == modifier.index => {
                leaf.modifiers.push(register);
            }
            _ => cpuid_modifiers.push(LeafModifier {
                leaf: modifier.function,
                subleaf: modifier.index,
                flags: modifier.flags,
                modifiers: vec![register],
            }),
        }
    }
    Ok(Template {
        kvm_capabilities: capabilities
            .map(|all| all.split(' ').map(str::to_owned).collect())
            .unwrap_or_default(),
        cpuid_modifiers,
        msr_modifiers: snapshot
            .msrs
            .iter()
            .filter(|msr| is_for_template(snapshot, msr))
            .map(|msr| MsrModifier {
                addr: msr.index,
                bitmap: Bitmap {
                    value: msr.value.0 & msr.given(),
                    mask: msr.given(),
                },
            })
            .collect(),
    })
}

fn leaf_modifier(leaf: &Leaf) -> LeafModifier {
    LeafModifier {
        leaf: leaf.function,
        subleaf: leaf.index,
        flags: leaf.flags,
        modifiers: Register::ALL
            .map(|register| RegisterModifier {
                register,
                bitmap: Bitmap {
                    value: leaf.get(register).into(),
                    mask: Bitmap::<32>::ALL,
                },
            })
            .into(),
    }
}

/// A fingerprint for a snapshot. Unknown strings are `unknown`.
///
/// # Errors
///
/// As [`template`].
pub fn fingerprint(snapshot: &Snapshot) -> Result<Fingerprint, String> {
    let host = &snapshot.host;
    let known = |text: Option<&String>| match text {
        Some(text) if !text.is_empty() => text.clone(),
        _ => "unknown".to_owned(),
    };

    Ok(Fingerprint {
        firecracker_version: known(host.facts.get(FIRECRACKER_VERSION)),
        kernel_version: known(Some(&host.kernel)),
        microcode_version: known(host.microcode.as_ref()),
        bios_version: known(host.facts.get(BIOS_VERSION)),
        bios_revision: known(host.facts.get(BIOS_REVISION)),
        guest_cpu_config: template(snapshot)?,
    })
}
