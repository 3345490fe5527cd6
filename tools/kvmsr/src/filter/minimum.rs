// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The minimum number of ranges for a policy, and their positions.
//!
//! A range is for reads, for writes, or for both with one bitmap. If the default decides both
//! accesses of an MSR, the bit of any range can do so, too; such MSRs need no range. If both
//! accesses of an MSR are exceptions, it needs a range for both, or one for reads and one for
//! writes. If only reads are exceptions, it needs a range for reads; or a range for both, whose
//! bit is for reads, *and* before it a range for writes with the default's decision. The same
//! holds for writes, with the kinds exchanged. All ranges for one access can come before all
//! ranges for both.
//!
//! So only the MSRs that the ranges of each kind contain matter, and more never hurt. Thus ranges
//! can be as long as KVM allows, and ranges of one kind need not overlap: the later one can start
//! where the earlier one ends. A range that starts before it is first needed can be moved up to
//! the first MSR whose need the ranges so far do not meet. The MSRs that it loses were met without
//! it. Hence there is a solution with the minimum number of ranges in which each range starts at
//! the first MSR whose need is not met yet. [`windows`] tries all of these, those with fewer
//! ranges first.

use crate::filter::Flags;
use crate::filter::Run;
use crate::filter::Segment;
use crate::filter::UNREACHABLE;

/// A range that the search places.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// The MSRs.
    pub run: Run,
    /// The accesses that the range matches.
    pub flags: Flags,
}

/// The kinds of range, which are numbered 0 to 2 below.
const KINDS: [Flags; 3] = [Flags::READ, Flags::WRITE, Flags::BOTH];
const READ: usize = 0;
const WRITE: usize = 1;
const BOTH: usize = 2;

/// A state of the search: how far the needs are met with some windows.
#[derive(Clone, Copy, Debug)]
struct State {
    /// The first MSR whose need is not met.
    at: u64,
    /// Its segment.
    segment: usize,
    /// The exclusive end of the last window of each kind.
    ends: [u64; 3],
    /// The previous state.
    parent: usize,
    /// The kinds of windows that were opened at the parent's `at`.
    opened: [bool; 3],
}

impl State {
    fn is_open(&self, kind: usize) -> bool {
        self.ends.get(kind).is_some_and(|&end| end > self.at)
    }

    /// Whether this state is at least as good as `other` with the same number of windows.
    fn is_as_good_as(&self, other: &State) -> bool {
        self.at >= other.at
            && self
                .ends
                .iter()
                .zip(&other.ends)
                .all(|(&own, &end)| own.max(self.at) >= end.max(other.at))
    }

    /// The kinds of windows to open here: two choices.
    fn choices(&self, flags: Flags) -> [[bool; 3]; 2] {
        // One kind is enough, or the two others together.
        let alone = match flags {
            Flags::READ => READ,
            Flags::WRITE => WRITE,
            _ => BOTH,
        };
        let mut choices = [[false; 3]; 2];

        for kind in [READ, WRITE, BOTH] {
            choices[0][kind] = kind == alone;
            choices[1][kind] = kind != alone && !self.is_open(kind);
        }
        choices
    }

    /// The end of the part of a segment from `at` on whose need is met.
    fn met(&self, flags: Flags) -> u64 {
        let [read, write, both] = self.ends;

        match flags {
            Flags::READ => read.max(both.min(write)),
            Flags::WRITE => write.max(both.min(read)),
            _ => both.max(read.min(write)),
        }
    }

    /// Advances to the first MSR whose need is not met; none after the last one.
    fn advance(&mut self, segments: &[Segment]) {
        while let Some(segment) = segments.get(self.segment) {
            let met = self.at.max(self.met(segment.flags));

            if met <= u64::from(segment.run.last) {
                self.at = met.max(segment.run.first.into());
                return;
            }
            self.segment += 1;
        }
        self.at = u64::MAX;
    }
}

/// The minimum number of windows of up to `limit` MSRs for all `segments`, sorted by their start.
/// [`UNREACHABLE`] is in none of them, and must be in no segment.
pub fn windows(segments: &[Segment], limit: u32) -> Vec<Window> {
    let mut start = State {
        at: 0,
        segment: 0,
        ends: [0; 3],
        parent: 0,
        opened: [false; 3],
    };

    start.advance(segments);
    let mut states = vec![start];
    // The states with the current number of windows, one more, and two more.
    let (mut now, mut next, mut later) = (vec![0], Vec::new(), Vec::new());

    loop {
        for &number in &now {
            let Some(&state) = states.get(number) else {
                continue;
            };
            let Some(segment) = segments.get(state.segment) else {
                return opened_on_the_way(&states, number, limit);
            };
            for opened in state.choices(segment.flags) {
                let mut new = State {
                    parent: number,
                    opened,
                    ..state
                };

                for (end, _) in new.ends.iter_mut().zip(opened).filter(|(_, open)| *open) {
                    *end = end_of_window(state.at, limit);
                }
                new.advance(segments);
                let level = match opened.iter().filter(|&&open| open).count() {
                    1 => &mut next,
                    _ => &mut later,
                };

                keep(&mut states, level, new);
            }
        }
        now = std::mem::replace(&mut next, std::mem::take(&mut later));
    }
}

