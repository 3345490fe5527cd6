// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Compiles a policy to ranges for KVM.

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
use crate::filter::layout::Layout;
use crate::filter::layout::Need;
use crate::filter::shorten::shorten;
use crate::filter::windows;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// The maximum number of clusters in a report.
const MOST_CLUSTERS: usize = 256;

/// Why a policy can't be compiled.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refused {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The reason and advice, as text.
    pub why: String,
    /// The minimum number of ranges; none if there is another reason.
    pub needs: Option<usize>,
    /// The minimum number if reads and writes are treated alike.
    pub needs_alike: Option<usize>,
    /// The required ranges, sorted by their number of MSRs, and not all if there are very many:
    /// without the MSRs of the excess ranges, the policy could be compiled.
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
    /// The flags of the range.
    pub flags: Flags,
    /// The first MSR that needs it.
    pub first: Hex<u32>,
    /// The last MSR that needs it.
    pub last: Hex<u32>,
    /// The number of MSRs that need it.
    pub msrs: u64,
    /// The rules for these MSRs.
    pub rules: Vec<Place>,
}

/// The filter for a policy, with the minimum number of ranges.
///
/// # Errors
///
/// [`Refused`] if it needs more than [`MAX_RANGES`], or a range with [`UNREACHABLE`].
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

/// Like [`compile`], but a refusal names the rules' places.
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

/// Why a range can't contain the last index.
fn unreachable(default: Verdict) -> String {
    format!(
        "no range can contain MSR {UNREACHABLE:#x}, so the default, {default}, decides it: \
         KVM computes the end of a range in 32 bits, where it would wrap around to 0; end \
         at {:#x}",
        UNREACHABLE - 1
    )
}

/// The positions of the ranges, and the bits that are needed in each.
struct Plan {
    windows: Vec<Window>,
    needs: Vec<Need>,
}

impl Plan {
    fn new(segments: &[Segment]) -> Self {
        // For a refusal, search further, but not without limit.
        const SHORTENED: usize = 4 * MAX_RANGES;
        let mut windows = windows(segments, MAX_MSRS);

        if windows.len() <= SHORTENED {
            shorten(&mut windows, segments);
        }
        // Ranges for one access come before those for both, as in `minimum`.
        windows.sort_by_key(|window| (window.flags == Flags::BOTH, window.run));
        let needs = Layout::new(&windows).needs(segments).unwrap_or_default();

        Plan { windows, needs }
    }

    /// The ranges, no longer than necessary.
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
                // A window has at most MAX_MSRS.
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
        clusters.truncate(MOST_CLUSTERS);
        let mut why = format!(
            "this needs {needs} ranges, but KVM has {MAX_RANGES} of up to {MAX_MSRS:#x} MSRs each; \
             remove the MSRs of {} of them",
            needs - MAX_RANGES
        );

