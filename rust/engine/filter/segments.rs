// SPDX-License-Identifier: GPL-2.0

//! Sorted, disjoint segments of the space of MSR indices.

use super::{
    Bitmap,
    Range,
    Rule,
    Segment,
    MAX_RANGES,
    WORD_BITS, //
};

/// Each range cuts the space at its two ends.
const MAX_CUTS: usize = 2 * MAX_RANGES;

/// What decides in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Deny,
    /// The bit `index + delta`, modulo 2^32, of the filter's bitmaps.
    Bit {
        delta: u32,
    },
}

/// The segments of one kind of access.
///
/// # Invariants
///
/// `cuts` ascends. The first `len` elements are distinct, and not 0; the others are `u32::MAX`.
/// Segment `i` reaches from `cuts[i - 1]`, or 0, up to but without `cuts[i]`. The verdicts from
/// `len` on are those of the last segment, so that an index of `u32::MAX` is judged well although
/// the search takes it past the cuts that are not in use.
pub(super) struct Segments {
    cuts: [u32; MAX_CUTS],
    verdicts: [Verdict; MAX_CUTS + 1],
    len: usize,
}

/// A range of the access kind that is compiled, by its ends.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
    delta: u32,
}

impl Segments {
    /// Cuts the space by those of the ranges that concern `kind`, one of [`super::READ`] and
    /// [`super::WRITE`]. Each range has its first bit at the position in `first_bits`.
    pub(super) fn compile(
        ranges: &[Range; MAX_RANGES],
        first_bits: &[u32; MAX_RANGES],
        kind: u32,
        default_allow: bool,
    ) -> Self {
        let default = if default_allow {
            Verdict::Allow
        } else {
            Verdict::Deny
        };
        let mut spans = [Span {
            start: 0,
            end: 0,
            delta: 0,
        }; MAX_RANGES];
        let mut nr_spans = 0;
        let mut cuts = Cuts::new();

        for (range, first_bit) in ranges.iter().zip(first_bits) {
            if range.nmsrs == 0 || range.flags & kind == 0 {
                continue;
            }
            // A range that reaches the end of the space, or past it, covers nothing: its end is
            // below its base, and an index is in it if it is neither below its base nor at or
            // above its end.
            let Some(end) = range.base.checked_add(range.nmsrs) else {
                continue;
            };
            if let Some(span) = spans.get_mut(nr_spans) {
                *span = Span {
                    start: range.base,
                    end,
                    delta: first_bit.wrapping_sub(range.base),
                };
                nr_spans += 1;
            }
            cuts.insert(range.base);
            cuts.insert(end);
        }

        let spans = spans.get(..nr_spans).unwrap_or(&[]);
        let verdict_at = |index| {
            spans
                .iter()
                .find(|span| span.start <= index && index < span.end)
                .map_or(default, |span| Verdict::Bit { delta: span.delta })
        };

        let mut last = verdict_at(0);
        let mut segments = Self {
            cuts: [u32::MAX; MAX_CUTS],
            verdicts: [last; MAX_CUTS + 1],
            len: 0,
        };
        for &cut in cuts.as_slice() {
            let verdict = verdict_at(cut);
            if verdict == last {
                continue;
            }
            // There are no more segments than cuts.
            if let (Some(slot), Some(tail)) = (
                segments.cuts.get_mut(segments.len),
                segments.verdicts.get_mut(segments.len + 1),
            ) {
                *slot = cut;
                *tail = verdict;
                segments.len += 1;
            }
            last = verdict;
        }
        if let Some(tail) = segments.verdicts.get_mut(segments.len..) {
            tail.fill(last);
        }
        segments
    }

    /// Returns whether an access to `index` is allowed, given the filter's bitmaps.
    #[inline]
    pub(super) fn allows(&self, index: u32, words: &[u64]) -> bool {
        match self.verdicts[self.position(index)] {
            Verdict::Allow => true,
            Verdict::Deny => false,
            Verdict::Bit { delta } => bit(words, index.wrapping_add(delta)),
        }
    }

    /// The position of the segment with `index`, i.e. the number of cuts at or below it.
    ///
    /// A binary search whose steps are all taken, however few cuts there are: it costs the same
    /// for one range as for sixteen, and has no branch to mispredict.
    #[inline]
    fn position(&self, index: u32) -> usize {
        let mut position = 0;

        // The compiler sees that a step is never too far, and leaves the bounds checks out.
        if self.cuts[position | 15] <= index {
            position |= 16;
        }
        if self.cuts[position | 7] <= index {
            position |= 8;
        }
        if self.cuts[position | 3] <= index {
            position |= 4;
        }
        if self.cuts[position | 1] <= index {
            position |= 2;
        }
        if self.cuts[position] <= index {
            position |= 1;
        }
        // After 31 of the cuts, one is left.
        position + usize::from(self.cuts[position] <= index)
    }

    /// The segments in order, for people to read.
    pub(super) fn iter<'a>(&'a self, words: &'a [u64]) -> impl Iterator<Item = Segment<'a>> {
        (0..=self.len).filter_map(move |i| {
            let first = match i.checked_sub(1) {
                Some(before) => *self.cuts.get(before)?,
                None => 0,
            };
            let last = if i == self.len {
                u32::MAX
            } else {
                // A cut is not 0.
                self.cuts.get(i)?.wrapping_sub(1)
            };
            let rule = match *self.verdicts.get(i)? {
                Verdict::Allow => Rule::Allow,
                Verdict::Deny => Rule::Deny,
                Verdict::Bit { delta } => Rule::Bitmap(Bitmap { words, delta }),
            };
            Some(Segment { first, last, rule })
        })
    }
}

/// Cuts as they are collected: ascending, distinct, and not 0.
struct Cuts {
    at: [u32; MAX_CUTS],
    len: usize,
}

impl Cuts {
    fn new() -> Self {
        Self {
            at: [0; MAX_CUTS],
            len: 0,
        }
    }

    fn as_slice(&self) -> &[u32] {
        self.at.get(..self.len).unwrap_or(&[])
    }

    fn insert(&mut self, cut: u32) {
        // Filters are mostly given in ascending order, so look from the end.
        let position = self
            .as_slice()
            .iter()
            .rposition(|&other| other <= cut)
            .map_or(0, |before| before + 1);
        let known = position
            .checked_sub(1)
            .and_then(|before| self.at.get(before))
            .is_some_and(|&other| other == cut);

        if cut == 0 || known {
            return;
        }
        // Each range cuts twice, so there is room.
        if let Some(tail) = self.at.get_mut(position..=self.len) {
            tail.rotate_right(1);
            if let Some(slot) = tail.first_mut() {
                *slot = cut;
                self.len += 1;
            }
        }
    }
}

/// Returns whether a bit is set; one past the end is not.
#[inline]
pub(super) fn bit(words: &[u64], position: u32) -> bool {
    words
        .get((position / WORD_BITS) as usize)
        .is_some_and(|word| word >> (position % WORD_BITS) & 1 != 0)
}