fn end_of_window(start: u64, limit: u32) -> u64 {
    // An empty window would make the search endless.
    (start + u64::from(limit.max(1))).min(UNREACHABLE.into())
}

/// Adds a state to those with the same number of windows, unless one of them is as good.
fn keep(states: &mut Vec<State>, level: &mut Vec<usize>, new: State) {
    let mut is_needed = true;

    level.retain(|&number| match states.get(number) {
        Some(old) if is_needed => {
            is_needed = !old.is_as_good_as(&new);
            !is_needed || !new.is_as_good_as(old)
        }
        _ => true,
    });
    if is_needed {
        level.push(states.len());
        states.push(new);
    }
}

/// The windows on the way to a state.
fn opened_on_the_way(states: &[State], last: usize, limit: u32) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut number = last;

    // The first state is its own parent.
    while let Some(state) = states.get(number).filter(|_| number != 0) {
        let start = states.get(state.parent).map_or(0, |parent| parent.at);

        for (&flags, _) in KINDS.iter().zip(state.opened).filter(|(_, open)| *open) {
            windows.push(Window {
                run: Run {
                    first: start as u32,
                    last: (end_of_window(start, limit) - 1) as u32,
                },
                flags,
            });
        }
        number = state.parent;
    }
    windows.reverse();
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of MSRs in the small space in which all filters are tried.
    const INDICES: u32 = 8;

    /// For each of the 2^16 tables of decisions (bit `i`: reads of MSR `i`; bit `8 + i`: writes),
    /// the minimum number of ranges, from all ordered lists: puts each possible range before each
    /// list.
    fn least(limit: u32) -> Vec<u8> {
        const NEVER: u8 = u8::MAX;
        let mut least = vec![NEVER; 1 << (2 * INDICES)];
        let mut tables = vec![0usize];

        least[0] = 0;
        for ranges in 1.. {
            let mut found = Vec::new();

            for table in tables {
                for kind in [1, 2, 3] {
                    for first in 0..INDICES {
                        for length in 1..=limit.min(INDICES - first) {
                            let mask = ((1 << length) - 1) << first;

                            for bits in (0..1 << length).map(|bits: usize| bits << first) {
                                let mut new = table;

                                if kind & 1 != 0 {
                                    new = new & !mask | bits;
                                }
                                if kind & 2 != 0 {
                                    new = new & !(mask << INDICES) | bits << INDICES;
                                }
                                if least[new] == NEVER {
                                    least[new] = ranges;
                                    found.push(new);
                                }
                            }
                        }
                    }
                }
            }
            if found.is_empty() {
                break;
            }
            tables = found;
        }
        assert!(!least.contains(&NEVER));
        least
    }

    fn segments(table: usize, at: impl Fn(u32) -> u32) -> Vec<Segment> {
        (0..INDICES)
            .filter_map(|i| {
                let flags = Flags((table >> i & 1 | (table >> (INDICES + i) & 1) << 1) as u32);

                (flags != Flags(0)).then(|| Segment {
                    run: Run::one(at(i)),
                    flags,
                })
            })
            .collect()
    }

    #[test]
    fn no_list_of_ranges_is_shorter() {
        for limit in 1..=4 {
            for (table, least) in least(limit).into_iter().enumerate() {
                let windows = windows(&segments(table, |i| i), limit);

                assert_eq!(windows.len(), usize::from(least), "{table:#x}, {limit}");
            }
        }
    }

    #[test]
    fn a_run_is_as_its_msrs() {
        for table in (0..1 << (2 * INDICES)).step_by(7) {
            // Each MSR is expanded to a run of 5; a window contains 2.5 of them.
            let single: Vec<Segment> = segments(table, |i| 5 * i)
                .into_iter()
                .flat_map(|segment| {
                    (0..5).map(move |i| Segment {
                        run: Run::one(segment.run.first + i),
                        ..segment
                    })
                })
                .collect();
            let runs: Vec<Segment> = segments(table, |i| 5 * i)
                .into_iter()
                .map(|mut segment| {
                    segment.run.last += 4;
                    segment
                })
                .collect();

            assert_eq!(windows(&single, 12), windows(&runs, 12), "{table:#x}");
        }
    }

    #[test]
    fn windows_end_before_the_last_index() {
        let all = [Segment {
            run: Run {
                first: 0,
                last: u32::MAX - 1,
            },
            flags: Flags::BOTH,
        }];
        let windows = windows(&all, 0x3000);

        assert_eq!(windows.len(), (u32::MAX - 1).div_ceil(0x3000) as usize);
        assert_eq!(windows.last().unwrap().run.last, u32::MAX - 1);
    }
}
