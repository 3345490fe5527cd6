// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Compares two snapshots, field by field.

mod fields;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Serialize;

use crate::catalogue;
use crate::cpuid::Cpuid;
use crate::cpuid::Leaf;
use crate::cpuid::Modifier;
use crate::cpuid::Register;
use crate::cpuid::Vendor;
use crate::number::Hex;
use crate::snapshot::Host;
use crate::snapshot::SCHEMA;
use crate::snapshot::Snapshot;
use crate::snapshot::Value;

pub use fields::Field;

/// What to compare. By default all, except MSRs that change by themselves.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Whether to compare MSRs that change by themselves.
    pub moving: bool,
    /// Parts to ignore.
    pub ignored: Vec<Part>,
}

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Where it was taken.
    Host,
    /// CPUID.
    Cpuid,
    /// MSRs that are listed to save, and MSRs that can't be read.
    Lists,
    /// The host's features.
    Features,
    /// The vCPU's MSRs.
    Msrs,
}

/// The difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The name of the first snapshot.
    pub a: String,
    /// The name of the second snapshot.
    pub b: String,
    /// Whether there is no difference.
    pub equal: bool,
    /// Differences of the hosts.
    pub host: Vec<Fact>,
    /// Registers of CPUID.
    pub cpuid: Vec<CpuidRegister>,
    /// `KVM_GET_MSR_INDEX_LIST`
    pub saved: Lists,
    /// MSRs that are listed, and can't be read.
    pub unreadable: Lists,
    /// The host's features.
    pub features: Vec<Msr>,
    /// The vCPU's MSRs.
    pub msrs: Vec<Msr>,
    /// The number of MSRs that were not compared, because they change by themselves.
    pub moving: usize,
}

/// A fact about the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fact {
    /// Its name.
    pub name: String,
    /// Its value in the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<String>,
    /// Its value in the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<String>,
}

/// A register of CPUID.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CpuidRegister {
    /// EAX of the instruction.
    pub function: Hex<u32>,
    /// ECX of the instruction.
    pub index: Hex<u32>,
    /// The last ECX, in a VMM's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_index: Option<Hex<u32>>,
    /// The register.
    pub register: Register,
    /// The value in the first; none if the leaf is missing or left to the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Hex<u32>>,
    /// The value in the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Hex<u32>>,
    /// The numbers of the bits that differ.
    pub bits: Vec<u8>,
}

/// MSRs of lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lists {
    /// Those only in the first.
    pub only_a: Vec<Listed>,
    /// Those only in the second.
    pub only_b: Vec<Listed>,
}

/// An MSR of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listed {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An MSR.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Msr {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it changes by itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
    /// Its value in the first; none if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Hex<u64>>,
    /// Its value in the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Hex<u64>>,
    /// Bits that only one of the two gives, in a VMM's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_by_one: Option<Hex<u64>>,
    /// The fields that differ, if both have the MSR.
    pub fields: Vec<Field>,
}

/// Compares two snapshots, each with its name.
pub fn compare(a: (&str, &Snapshot), b: (&str, &Snapshot), scope: &Scope) -> Report {
    let ((name_a, a), (name_b, b)) = (a, b);
    let wanted = |part| !scope.ignored.contains(&part);
    let vendor = a.vendor().or(b.vendor());
    let mut moving = 0;
    let mut report = Report {
        schema: SCHEMA,
        a: name_a.to_owned(),
        b: name_b.to_owned(),
        equal: false,
        host: Vec::new(),
        cpuid: Vec::new(),
        saved: Lists::default(),
        unreadable: Lists::default(),
        features: Vec::new(),
        msrs: Vec::new(),
        moving: 0,
    };

    if wanted(Part::Host) {
        report.host = facts(&a.host, &b.host);
    }
    if wanted(Part::Cpuid) {
        report.cpuid = registers(&a.cpuid, &b.cpuid);
        report.cpuid.extend(modifiers(a, b));
    }
    if wanted(Part::Lists) {
        report.saved = lists(&a.saved, &b.saved, vendor);
        report.unreadable = lists(&a.unreadable, &b.unreadable, vendor);
    }
    if wanted(Part::Features) {
        report.features = msrs(&a.features, &b.features, vendor, scope.moving, &mut moving);
    }
    if wanted(Part::Msrs) {
        report.msrs = msrs(&a.msrs, &b.msrs, vendor, scope.moving, &mut moving);
    }
    report.moving = moving;
    report.equal = report.host.is_empty()
        && report.cpuid.is_empty()
        && report.saved == Lists::default()
        && report.unreadable == Lists::default()
        && report.features.is_empty()
        && report.msrs.is_empty();
    report
}

