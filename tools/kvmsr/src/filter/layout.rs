// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds the windows that contain an MSR, and what is needed of each window.

use crate::filter::Access;
use crate::filter::Flags;
use crate::filter::Run;
use crate::filter::Segment;
use crate::filter::Window;

/// The MSRs that need a window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Need {
    /// From the first MSR that needs it to the last one.
    pub(super) hull: Option<Run>,
    /// The number of MSRs that need it.
    pub(super) msrs: u64,
}

/// Windows by kind, for lookups by index. Windows of one kind do not overlap.
pub(super) struct Layout<'a> {
    windows: &'a [Window],
    by_kind: [Vec<usize>; 3],
}

/// The numbers of the windows that contain an MSR.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    read: Option<usize>,
    write: Option<usize>,
    both: Option<usize>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(windows: &'a [Window]) -> Self {
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

    /// Cuts a run at the ends of windows.
    pub(super) fn pieces(&self, run: Run) -> impl Iterator<Item = (Run, Held)> {
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

    /// The MSRs that need each window; none if the windows are not enough.
    pub(super) fn needs(&self, segments: &[Segment]) -> Option<Vec<Need>> {
        let mut needs = vec![Need::default(); self.windows.len()];

        for segment in segments {
            for (piece, held) in self.pieces(segment.run) {
                for number in held.deciding(segment.flags)? {
                    let Some(need) = needs.get_mut(number) else {
                        continue;
                    };

                    need.hull = Some(Run {
                        first: need.hull.map_or(piece.first, |hull| hull.first),
                        last: piece.last,
                    });
                    need.msrs += piece.count();
                }
            }
        }
        Some(needs)
    }

    fn run(&self, number: usize) -> Option<Run> {
        self.windows.get(number).map(|window| window.run)
    }
}

impl Held {
    /// The windows that an MSR needs whose `flags` differ from the default; none if there are not
    /// enough.
    /// not enough.
    fn deciding(self, flags: Flags) -> Option<impl Iterator<Item = usize>> {
        let [alone, other, another] = match flags {
            Flags::READ => [self.read, self.write, self.both],
            Flags::WRITE => [self.write, self.read, self.both],
            _ => [self.both, self.read, self.write],
        };
        let chosen = match (alone, other, another) {
            (Some(_), ..) => [alone, None],
            (None, Some(_), Some(_)) => [other, another],
            _ => return None,
        };

        Some(chosen.into_iter().flatten())
    }

    /// The windows whose bit for the MSR differs from the default.
    pub(super) fn unlike_default(self, flags: Flags) -> impl Iterator<Item = usize> {
        let both = match flags {
            // After a range for the one access, it decides the other, which is as the default.
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
