// SPDX-License-Identifier: Apache-2.0 OR MIT

//! From a policy to the ranges for KVM.

use std::fmt;

use serde::Serialize;

use crate::filter::Access;
use crate::filter::Bitmap;
use crate::filter::Filter;
use crate::filter::Flags;
use crate::filter::MAX_MSRS;
use crate::filter::MAX_RANGES;
use crate::filter::Place;
use crate::filter::Policy;
use crate::filter::Range;
use crate::filter::Rules;
use crate::filter::Run;
use crate::filter::Runs;
use crate::filter::Segment;
use crate::filter::UNREACHABLE;
use crate::filter::Verdict;
use crate::filter::Window;
use crate::filter::X2APIC;
use crate::filter::windows;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// Why a policy can't be had.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refused {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Why, and what to do, in words.
    pub why: String,
    /// The least number of ranges that it takes; none if there is another reason.
    pub needs: Option<usize>,
    /// The number that it takes if reads and writes are treated alike.
    pub needs_alike: Option<usize>,
    /// The ranges that it takes, those with the fewest MSRs first: without the MSRs of as many of
    /// these as there are too many, it would do.
    pub clusters: Vec<Cluster>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// MSRs that one range can hold.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cluster {
    /// What the range is for.
    pub flags: Flags,
    /// The first MSR that needs it.
    pub first: Hex<u32>,
    /// The last MSR that needs it.
    pub last: Hex<u32>,
    /// How many MSRs need it.
    pub msrs: u64,
    /// The rules that ask for these.
    pub rules: Vec<Place>,
}

/// The filter for a policy, with the fewest ranges that there can be.
///
/// # Errors
///
/// [`Refused`] if it takes more than [`MAX_RANGES`], or a range with [`UNREACHABLE`].
pub fn compile(policy: &Policy) -> Result<Filter, Box<Refused>> {
    let segments = policy.segments();

    if Access::ALL
        .iter()
        .any(|&access| policy.exceptions(access).contains(UNREACHABLE))
    {
        return Err(Box::new(Refused {
            schema: SCHEMA,
            why: unreachable(policy.default()),
            needs: None,
            needs_alike: None,
            clusters: Vec::new(),
        }));
    }
    let plan = Plan::new(&segments);

    if plan.windows.len() > MAX_RANGES {
        return Err(Box::new(plan.refused(policy)));
    }
    Ok(Filter {
        default: policy.default(),
        ranges: plan.ranges(policy, &segments),
    })
}

/// [`compile`], with the rules' places in the reason if they are refused.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_rules(rules: &Rules, policy: &Policy) -> Result<Filter, Box<Refused>> {
    compile(policy).map_err(|mut refused| {
        for cluster in &mut refused.clusters {
            let run = Run {
                first: cluster.first.0,
                last: cluster.last.0,
            };

            cluster.rules = rules
                .rules
                .iter()
                .filter(|rule| rule.verdict != rules.default)
                .filter(|rule| rule.flags.0 & cluster.flags.0 != 0)
                .filter(|rule| rule.msrs.within(run).next().is_some())
                .map(|rule| rule.place)
                .collect();
        }
        refused
    })
}

/// Why a range with the last index can't be had.
fn unreachable(default: Verdict) -> String {
    format!(
        "no range can have MSR {UNREACHABLE:#x}, so it is always decided by the default, {default}: \
         KVM computes the end of a range in 32 bits, where it would come out below its base; end \
         at {:#x}",
        UNREACHABLE - 1
    )
}

/// Where the ranges lie, and what of them is needed.
struct Plan {
    windows: Vec<Window>,
    needs: Vec<Need>,
}

/// What needs a window.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    hull: Option<Run>,
    msrs: u64,
}