/// All facts about a host, by name.
fn all_facts(host: &Host) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::from([("engine".to_owned(), host.engine.to_string())]);
    let vendor = host.vendor.map(|vendor| match vendor {
        Vendor::Amd => "amd",
        Vendor::Intel => "intel",
    });
    let texts = [
        ("kernel", Some(host.kernel.as_str())),
        ("vendor", vendor),
        ("cpu", Some(host.cpu.as_str())),
        ("microcode", host.microcode.as_deref()),
    ];

    for (name, text) in texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            facts.insert(name.to_owned(), text.to_owned());
        }
    }
    for (module, parameters) in &host.parameters {
        for (parameter, value) in parameters {
            facts.insert(format!("{module}.{parameter}"), value.clone());
        }
    }
    facts.extend(
        host.facts
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    facts
}

fn facts(a: &Host, b: &Host) -> Vec<Fact> {
    let (a, b) = (all_facts(a), all_facts(b));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();

    names
        .into_iter()
        .filter(|&name| a.get(name) != b.get(name))
        .map(|name| Fact {
            name: name.clone(),
            a: a.get(name).cloned(),
            b: b.get(name).cloned(),
        })
        .collect()
}

fn registers(a: &Cpuid, b: &Cpuid) -> Vec<CpuidRegister> {
    let by_place = |cpuid: &Cpuid| -> BTreeMap<(Hex<u32>, Hex<u32>), Leaf> {
        // If two are for the same place, the first one applies.
        cpuid
            .0
            .iter()
            .rev()
            .map(|leaf| ((leaf.function, leaf.index), *leaf))
            .collect()
    };
    let (a, b) = (by_place(a), by_place(b));
    let places: BTreeSet<_> = a.keys().chain(b.keys()).copied().collect();
    let mut differing = Vec::new();

    for place in places {
        for register in Register::ALL {
            let of = |leaves: &BTreeMap<_, Leaf>| leaves.get(&place).map(|leaf| leaf.get(register));

            differing.extend(differ(place, None, register, of(&a), of(&b)));
        }
    }
    differing
}

/// Bits with the APIC ID of the CPU on which KVM_GET_SUPPORTED_CPUID ran. They do not describe the
/// host.
fn apic_id(function: u32, register: Register) -> u32 {
    match (function, register) {
        (0x1, Register::Ebx) => 0xff << 24,
        (0xb | 0x1f, Register::Edx) | (0x8000_001e, Register::Eax) => u32::MAX,
        _ => 0,
    }
}

/// The register if it differs. A missing one and one that is 0 differ if one is a template's.
fn differ(
    (function, index): (Hex<u32>, Hex<u32>),
    last_index: Option<Hex<u32>>,
    register: Register,
    a: Option<u32>,
    b: Option<u32>,
) -> Option<CpuidRegister> {
    let differing = (a.unwrap_or(0) ^ b.unwrap_or(0)) & !apic_id(function.0, register);

    (differing != 0).then(|| CpuidRegister {
        function,
        index,
        last_index,
        register,
        a: a.map(Hex),
        b: b.map(Hex),
        bits: (0..32).filter(|bit| differing >> bit & 1 != 0).collect(),
    })
}

