// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The common part of several CPUIDs.

use super::leaves::rules;
use super::report::Lost;
use super::report::Part;
use super::report::Place;
use super::rule;
use super::rule::Bits;
use super::rule::Common;
use super::rule::Rule;
use crate::cpuid::Cpuid;
use crate::cpuid::Leaf;
use crate::cpuid::Modifier;
use crate::cpuid::Modifiers;
use crate::cpuid::Register;
use crate::number::Hex;
use crate::snapshot::Snapshot;

/// Family, model and stepping in a form that can be compared: extended family and family, extended
/// model and model, stepping.
pub fn model(cpuid: &Cpuid) -> [u32; 3] {
    let signature = cpuid.register(1, 0, Register::Eax);
    let field = |shift: u32, mask: u32| signature >> shift & mask;

    [
        field(20, 0xff) + field(8, 0xf),
        field(16, 0xf) << 4 | field(4, 0xf),
        field(0, 0xf),
    ]
}

/// Whether all CPUIDs have one family and model, which KVM requires for some features.
pub fn is_one_model(snapshots: &[&Snapshot]) -> bool {
    let mut models = snapshots
        .iter()
        .filter(|snapshot| !snapshot.cpuid.0.is_empty())
        .map(|snapshot| {
            let [family, model, _] = model(&snapshot.cpuid);

            (snapshot.cpuid.vendor(), family, model)
        });
    let first = models.next();

    models.all(|model| Some(model) == first)
}

/// Puts the common part into the profile.
pub fn combine(
    snapshots: &[&Snapshot],
    base: usize,
    names: &[&str],
    profile: &mut Snapshot,
    lost: &mut Vec<Lost>,
) {
    let mut cpuids = Vec::new();
    let mut cpuid_names = Vec::new();
    let mut templates = Vec::new();
    let mut base_of_cpuids = 0;

    for (place, (snapshot, name)) in snapshots.iter().zip(names).enumerate() {
        if !snapshot.cpuid.0.is_empty() {
            if place == base {
                base_of_cpuids = cpuids.len();
            }
            cpuids.push(&snapshot.cpuid);
            cpuid_names.push(*name);
        }
        if !snapshot.cpuid_modifiers.is_empty() {
            templates.push((&snapshot.cpuid_modifiers, *name));
        }
    }
    if cpuids.is_empty() {
        // The template with the lowest MSRs is the base. Any choice will do that does not depend
        // on the order.
        let base = snapshots
            .get(base)
            .map(|snapshot| &snapshot.cpuid_modifiers);

        profile.cpuid_modifiers = combine_modifiers(&templates, base);
        return;
    }
    let common = Common {
        base: base_of_cpuids,
        one_model: is_one_model(snapshots),
    };

    profile.cpuid = combine_cpuids(&cpuids, common, &cpuid_names, lost);
    for (modifiers, name) in templates {
        restrict(&mut profile.cpuid, modifiers, name, lost);
    }
}

/// The leaf with exactly this function and index. (`Cpuid::leaf()` is the leaf that the
/// instruction would return.)
fn at(cpuid: &Cpuid, function: Hex<u32>, index: Hex<u32>) -> Option<&Leaf> {
    cpuid
        .0
        .iter()
        .find(|leaf| leaf.function == function && leaf.index == index)
}

fn combine_cpuids(
    cpuids: &[&Cpuid],
    common: Common,
    names: &[&str],
    lost: &mut Vec<Lost>,
) -> Cpuid {
    let Some(base) = cpuids.get(common.base) else {
        return Cpuid::default();
    };
    let mut profile = Cpuid::default();
    // Components of XSAVE whose offsets differ between the hosts.
    let mut components = 0u64;

    for leaf in &base.0 {
        let (function, index) = (leaf.function, leaf.index);
        let is_the_hosts = Register::ALL.iter().all(|&register| {
            matches!(
                rules(function.0, index.0, register),
                [Rule::Hosts(u64::MAX)]
            )
        });
        let place = |register| Place {
            function,
            index,
            register,
        };
        let missing: Vec<String> = cpuids
            .iter()
            .zip(names)
            .filter(|(cpuid, _)| {
                if is_the_hosts {
                    !cpuid.0.iter().any(|leaf| leaf.function == function)
                } else {
                    at(cpuid, function, index).is_none()
                }
            })
            .map(|(_, &name)| name.to_owned())
            .collect();

        if !missing.is_empty() {
            lost.push(Lost::cpuid(place(None)).because("no such leaf", missing));
            continue;
        }
        if is_the_hosts {
            profile.0.push(*leaf);
            continue;
        }
        let mut combined = *leaf;
        let mut is_possible = true;

        for register in Register::ALL {
            let hosts: Vec<Bits> = cpuids
                .iter()
                .filter_map(|cpuid| at(cpuid, function, index))
                .map(|leaf| Bits {
                    value: leaf.get(register).into(),
                    given: u64::MAX,
                })
                .collect();
            let result = rule::combine(rules(function.0, index.0, register), &hosts, common);

            match result.bits {
                Some(bits) => combined.set(register, bits.value as u32),
                None => is_possible = false,
            }
            lost.extend(
                result
                    .changes
                    .iter()
                    .filter(|change| !matches!(change.rule, Rule::Hosts(_)))
                    .map(|change| Lost::cpuid(place(Some(register))).by(change, names)),
            );
        }
        if is_possible {
            profile.0.push(combined);
        } else {
            components |= 1u64.checked_shl(index.0).unwrap_or(0);
        }
    }
    lost_by_base(cpuids, base, names, lost);
    without_components(&mut profile, components);
    profile
}

