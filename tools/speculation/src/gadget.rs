// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The accesses to memory whose index only a branch keeps in bounds.

use std::collections::BTreeSet;
use std::collections::VecDeque;

use iced_x86::Formatter;
use iced_x86::Instruction;
use iced_x86::IntelFormatter;
use iced_x86::Register;
use serde::Serialize;

use crate::flow::Flow;
use crate::image::Function;
use crate::image::Image;
use crate::operand::Access;
use crate::range::Range;
use crate::value::Id;
use crate::value::Kind;
use crate::value::Place;

/// How far an index that the data flow bounds may go from a pointer to an object whose size is
/// unknown here.
const MAX_SPREAD: i128 = 1 << 16;

/// Beyond this no address is valid in any address space.
const MAX_ADDRESS: i128 = 1 << 56;

/// How many instructions of an index's history are told.
const MAX_HISTORY: usize = 10;

/// An access to memory whose index only a branch keeps in bounds.
#[derive(Debug, Serialize)]
pub struct Gadget {
    /// The instruction, by its offset in its function.
    pub instruction: String,
    /// What is wrong with the index.
    pub reason: String,
    /// The instructions that made the index, in their order.
    pub history: Vec<String>,
}

/// What was found in a function.
#[derive(Debug)]
pub struct Findings {
    /// The function's name.
    pub function: String,
    /// How many accesses have an index that is no count.
    pub indexed: usize,
    /// The tables that are accessed with an index that the data flow bounds.
    pub tables: BTreeSet<Place>,
    /// The accesses that only a branch bounds.
    pub gadgets: Vec<Gadget>,
}

impl Findings {
    /// Adds what was found in another instance of the function.
    pub fn add(&mut self, other: Self) {
        self.indexed += other.indexed;
        self.tables.extend(other.tables);
        self.gadgets.extend(other.gadgets);
    }
}

/// Looks through a function.
pub fn find(image: &Image, function: &Function) -> Findings {
    let flow = Flow::of(image, function);
    let mut findings = Findings {
        function: function.name.clone(),
        indexed: 0,
        tables: BTreeSet::new(),
        gadgets: Vec::new(),
    };

    flow.for_each(|machine, code, state| {
        let instruction = &code.instruction;
        let mut accesses = machine.accesses(code, state);

        if flow.leaves(code) {
            let passed = machine.passed(state);
            // Integers are nobody's address yet.
            let is_address = |access: &Access| !matches!(access.address, Kind::Number(_));
            accesses.extend(passed.into_iter().filter(is_address));
        }
        for access in accesses {
            let verdict = judge(image, &access);

            findings.indexed += usize::from(verdict != Verdict::NoIndex);
            match verdict {
                Verdict::NoIndex => (),
                Verdict::Bounded => {
                    if let Kind::Table(places, _) = access.address {
                        findings.tables.extend(places);
                    }
                }
                Verdict::Gadget(why) => findings.gadgets.push(Gadget {
                    instruction: text_of(image, function, instruction),
                    reason: match access.index {
                        Some(index) => format!("{} {why}", name_of(index)),
                        None => why,
                    },
                    history: history(image, function, &flow, &access.inputs),
                }),
            }
        }
    });
    findings
}

#[derive(PartialEq, Eq)]
enum Verdict {
    /// Nobody chooses where it goes.
    NoIndex,
    /// The data flow bounds it.
    Bounded,
    /// Nothing does but a branch.
    Gadget(String),
}

fn judge(image: &Image, access: &Access) -> Verdict {
    let gadget = |why: String| Verdict::Gadget(why);

    match &access.address {
        Kind::Table(_, at) | Kind::Pointer(at) | Kind::Stack(at) if at.counts => Verdict::NoIndex,
        Kind::Table(places, at) => {
            for &place in places {
                let Some(size) = image.size_of(place) else {
                    if at.high - at.low >= MAX_SPREAD {
                        return gadget(format!("has no bound in {}", image.name_of(place)));
                    }
                    continue;
                };
                if at.low < 0 || at.high + access.bytes as i128 > i128::from(size) {
                    return gadget(format!(
                        "reaches from {:#x} to {:#x} in {}, which has {size:#x} bytes",
                        at.low,
                        at.high + access.bytes as i128,
                        image.name_of(place)
                    ));
                }
            }
            Verdict::Bounded
        }
        Kind::Pointer(at) | Kind::Stack(at) => judge_spread(at),
        // A null pointer, or what a static key leaves of an address.
        Kind::Number(at) if at.counts => Verdict::NoIndex,
        Kind::Number(at) => judge_spread(at),
        Kind::Mask { .. } => gadget("is a mask".to_owned()),
    }
}

fn judge_spread(at: &Range) -> Verdict {
    if at.high - at.low >= MAX_SPREAD {
        Verdict::Gadget(if at.high < MAX_ADDRESS {
            format!("goes up to {:#x}", at.high)
        } else {
            "has no bound".to_owned()
        })
    } else if at.relies_on_compare() {
        Verdict::Gadget(format!(
            "goes up to {:#x}, and only a compare keeps it at or below {:#x}",
            at.high, at.checked_high
        ))
    } else {
        Verdict::Bounded
    }
}

/// An instruction, its offset in its function, and what it refers to.
fn text_of(image: &Image, function: &Function, instruction: &Instruction) -> String {
    let mut text = format!("+{:#x}: ", instruction.ip() - function.start);
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();

    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    formatter.format(instruction, &mut text);
    for name in image.names_in(function.section, instruction.ip(), instruction.next_ip()) {
        text += " # ";
        text += name;
    }
    text
}

fn name_of(register: Register) -> String {
    format!("{register:?}").to_lowercase()
}

/// The instructions that made some values, in their order.
fn history(image: &Image, function: &Function, flow: &Flow<'_>, values: &[Id]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut at = BTreeSet::new();
    let mut next: VecDeque<Id> = values.iter().copied().collect();

    while let Some(id) = next.pop_front() {
        if at.len() >= MAX_HISTORY || !seen.insert(id) {
            continue;
        }
        if let Some((address, inputs)) = flow.origins().get(&id) {
            at.extend(address);
            next.extend(inputs);
        }
    }
    at.into_iter()
        .filter_map(|address| flow.instruction(address))
        .map(|instruction| text_of(image, function, instruction))
        .collect()
}
