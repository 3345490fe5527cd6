// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Sets of MSR indices as runs of indices, because a set may have 2^32 members.

use std::fmt;

/// Indices from the first to the last one, both included; not empty.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Run {
    /// The first index.
    pub first: u32,
    /// The last index, not below the first.
    pub last: u32,
}

impl Run {
    /// One index.
    pub fn one(index: u32) -> Self {
        Run {
            first: index,
            last: index,
        }
    }

    /// The number of indices.
    pub fn count(self) -> u64 {
        u64::from(self.last.saturating_sub(self.first)) + 1
    }

    /// Whether it contains an index.
    pub fn contains(self, index: u32) -> bool {
        (self.first..=self.last).contains(&index)
    }

    /// The intersection with another run.
    pub fn cut(self, other: Run) -> Option<Run> {
        let both = Run {
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        };

        (both.first <= both.last).then_some(both)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            f.pad(&format!("{:#x}", self.first))
        } else {
            f.pad(&format!("{:#x}-{:#x}", self.first, self.last))
        }
    }
}

/// A set of MSR indices: sorted runs with gaps between them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// All indices.
    pub fn all() -> Self {
        Runs(vec![Run {
            first: 0,
            last: u32::MAX,
        }])
    }

    /// The runs, sorted.
    pub fn iter(&self) -> impl Iterator<Item = Run> {
        self.0.iter().copied()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of indices.
    pub fn count(&self) -> u64 {
        self.iter().map(Run::count).sum()
    }

    /// Whether it contains an index.
    pub fn contains(&self, index: u32) -> bool {
        self.from(index)
            .next()
            .is_some_and(|run| run.first <= index)
    }

    /// The intersection with a run.
    pub fn within(&self, bounds: Run) -> impl Iterator<Item = Run> {
        self.from(bounds.first)
            .map_while(move |run| run.cut(bounds))
    }

    /// The union.
    pub fn union(&self, other: &Runs) -> Runs {
        self.iter().chain(other.iter()).collect()
    }

    /// The difference: indices that `other` lacks.
    pub fn without(&self, other: &Runs) -> Runs {
        let mut left = Vec::new();

        for run in self.iter() {
            // The next index to handle, which may be beyond the last index.
            let mut first = u64::from(run.first);

            for hole in other.within(run) {
                if let Some(before) = hole.first.checked_sub(1)
                    && first <= u64::from(before)
                {
                    left.push(Run {
                        first: first as u32,
                        last: before,
                    });
                }
                first = u64::from(hole.last) + 1;
            }
            if first <= u64::from(run.last) {
                left.push(Run {
                    first: first as u32,
                    last: run.last,
                });
            }
        }
        Runs(left)
    }

    /// The intersection.
    pub fn intersection(&self, other: &Runs) -> Runs {
        self.without(&self.without(other))
    }

    /// The runs that end at or after an index.
    fn from(&self, index: u32) -> impl Iterator<Item = Run> {
        let skipped = self.0.partition_point(|run| run.last < index);

        self.0.iter().skip(skipped).copied()
    }
}

impl From<Run> for Runs {
    fn from(run: Run) -> Self {
        Runs(vec![run])
    }
}

impl FromIterator<Run> for Runs {
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Self {
        let mut sorted: Vec<Run> = runs.into_iter().collect();
        let mut merged: Vec<Run> = Vec::new();

        sorted.sort_unstable();
        for run in sorted {
            match merged.last_mut() {
                Some(before) if run.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(run.last);
                }
                _ => merged.push(run),
            }
        }
        Runs(merged)
    }
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, run) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            run.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(first: u32, last: u32) -> Run {
        Run { first, last }
    }

    /// Runs of small indices, and of some near the end.
    fn some_runs() -> impl Strategy<Value = Vec<Run>> {
        let one = (0u32..40, 0u32..8, any::<bool>()).prop_map(|(first, more, high)| {
            let base = if high { u32::MAX - 40 } else { 0 };

            run(base + first, (base + first).saturating_add(more))
        });

        proptest::collection::vec(one, 0..8)
    }

    proptest! {
        #[test]
        fn sets_are_what_their_members_say(a in some_runs(), b in some_runs()) {
            let (set_a, set_b): (Runs, Runs) = (a.iter().copied().collect(), b.iter().copied().collect());
            let (union, left) = (set_a.union(&set_b), set_a.without(&set_b));
            let both = set_a.intersection(&set_b);

            for index in (0..60).chain(u32::MAX - 60..=u32::MAX) {
                let in_a = a.iter().any(|run| run.contains(index));
                let in_b = b.iter().any(|run| run.contains(index));

                prop_assert_eq!(set_a.contains(index), in_a);
                prop_assert_eq!(union.contains(index), in_a || in_b);
                prop_assert_eq!(left.contains(index), in_a && !in_b);
                prop_assert_eq!(both.contains(index), in_a && in_b);
            }
            for set in [&set_a, &union, &left, &both] {
                let runs: Vec<Run> = set.iter().collect();

                prop_assert!(runs.windows(2).all(|two| two[0].last + 1 < two[1].first));
            }
        }
    }

    #[test]
    fn the_ends_of_all_indices_are_indices() {
        let all = Runs::all();

        assert_eq!(all.count(), 1 << 32);
        assert!(all.contains(0) && all.contains(u32::MAX));
        assert!(all.without(&all).is_empty());
        assert_eq!(all.without(&Run::one(0).into()).count(), (1 << 32) - 1);
        assert_eq!(
            all.without(&Run::one(u32::MAX).into()),
            run(0, u32::MAX - 1).into()
        );
    }
}