/// Reports leaves that others have, but the base lacks.
fn lost_by_base(cpuids: &[&Cpuid], base: &Cpuid, names: &[&str], lost: &mut Vec<Lost>) {
    let mut seen = Vec::new();

    for leaf in cpuids.iter().flat_map(|cpuid| &cpuid.0) {
        let (function, index) = (leaf.function, leaf.index);

        if at(base, function, index).is_some() || seen.contains(&(function, index)) {
            continue;
        }
        let missing = cpuids
            .iter()
            .zip(names)
            .filter(|(cpuid, _)| at(cpuid, function, index).is_none())
            .map(|(_, &name)| name.to_owned())
            .collect();
        let place = Place {
            function,
            index,
            register: None,
        };

        seen.push((function, index));
        lost.push(Lost::cpuid(place).because("no such leaf", missing));
    }
}

/// Removes components of XSAVE from the lists of components.
fn without_components(cpuid: &mut Cpuid, components: u64) {
    let (low, high) = (components as u32, (components >> 32) as u32);

    for leaf in &mut cpuid.0 {
        match (leaf.function.0, leaf.index.0) {
            (0xd, 0) => {
                leaf.eax.0 &= !low;
                leaf.edx.0 &= !high;
            }
            (0xd, 1) => {
                leaf.ecx.0 &= !low;
                leaf.edx.0 &= !high;
            }
            _ => {}
        }
    }
}

/// Clears the bits that a template clears. Hosts need not have the bits that it sets.
fn restrict(cpuid: &mut Cpuid, modifiers: &Modifiers, name: &str, lost: &mut Vec<Lost>) {
    for leaf in &mut cpuid.0 {
        for register in Register::ALL {
            let offers = rules(leaf.function.0, leaf.index.0, register)
                .iter()
                .fold(u64::MAX, |bits, rule| bits & !rule.mask()) as u32;
            let cleared = match modifiers.of(leaf, register) {
                Some(modifier) => modifier.mask.0 & !modifier.value.0,
                None if modifiers.zero_rest => u32::MAX,
                None => 0,
            };
            let taken = leaf.get(register) & offers & cleared;

            if taken != 0 {
                let place = Place {
                    function: leaf.function,
                    index: leaf.index,
                    register: Some(register),
                };

                leaf.set(register, leaf.get(register) & !taken);
                lost.push(Lost {
                    bits: Some(Hex(taken.into())),
                    ..Lost::cpuid(place).because("not supported", vec![name.to_owned()])
                });
            }
        }
    }
    debug_assert!(lost.iter().all(|lost| lost.part == Part::Cpuid));
}

/// The common part of templates: bits that all set, and bits that any clears.
fn combine_modifiers(templates: &[(&Modifiers, &str)], base: Option<&Modifiers>) -> Modifiers {
    let place = |m: &Modifier| (m.function, m.index, m.last_index, m.register as u8);
    let mut all: Vec<Modifier> = Vec::new();
    let mut rest: Vec<Modifier> = templates
        .iter()
        .flat_map(|(modifiers, _)| &modifiers.registers)
        .copied()
        .collect();

    rest.sort_by_key(|m| (place(m), m.flags, m.value, m.mask));
    for modifier in base.iter().flat_map(|base| &base.registers).chain(&rest) {
        if !all.iter().any(|known| place(known) == place(modifier)) {
            all.push(*modifier);
        }
    }
    all.retain_mut(|modifier| {
        let of_each = templates.iter().map(|(modifiers, _)| {
            let found = modifiers
                .registers
                .iter()
                .find(|other| place(other) == place(modifier));

            match found {
                Some(found) => (found.value.0, found.mask.0),
                None if modifiers.zero_rest => (0, u32::MAX),
                None => (0, 0),
            }
        });
        let (set, cleared) = of_each.fold((u32::MAX, 0), |(set, cleared), (value, mask)| {
            (set & value & mask, cleared | mask & !value)
        });

        modifier.value.0 = set;
        modifier.mask.0 = set | cleared;
        templates.len() == 1 || modifier.mask.0 != 0
    });
    Modifiers {
        zero_rest: templates.iter().any(|(modifiers, _)| modifiers.zero_rest),
        registers: all,
    }
}