impl Plan {
    fn new(segments: &[Segment]) -> Self {
        let mut windows = windows(segments, MAX_MSRS);

        // All ranges for one access before those for both, as `minimum` has it.
        windows.sort_by_key(|window| (window.flags == Flags::BOTH, window.run));
        let mut needs = vec![Need::default(); windows.len()];
        let layout = Layout::new(&windows);

        for segment in segments {
            for (piece, held) in layout.pieces(segment.run) {
                for number in held.deciding(segment.flags) {
                    if let Some(need) = needs.get_mut(number) {
                        let first = need.hull.map_or(piece.first, |hull| hull.first);

                        need.hull = Some(Run {
                            first,
                            last: piece.last,
                        });
                        need.msrs += piece.count();
                    }
                }
            }
        }
        Plan { windows, needs }
    }

    /// The ranges, as long as they have to be.
    fn ranges(&self, policy: &Policy, segments: &[Segment]) -> Vec<Range> {
        let trimmed: Vec<Window> = self
            .windows
            .iter()
            .zip(&self.needs)
            .filter_map(|(window, need)| {
                Some(Window {
                    run: need.hull?,
                    flags: window.flags,
                })
            })
            .collect();
        let unlike_default = policy.default() == Verdict::Deny;
        let mut ranges: Vec<Range> = trimmed
            .iter()
            .map(|window| {
                // A window has no more than MAX_MSRS.
                let nmsrs = window.run.count() as u32;

                Range {
                    flags: window.flags,
                    base: Hex(window.run.first),
                    nmsrs,
                    bitmap: Bitmap::filled(nmsrs, !unlike_default),
                }
            })
            .collect();
        let layout = Layout::new(&trimmed);

        for segment in segments {
            for (piece, held) in layout.pieces(segment.run) {
                for number in held.unlike_default(segment.flags) {
                    if let Some(range) = ranges.get_mut(number) {
                        let bits = Run {
                            first: piece.first.saturating_sub(range.base.0),
                            last: piece.last.saturating_sub(range.base.0),
                        };

                        range.bitmap.set(bits, unlike_default);
                    }
                }
            }
        }
        for range in &mut ranges {
            range.allow_x2apic();
        }
        one_kind_where_that_is_enough(&mut ranges);
        if ranges.is_empty() && policy.default() == Verdict::Deny {
            ranges.push(deny_one());
        }
        ranges
    }

    fn refused(&self, policy: &Policy) -> Refused {
        let needs = self.windows.len();
        let alike = windows(&policy.alike().segments(), MAX_MSRS).len();
        let mut clusters: Vec<Cluster> = self
            .windows
            .iter()
            .zip(&self.needs)
            .filter_map(|(window, need)| {
                let hull = need.hull?;

                Some(Cluster {
                    flags: window.flags,
                    first: Hex(hull.first),
                    last: Hex(hull.last),
                    msrs: need.msrs,
                    rules: Vec::new(),
                })
            })
            .collect();

        clusters.sort_by_key(|cluster| (cluster.msrs, cluster.first.0));
        let mut why = format!(
            "this takes {needs} ranges, and KVM has {MAX_RANGES} of up to {MAX_MSRS:#x} MSRs each; \
             drop the MSRs of {} of them",
            needs - MAX_RANGES
        );

        if alike < needs {
            why += &format!(", or treat reads and writes alike, which takes {alike}");
        }
        Refused {
            schema: SCHEMA,
            why,
            needs: Some(needs),
            needs_alike: Some(alike),
            clusters,
        }
    }
}

/// A range that changes nothing: without any KVM refuses to deny by default.
fn deny_one() -> Range {
    Range {
        flags: Flags::BOTH,
        base: Hex(0),
        nmsrs: 1,
        bitmap: Bitmap::filled(1, false),
    }
}