/// Compares changes of templates: bits that differ, or that only one gives.
fn modifiers(a: &Snapshot, b: &Snapshot) -> Vec<CpuidRegister> {
    let (a, b) = (&a.cpuid_modifiers, &b.cpuid_modifiers);
    let place = |m: &Modifier| (m.function, m.index, m.last_index, m.register as u8);
    let find = |all: &[Modifier], at: &Modifier| {
        all.iter().find(|other| place(other) == place(at)).copied()
    };
    let mut places: BTreeMap<_, Modifier> = BTreeMap::new();

    for modifier in a.registers.iter().chain(&b.registers) {
        places.entry(place(modifier)).or_insert(*modifier);
    }
    let bits = |modifier: Option<Modifier>, zero_rest: bool| match modifier {
        Some(modifier) => (modifier.value.0 & modifier.mask.0, modifier.mask.0),
        None if zero_rest => (0, u32::MAX),
        None => (0, 0),
    };

    places
        .values()
        .filter_map(|at| {
            let (of_a, of_b) = (find(&a.registers, at), find(&b.registers, at));
            let (value_a, given_a) = bits(of_a, a.zero_rest);
            let (value_b, given_b) = bits(of_b, b.zero_rest);
            let differing = value_a ^ value_b | given_a ^ given_b;

            (differing != 0).then(|| CpuidRegister {
                function: at.function,
                index: at.index,
                last_index: at.last_index,
                register: at.register,
                a: of_a.map(|_| Hex(value_a)),
                b: of_b.map(|_| Hex(value_b)),
                bits: (0..32).filter(|bit| differing >> bit & 1 != 0).collect(),
            })
        })
        .collect()
}

fn lists(a: &[Hex<u32>], b: &[Hex<u32>], vendor: Option<Vendor>) -> Lists {
    let only = |list: &[Hex<u32>], other: &[Hex<u32>]| {
        let other: BTreeSet<_> = other.iter().collect();

        list.iter()
            .filter(|index| !other.contains(index))
            .map(|&index| Listed {
                index,
                name: catalogue::name(index.0, vendor),
            })
            .collect()
    };

    Lists {
        only_a: only(a, b),
        only_b: only(b, a),
    }
}

fn msrs(
    a: &[Value],
    b: &[Value],
    vendor: Option<Vendor>,
    with_moving: bool,
    moving: &mut usize,
) -> Vec<Msr> {
    let by_index = |values: &[Value]| -> BTreeMap<Hex<u32>, Value> {
        values
            .iter()
            .map(|value| (value.index, value.clone()))
            .collect()
    };
    let (a, b) = (by_index(a), by_index(b));
    let indices: BTreeSet<Hex<u32>> = a.keys().chain(b.keys()).copied().collect();
    let mut differing = Vec::new();

    for index in indices {
        let (a, b) = (a.get(&index), b.get(&index));
        let values = || a.into_iter().chain(b);
        let moves = values().any(|value| value.moves);

        if moves && !with_moving && a.is_some() && b.is_some() {
            *moving += 1;
            continue;
        }
        let bits = |value: &Value| value.value.0 & value.given();
        let (fields, given_by_one) = match (a, b) {
            (Some(a), Some(b)) => {
                let both = a.given() & b.given();
                let fields = fields::changed(index.0, vendor, a.value.0 & both, b.value.0 & both);

                (fields, a.given() ^ b.given())
            }
            _ => (Vec::new(), 0),
        };

        if a.is_none() || b.is_none() || !fields.is_empty() || given_by_one != 0 {
            differing.push(Msr {
                index,
                name: values()
                    .find_map(|value| value.name.clone())
                    .or_else(|| catalogue::name(index.0, vendor)),
                moves,
                a: a.map(|value| Hex(bits(value))),
                b: b.map(|value| Hex(bits(value))),
                given_by_one: (given_by_one != 0).then_some(Hex(given_by_one)),
                fields,
            });
        }
    }
    differing
}

#[cfg(test)]
mod tests;
