// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The names of MSRs, for lookups.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::literal;
use crate::msrs::Msr;
use crate::rules::Rules;
use crate::spelling;

/// If two MSRs have the same name, the lowest rank wins.
const OURS: u8 = 0;
const OF_THE_TABLE: u8 = 1;
const OF_LINUX: u8 = 2;
const OF_OTHERS: u8 = 3;
const RANKS: u8 = 4;

/// A key, the rank of its MSR, and the index; none if MSRs of the same rank have it.
type Names = BTreeMap<String, (u8, Option<u32>)>;

/// The array `NAMES`, in the order of the keys.
pub fn array(msrs: &[Msr], rules: &Rules) -> String {
    let mut names = Names::new();

    for msr in msrs {
        for number in 0..msr.count {
            let index = msr.first + number * msr.stride;

            add(
                &mut names,
                &msr.name.replace("{n}", &number.to_string()),
                OURS,
                index,
            );
            for alias in &msr.aliases {
                let rank = if alias.source.split('+').any(|source| source == "linux") {
                    OF_LINUX
                } else {
                    OF_OTHERS
                };

                match place(&msr.name, &alias.alias, msr.count) {
                    Some(at) => {
                        let (before, after) = alias.alias.split_at(at);
                        let name = format!("{before}{number}{}", &after[1..]);

                        add(&mut names, &name, rank, index);
                    }
                    None if number == 0 => add(&mut names, &alias.alias, rank, index),
                    None => {}
                }
            }
        }
    }
    for (name, index) in rules.names() {
        add(&mut names, name, OF_THE_TABLE, index);
    }
    let items: Vec<_> = names
        .iter()
        .filter(|(key, (_, index))| !is_spared(&names, key, *index))
        .filter_map(|(key, &(_, index))| Some(format!("({key:?}, {:#x})", index?)))
        .collect();

    literal::table("NAMES", "(&str, u32)", &items)
}

/// Whether a shorter form of the key finds the same MSR.
fn is_spared(names: &Names, key: &str, index: Option<u32>) -> bool {
    spelling::forms(key)
        .iter()
        .filter(|form| *form != key)
        .find_map(|form| names.get(form))
        .is_some_and(|&(_, other)| other == index)
}

/// The position of the number in another name of the first element: a lone 0.
fn place(name: &str, alias: &str, count: u32) -> Option<usize> {
    if count == 1 || !name.contains("{n}") {
        return None;
    }
    let bytes = alias.as_bytes();
    let is_digit = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(u8::is_ascii_digit)
    };

    // The first one, which is the bank in MC0_MISC0.
    (0..bytes.len())
        .find(|&at| bytes[at] == b'0' && !is_digit(at.checked_sub(1)) && !is_digit(Some(at + 1)))
}

/// Adds a name in all its forms. A longer form wins.
fn add(names: &mut Names, name: &str, rank: u8, index: u32) {
    for (key, form) in spelling::forms(name).into_iter().zip(0..) {
        add_key(names, key, rank + form * RANKS, index);
    }
}

fn add_key(names: &mut Names, key: String, rank: u8, index: u32) {
    match names.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert((rank, Some(index)));
        }
        Entry::Occupied(mut entry) => {
            let (other_rank, other) = *entry.get();

            if rank < other_rank {
                entry.insert((rank, Some(index)));
            } else if rank == other_rank && other != Some(index) {
                entry.insert((rank, None));
            }
        }
    }
}
