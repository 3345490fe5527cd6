// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The common part of the MSRs.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;

use super::cpuid::is_one_model;
use super::features;
use super::features::STATE;
use super::report::Lost;
use super::report::Part;
use super::rule;
use super::rule::Bits;
use super::rule::Common;
use super::rule::Rule;
use crate::catalogue;
use crate::catalogue::Feature;
use crate::catalogue::Initiator;
use crate::cpuid::Cpuid;
use crate::cpuid::Register;
use crate::number::Hex;
use crate::snapshot::Snapshot;
use crate::snapshot::Value;

/// Whether files name more than one vendor.
pub fn differ_in_vendor(snapshots: &[&Snapshot]) -> bool {
    let mut vendors = snapshots.iter().filter_map(|snapshot| snapshot.vendor());
    let first = vendors.next();

    vendors.any(|vendor| Some(vendor) != first)
}

/// Puts the common part into the profile, which already has its CPUID.
pub fn combine(
    snapshots: &[&Snapshot],
    base: usize,
    names: &[&str],
    profile: &mut Snapshot,
    lost: &mut Vec<Lost>,
) {
    let context = Context {
        snapshots,
        base,
        names,
        common: Common {
            base: 0,
            one_model: is_one_model(snapshots),
        },
        mixed: differ_in_vendor(snapshots),
        known: names_given(snapshots),
    };

    profile.saved = context.lists(|snapshot| &snapshot.saved, lost);
    profile.features = context.values(Part::Features, |snapshot| &snapshot.features, lost);
    profile.msrs = context.values(Part::Msrs, |snapshot| &snapshot.msrs, lost);
    context.without_lost_cpuid(profile, lost);
    context.without_odd_vmx(profile, lost);
    context.without_timer(profile, lost);
    profile.unreadable = context.unreadable(profile);
    profile.mcg_cap = context.mcg_cap();
}

fn names_given(snapshots: &[&Snapshot]) -> HashMap<Hex<u32>, String> {
    let mut names = HashMap::new();

    for snapshot in snapshots {
        for value in snapshot.msrs.iter().chain(&snapshot.features) {
            if let Some(name) = &value.name {
                names.entry(value.index).or_insert_with(|| name.clone());
            }
        }
    }
    names
}

struct Context<'a> {
    snapshots: &'a [&'a Snapshot],
    base: usize,
    names: &'a [&'a str],
    common: Common,
    mixed: bool,
    /// The names that a file gives to MSRs.
    known: HashMap<Hex<u32>, String>,
}

