// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What came of a step: what the two VMs of a pair have to agree on.

use kvm_msr_guest::Errno;
use kvm_msr_guest::Outcome;

use crate::state::Part;

/// MSRs whose values depend on time, and why. Only whether they can be accessed is compared.
const BY_TIME: &[(u32, u32, &str)] = &[
    (0x10, 0x10, "the TSC advances"),
    (
        0x3b,
        0x3b,
        "its change by a write of the TSC depends on the time",
    ),
    (0xe7, 0xe8, "MPERF and APERF advance"),
    (0x6e0, 0x6e0, "TSC_DEADLINE is 0 after the deadline"),
    (
        0x810,
        0x827,
        "the APIC's interrupts, which timers may have requested",
    ),
    (0x839, 0x839, "the APIC's timer counts"),
    (0x4000_0010, 0x4000_0010, "the time that the vCPU ran"),
    (
        0x4000_0020,
        0x4000_0020,
        "the time since the VM was created",
    ),
    (
        0x4000_00b0,
        0x4000_00b7,
        "synthetic timers disable themselves",
    ),
];

/// Whether an MSR's value depends on time.
pub fn by_time(index: u32) -> bool {
    BY_TIME
        .iter()
        .any(|&(first, last, _)| (first..=last).contains(&index))
}

/// An MSR's value as it is compared.
pub fn steady(index: u32, value: u64) -> u64 {
    if by_time(index) { 0 } else { value }
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// Nothing that could differ.
    Nothing,
    /// A call's errno, if it failed.
    Call(Option<Errno>),
    /// What a call returned, and values.
    Values(Result<i32, Errno>, Vec<u64>),
    /// The guest's runs, one after the other, and its registers at the end.
    Runs(Vec<Outcome>),
    /// A call's result, and bytes of its structure.
    Bytes(Result<i32, Errno>, Vec<u8>),
    /// The entries of a batch: whether the access was possible, and the value.
    Batch(Vec<(bool, u64)>),
    /// Several of these, one after the other.
    All(Vec<Seen>),
    /// What each vCPU saw.
    Together(Vec<Vec<Seen>>),
    /// The step could not be made.
    Failed(String),
    /// The VM's state.
    State(Vec<Part>),
}

impl Seen {
    /// The result of a call.
    pub fn call<T>(result: Result<T, impl Into<Errno>>) -> Self {
        Seen::Call(result.err().map(Into::into))
    }

    /// Entries of a batch: index, value, and whether the access was possible.
    pub fn batch(entries: impl Iterator<Item = (u32, u64, bool)>) -> Self {
        Seen::Batch(
            entries
                .map(|(index, value, done)| (done, steady(index, value)))
                .collect(),
        )
    }

    /// How this differs from what the other side saw: both as text, short where they are long.
    pub fn against(&self, other: &Seen) -> [String; 2] {
        match (self, other) {
            (Seen::State(one), Seen::State(other)) => {
                let differ = |a: &[Part], b: &[Part]| {
                    let parts = a.iter().enumerate();
                    let text: Vec<_> = parts
                        .map(|(at, part)| (part, b.get(at)))
                        .filter(|&(part, other)| Some(part) != other)
                        .take(8)
                        .map(|(part, other)| part.against(other))
                        .collect();

                    text.join("; ")
                };
                [differ(one, other), differ(other, one)]
            }
            (Seen::Bytes(a, one), Seen::Bytes(b, other)) => {
                let differ = |result: &Result<i32, Errno>, a: &[u8], b: &[u8]| {
                    let bytes = a.iter().zip(b).enumerate().filter(|(_, (x, y))| x != y);
                    let bytes: Vec<_> = bytes
                        .take(16)
                        .map(|(at, (x, _))| format!("{at}: {x:#x}"))
                        .collect();

                    format!("{result:?}, {}", bytes.join(" "))
                };
                [differ(a, one, other), differ(b, other, one)]
            }
            (Seen::All(one), Seen::All(other)) => {
                let both = one.iter().zip(other).find(|(one, other)| one != other);

                match both {
                    Some((one, other)) => one.against(other),
                    None => [format!("{self:x?}"), format!("{other:x?}")],
                }
            }
            _ => [format!("{self:x?}"), format!("{other:x?}")],
        }
    }
}