/// Turns ranges for both accesses of which only one ever gets there into ranges for that one.
fn one_kind_where_that_is_enough(ranges: &mut [Range]) {
    let runs = |flags| -> Runs {
        ranges
            .iter()
            .filter(|range| range.flags == flags)
            .filter_map(Range::run)
            .collect()
    };
    let (reads, writes) = (runs(Flags::READ), runs(Flags::WRITE));

    for range in ranges.iter_mut().filter(|range| range.flags == Flags::BOTH) {
        let Some(run) = range.run().map(Runs::from) else {
            continue;
        };

        if run.without(&reads).is_empty() {
            range.flags = Flags::WRITE;
        } else if run.without(&writes).is_empty() {
            range.flags = Flags::READ;
        }
    }
}

impl Range {
    /// Says of x2APIC MSRs what is the case, whatever the range says.
    fn allow_x2apic(&mut self) {
        if let Some(common) = self.run().and_then(|run| run.cut(X2APIC)) {
            let bits = Run {
                first: common.first.saturating_sub(self.base.0),
                last: common.last.saturating_sub(self.base.0),
            };

            self.bitmap.set(bits, true);
        }
    }
}

/// Windows by kind, to be looked up by index. Those of one kind do not overlap.
struct Layout<'a> {
    windows: &'a [Window],
    by_kind: [Vec<usize>; 3],
}

/// The windows that hold an MSR, by their numbers.
#[derive(Clone, Copy, Debug)]
struct Held {
    read: Option<usize>,
    write: Option<usize>,
    both: Option<usize>,
}

impl<'a> Layout<'a> {
    fn new(windows: &'a [Window]) -> Self {
        let kind = |flags| {
            let mut numbers: Vec<usize> = (0..windows.len())
                .filter(|&number| {
                    windows
                        .get(number)
                        .is_some_and(|window| window.flags == flags)
                })
                .collect();

            numbers.sort_by_key(|&number| windows.get(number).map(|window| window.run));
            numbers
        };

        Layout {
            windows,
            by_kind: [kind(Flags::READ), kind(Flags::WRITE), kind(Flags::BOTH)],
        }
    }

    /// Cuts a run where windows begin and end.
    fn pieces(&self, run: Run) -> impl Iterator<Item = (Run, Held)> {
        let mut next = Some(run.first);

        std::iter::from_fn(move || {
            let first = next?;
            let mut last = run.last;
            let [read, write, both] = self.by_kind.each_ref().map(|numbers| {
                let after = numbers.partition_point(|&number| {
                    self.run(number).is_some_and(|window| window.last < first)
                });
                let number = *numbers.get(after)?;
                let window = self.run(number)?;

                if window.first > first {
                    last = last.min(window.first - 1);
                    None
                } else {
                    last = last.min(window.last);
                    Some(number)
                }
            });

            next = (last < run.last).then(|| last + 1);
            Some((Run { first, last }, Held { read, write, both }))
        })
    }

    fn run(&self, number: usize) -> Option<Run> {
        self.windows.get(number).map(|window| window.run)
    }
}

impl Held {
    /// The windows that an MSR needs whose `flags` are decided unlike the default.
    fn deciding(self, flags: Flags) -> impl Iterator<Item = usize> {
        let [alone, other, another] = match flags {
            Flags::READ => [self.read, self.write, self.both],
            Flags::WRITE => [self.write, self.read, self.both],
            _ => [self.both, self.read, self.write],
        };
        let chosen = match alone {
            Some(_) => [alone, None],
            None => [other, another],
        };

        chosen.into_iter().flatten()
    }

    /// The windows whose bit for the MSR is not as the default.
    fn unlike_default(self, flags: Flags) -> impl Iterator<Item = usize> {
        let both = match flags {
            // Behind a range for the one access, it decides the other, which is as the default.
            Flags::READ if self.read.is_some() => None,
            Flags::WRITE if self.write.is_some() => None,
            _ => self.both,
        };

        [
            self.read.filter(|_| flags.has(Access::Read)),
            self.write.filter(|_| flags.has(Access::Write)),
            both,
        ]
        .into_iter()
        .flatten()
    }
}