impl Context<'_> {
    /// The names of files that meet a condition.
    fn files(&self, is_one: impl Fn(&Snapshot) -> bool) -> Vec<String> {
        self.snapshots
            .iter()
            .zip(self.names)
            .filter(|(snapshot, _)| is_one(snapshot))
            .map(|(_, &name)| name.to_owned())
            .collect()
    }

    /// The names of files with an element that meets a condition.
    fn names_of<T>(&self, of_each: &[T], is_one: impl Fn(&T) -> bool) -> Vec<String> {
        of_each
            .iter()
            .zip(self.names)
            .filter(|(of_it, _)| is_one(of_it))
            .map(|(_, &name)| name.to_owned())
            .collect()
    }

    /// The indices of all lists: in the base's order, then those that only others have.
    fn indices<T>(
        &self,
        list: impl Fn(&Snapshot) -> &[T],
        index: impl Fn(&T) -> Hex<u32>,
    ) -> Vec<Hex<u32>> {
        let of = |snapshot: &Snapshot| list(snapshot).iter().map(&index).collect::<Vec<_>>();
        let mut indices = self
            .snapshots
            .get(self.base)
            .map_or(Vec::new(), |base| of(base));
        let in_base: BTreeSet<Hex<u32>> = indices.iter().copied().collect();
        let others: BTreeSet<Hex<u32>> = self
            .snapshots
            .iter()
            .flat_map(|snapshot| of(snapshot))
            .filter(|index| !in_base.contains(index))
            .collect();

        indices.extend(others);
        indices
    }

    fn name(&self, index: Hex<u32>) -> Option<String> {
        self.known.get(&index).cloned().or_else(|| {
            let vendor = self.snapshots.iter().find_map(|snapshot| snapshot.vendor());

            catalogue::name(index.0, vendor)
        })
    }

    fn lost(&self, part: Part, index: Hex<u32>) -> Lost {
        Lost::msr(part, index, self.name(index))
    }

    /// The MSRs that all lists have.
    fn lists(
        &self,
        list: impl Fn(&Snapshot) -> &[Hex<u32>],
        lost: &mut Vec<Lost>,
    ) -> Vec<Hex<u32>> {
        let sets: Vec<HashSet<Hex<u32>>> = self
            .snapshots
            .iter()
            .map(|snapshot| list(snapshot).iter().copied().collect())
            .collect();
        let mut indices = self.indices(&list, |&index| index);

        indices.retain(|&index| {
            let files = self.names_of(&sets, |set| !set.is_empty() && !set.contains(&index));
            let is_kept = files.is_empty();

            if !is_kept {
                lost.push(self.lost(Part::Saved, index).because("not listed", files));
            }
            is_kept
        });
        indices
    }

    /// The common part of the values of all files that have them.
    fn values(
        &self,
        part: Part,
        list: impl Fn(&Snapshot) -> &[Value],
        lost: &mut Vec<Lost>,
    ) -> Vec<Value> {
        let maps: Vec<HashMap<Hex<u32>, &Value>> = self
            .snapshots
            .iter()
            .map(|snapshot| list(snapshot).iter().map(|v| (v.index, v)).collect())
            .collect();
        // A file without feature MSRs does not affect them; a file without MSRs has none.
        let has_a_say = |map: &HashMap<_, _>| part == Part::Msrs || !map.is_empty();
        let mut values = Vec::new();

        for index in self.indices(&list, |value| value.index) {
            let missing = self.names_of(&maps, |map| has_a_say(map) && !map.contains_key(&index));

            if !missing.is_empty() {
                lost.push(self.lost(part, index).missing(missing));
                continue;
            }
            let of_each: Vec<(&Value, &str)> = maps
                .iter()
                .zip(self.names)
                .filter_map(|(map, &name)| Some((*map.get(&index)?, name)))
                .collect();

            values.extend(self.value(part, &of_each, lost));
        }
        values
    }

    /// One MSR, with a value from each file.
    fn value(&self, part: Part, of_each: &[(&Value, &str)], lost: &mut Vec<Lost>) -> Option<Value> {
        let (first, _) = of_each.first()?;
        let index = first.index;
        let names: Vec<&str> = of_each.iter().map(|&(_, name)| name).collect();
        let moves = of_each.iter().any(|(value, _)| value.moves);
        let hosts: Vec<Bits> = of_each
            .iter()
            .map(|(value, _)| Bits {
                value: value.value.0 & value.given(),
                given: value.given(),
            })
            .collect();
        let rules = if moves {
            // Its value changes all the time, so any of them will do.
            &[Rule::Least(u64::MAX)]
        } else if self.mixed && index.0 == features::MICROCODE {
            STATE
        } else {
            features::rules(index.0).unwrap_or(STATE)
        };
        let result = rule::combine(rules, &hosts, self.common);
        let is_state = rules == STATE;

        if is_state && result.bits.is_none() {
            let reason =
                "the values differ, but are not features of hosts: each host keeps its own";
            let files = names.iter().map(|&name| name.to_owned()).collect();

            lost.push(self.lost(part, index).because(reason, files));
        } else if !moves {
            let changes = result.changes.iter();

            lost.extend(changes.map(|change| self.lost(part, index).by(change, &names)));
        }
        let bits = result.bits?;
        let mut name = of_each.iter().filter_map(|(value, _)| value.name.clone());

        Some(Value {
            index,
            name: name.next().filter(|first| name.all(|name| name == *first)),
            value: Hex(bits.value),
            mask: (bits.given != u64::MAX).then_some(Hex(bits.given)),
            moves,
        })
    }

    /// Removes MSRs that depend on a CPUID bit that a file has but the profile lacks.
    fn without_lost_cpuid(&self, profile: &mut Snapshot, lost: &mut Vec<Lost>) {
        let cpuid = std::mem::take(&mut profile.cpuid);
        let has_any = |cpuid: &Cpuid, needs: &[Feature]| {
            needs.iter().any(|need| {
                cpuid.register(need.function, need.index, need.register) >> need.bit & 1 != 0
            })
        };

        if !cpuid.0.is_empty() {
            profile.msrs.retain(|msr| {
                let needs = catalogue::needs(msr.index.0, true, Initiator::Host);
                let had = self.files(|snapshot| has_any(&snapshot.cpuid, &needs));
                let is_kept = needs.is_empty() || had.is_empty() || has_any(&cpuid, &needs);

                if !is_kept {
                    let names: Vec<&str> = needs.iter().map(|need| need.name).collect();
                    let reason =
                        format!("depends on CPUID's {}, not supported", names.join(" or "));
                    let files = self.files(|snapshot| !has_any(&snapshot.cpuid, &needs));

                    lost.push(self.lost(Part::Msrs, msr.index).because(reason, files));
                }
                is_kept
            });
            self.without_pebs(&cpuid, profile, lost);
        }
        profile.cpuid = cpuid;
    }

    /// PEBS needs the debug store.
    fn without_pebs(&self, cpuid: &Cpuid, profile: &mut Snapshot, lost: &mut Vec<Lost>) {
        let has_store = |cpuid: &Cpuid| {
            cpuid.register(1, 0, Register::Edx) >> 21 & 1 != 0
                && cpuid.register(1, 0, Register::Ecx) >> 2 & 1 != 0
        };
        let had = self.files(|snapshot| has_store(&snapshot.cpuid));

        if had.is_empty() || has_store(cpuid) {
            return;
        }
        for msr in &mut profile.msrs {
            if msr.index.0 == features::PERF && msr.value.0 & features::PERF_PEBS != 0 {
                let files = self.files(|snapshot| !has_store(&snapshot.cpuid));
                let reason = "depends on CPUID's DS and DTES64, not supported";

                lost.push(Lost {
                    bits: Some(Hex(msr.value.0 & features::PERF_PEBS)),
                    ..self.lost(Part::Msrs, msr.index).because(reason, files)
                });
                msr.value.0 &= !features::PERF_PEBS;
            }
        }
    }

    /// Removes nested VMX if hosts have no common form: their VMCS revisions differ, or one host
    /// requires what another one lacks.
    fn without_odd_vmx(&self, profile: &mut Snapshot, lost: &mut Vec<Lost>) {
        const VMX: u32 = 1 << 5;
        let can_be = |values: &[Value]| {
            let demands_more = |value: &Value| {
                features::VMX_CONTROLS.contains(&value.index.0)
                    && value.value.0 & !(value.value.0 >> 32) & 0xffff_ffff != 0
            };

            !values.iter().any(demands_more)
        };
        let has_basic =
            |values: &[Value]| values.is_empty() || values.iter().any(|v| v.index.0 == 0x480);
        let is_vmx = |index: u32| features::VMX.contains(&index);
        let lists = [
            (Part::Features, &mut profile.features as &mut Vec<Value>),
            (Part::Msrs, &mut profile.msrs),
        ];
        let mut is_odd = false;

        for (part, values) in lists {
            let of = |snapshot: &Snapshot| match part {
                Part::Features => snapshot.features.clone(),
                _ => snapshot.msrs.clone(),
            };
            let all_had = |is: &dyn Fn(&[Value]) -> bool| {
                self.snapshots.iter().all(|snapshot| is(&of(snapshot)))
            };

            is_odd |= all_had(&can_be) && !can_be(values);
            is_odd |= all_had(&|values| has_basic(values) && !values.is_empty())
                && !has_basic(values)
                && values.iter().any(|value| is_vmx(value.index.0));
        }
        if !is_odd {
            return;
        }
        let indices: BTreeSet<Hex<u32>> = profile
            .msrs
            .iter()
            .chain(&profile.features)
            .map(|value| value.index)
            .filter(|index| is_vmx(index.0))
            .collect();

        for index in indices {
            lost.push(self.lost(Part::Msrs, index).because(
                "the hosts' VMX capabilities are incompatible",
                self.files(|_| true),
            ));
        }
        profile.features.retain(|value| !is_vmx(value.index.0));
        profile.msrs.retain(|value| !is_vmx(value.index.0));
        profile.saved.retain(|index| !is_vmx(index.0));
        for leaf in profile
            .cpuid
            .0
            .iter_mut()
            .filter(|leaf| leaf.function.0 == 1)
        {
            leaf.ecx.0 &= !VMX;
        }
    }

    /// Removes VMX's preemption timer if its rate differs.
    fn without_timer(&self, profile: &mut Snapshot, lost: &mut Vec<Lost>) {
        let rate = |values: &[Value]| {
            let misc = values
                .iter()
                .find(|value| value.index.0 == features::MISC)?;

            Some(misc.value.0 & 0x1f)
        };
        let lists = [
            (Part::Features, &mut profile.features as &mut Vec<Value>),
            (Part::Msrs, &mut profile.msrs),
        ];

        for (part, values) in lists {
            let rates: BTreeSet<u64> = self
                .snapshots
                .iter()
                .filter_map(|snapshot| match part {
                    Part::Features => rate(&snapshot.features),
                    _ => rate(&snapshot.msrs),
                })
                .collect();

            if rates.len() < 2 {
                continue;
            }
            for value in values {
                if features::PINBASED.contains(&value.index.0)
                    && value.value.0 & features::PREEMPTION_TIMER != 0
                {
                    value.value.0 &= !features::PREEMPTION_TIMER;
                    lost.push(Lost {
                        bits: Some(Hex(features::PREEMPTION_TIMER)),
                        ..self.lost(part, value.index).because(
                            "the preemption timer runs at different rates",
                            self.files(|_| true),
                        )
                    });
                }
            }
        }
    }

    /// The numbers of machine-check banks, of the files that have one.
    fn mcg_cap(&self) -> Option<Hex<u64>> {
        let hosts: Vec<Bits> = self
            .snapshots
            .iter()
            .filter_map(|snapshot| snapshot.mcg_cap)
            .map(|Hex(value)| Bits {
                value,
                given: u64::MAX,
            })
            .collect();

        if hosts.is_empty() {
            return None;
        }
        let result = rule::combine(features::MCG_CAP, &hosts, self.common);

        result.bits.map(|bits| Hex(bits.value))
    }

    /// MSRs that all files list, but some could not read.
    fn unreadable(&self, profile: &Snapshot) -> Vec<Hex<u32>> {
        let mut all = self.indices(|snapshot| &snapshot.unreadable, |&index| index);
        let lists = self
            .snapshots
            .iter()
            .any(|snapshot| !snapshot.saved.is_empty());

        let saved: HashSet<_> = profile.saved.iter().collect();

        all.retain(|index| !lists || self.snapshots.len() == 1 || saved.contains(index));
        all
    }
}