        if alike <= MAX_RANGES {
            why += &format!(", or treat reads and writes alike, which needs {alike}");
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

/// A range without effect: KVM refuses to deny by default without a range.
fn deny_one() -> Range {
    Range {
        flags: Flags::BOTH,
        base: Hex(0),
        nmsrs: 1,
        bitmap: Bitmap::filled(1, false),
    }
}

/// If only one kind of access reaches a range for both, makes it a range for that kind.
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
    /// Sets the bits of x2APIC MSRs to allowed, because KVM always allows them.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// MSRs with exceptions: close to each other, far apart, and at both ends.
    fn exceptions() -> impl Strategy<Value = Runs> {
        let base = prop_oneof![
            Just(0u32),
            Just(0x700),
            Just(0x4000_0000),
            Just(0x4000_2ff0),
            Just(0xffff_c000),
            any::<u32>(),
        ];
        let run = (base, 0u32..0x100, 0u32..0x30, any::<bool>()).prop_map(
            |(base, offset, more, is_long)| {
                let more = if is_long { more * 0x100 } else { more };
                let first = base.saturating_add(offset).min(UNREACHABLE - 1);
                let last = first.saturating_add(more).min(UNREACHABLE - 1);

                Run { first, last }
            },
        );

        proptest::collection::vec(run, 0..8).prop_map(|runs| runs.into_iter().collect())
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let default = prop_oneof![Just(Verdict::Allow), Just(Verdict::Deny)];

        (default, exceptions(), exceptions())
            .prop_map(|(default, reads, writes)| Policy::new(default, &reads, &writes))
    }

    proptest! {
        #[test]
        fn the_filter_decides_as_the_policy(policy in policies()) {
            let Ok(filter) = compile(&policy) else {
                prop_assert!(windows(&policy.segments(), MAX_MSRS).len() > MAX_RANGES);
                return Ok(());
            };

            filter.check().unwrap();
            prop_assert_eq!(filter.policy(), policy.clone());
            // Again, one by one, at indices where the decision may change.
            let ends = policy.segments().into_iter().flat_map(|segment| {
                [segment.run.first, segment.run.last]
            });
            let bounds = filter.ranges.iter().flat_map(|range| {
                let run = range.run().unwrap();

                [run.first, run.last]
            });

            for end in ends.chain(bounds).chain([0, 0x800, 0x8ff, u32::MAX]) {
                for index in [end.saturating_sub(1), end, end.saturating_add(1)] {
                    for access in Access::ALL {
                        prop_assert_eq!(
                            filter.decision(access, index).allowed,
                            policy.verdict(access, index) == Verdict::Allow
                        );
                    }
                }
            }
        }

        #[test]
        fn no_range_is_longer_than_it_has_to_be(policy in policies()) {
            if let Ok(filter) = compile(&policy) {
                let exceptions = policy
                    .exceptions(Access::Read)
                    .union(policy.exceptions(Access::Write));

                for range in &filter.ranges {
                    let run = range.run().unwrap();

                    prop_assert!(exceptions.is_empty() || exceptions.contains(run.first));
                    prop_assert!(exceptions.is_empty() || exceptions.contains(run.last));
                }
            }
        }
    }

    fn runs(runs: &[(u32, u32)]) -> Runs {
        runs.iter()
            .map(|&(first, last)| Run { first, last })
            .collect()
    }

    #[test]
    fn neighbours_share_a_bitmap() {
        let allowed = runs(&[(0x10, 0x10), (0x1b, 0x1b), (0x300f, 0x300f)]);
        let filter = compile(&Policy::new(Verdict::Deny, &allowed, &allowed)).unwrap();

        assert_eq!(filter.ranges.len(), 1);
        assert_eq!(filter.ranges[0].flags, Flags::BOTH);
        assert_eq!(filter.ranges[0].nmsrs, MAX_MSRS);
    }

    #[test]
    fn one_that_may_only_be_read_takes_one_range_more() {
        let filter = compile(&Policy::new(
            Verdict::Deny,
            &runs(&[(0x10, 0x1f)]),
            &runs(&[(0x10, 0x17), (0x19, 0x1f)]),
        ))
        .unwrap();
        let [read, both] = filter.ranges.as_slice() else {
            panic!("{filter:?}");
        };

        // Before the other one, and no longer than necessary.
        assert_eq!(
            (read.flags, read.base.0, read.nmsrs),
            (Flags::READ, 0x18, 1)
        );
        assert_eq!(
            (both.flags, both.base.0, both.nmsrs),
            (Flags::BOTH, 0x10, 16)
        );
    }

    #[test]
    fn to_deny_everything_takes_a_range() {
        let none = Runs::default();
        let filter = compile(&Policy::new(Verdict::Deny, &none, &none)).unwrap();

        assert_eq!(filter.ranges.len(), 1);
        assert!(!filter.decision(Access::Read, 0).allowed);
        let filter = compile(&Policy::new(Verdict::Allow, &none, &none)).unwrap();

        assert!(filter.ranges.is_empty());
    }

    #[test]
    fn what_takes_too_many_is_refused_with_a_way_out() {
        // 16 clusters, one of which needs a second range for a single MSR.
        let clusters: Vec<(u32, u32)> = (0..16).map(|i| (i << 16, (i << 16) + 9)).collect();
        let reads = runs(&clusters);
        let writes = reads.without(&Run::one(3).into());
        let refused = compile(&Policy::new(Verdict::Deny, &reads, &writes)).unwrap_err();

        assert_eq!((refused.needs, refused.needs_alike), (Some(17), Some(16)));
        assert_eq!(refused.clusters.len(), 17);
        assert_eq!(refused.clusters[0].flags, Flags::READ);
        // Without the first cluster's MSRs it can be compiled.
        let dropped = Run {
            first: refused.clusters[0].first.0,
            last: refused.clusters[0].last.0,
        };
        let less = compile(&Policy::new(
            Verdict::Deny,
            &reads.without(&dropped.into()),
            &writes.without(&dropped.into()),
        ));

        assert_eq!(less.unwrap().ranges.len(), 16);
        let last = Runs::from(Run::one(UNREACHABLE));

        assert!(compile(&Policy::new(Verdict::Allow, &last, &last)).is_err());
    }
}
