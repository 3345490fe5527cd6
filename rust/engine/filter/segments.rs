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
/// `len` on are the default, which holds in the last segment as all ranges have an end. So an index
/// of `u32::MAX` is judged well although the search takes it past the cuts that are not in use.
pub(super) struct Segments {
    cuts: [u32; MAX_CUTS],
    verdicts: [Verdict; MAX_CUTS + 1],
    len: usize,
}

impl Segments {
    /// One segment, with the default.
    pub(super) fn new(default_allow: bool) -> Self {
        let default = if default_allow {
            Verdict::Allow
        } else {
            Verdict::Deny
        };

        Self {
            cuts: [u32::MAX; MAX_CUTS],
            verdicts: [default; MAX_CUTS + 1],
            len: 0,
        }
    }

    /// Cuts a single segment by those of the ranges that concern `kind`, one of [`super::READ`]
    /// and [`super::WRITE`]. `cuts` are those of all ranges, and `first_bits` says where the
    /// bitmap of each starts.
    pub(super) fn compile(
        &mut self,
        ranges: &[Range; MAX_RANGES],
        cuts: &Cuts,
        first_bits: &[u32; MAX_RANGES],
        kind: u32,
    ) {
        let [default, ..] = self.verdicts;
        // The ranges that have the index at hand, a bit each. A cut is the start or the end of
        // its range, so it always changes the bit.
        let mut covering = 0u32;
        let mut last = default;
        let mut cuts = cuts.iter().filter(|cut| cut.kinds & kind != 0).peekable();

        while let Some(cut) = cuts.next() {
            covering ^= 1 << (cut.range % MAX_RANGES);
            if cuts.peek().is_some_and(|next| next.at == cut.at) {
                continue;
            }

            // The first range that covers it decides.
            let first = covering.trailing_zeros() as usize;
            let verdict = match (ranges.get(first), first_bits.get(first)) {
                (Some(range), Some(first_bit)) => Verdict::Bit {
                    delta: first_bit.wrapping_sub(range.base),
                },
                _ => default,
            };
            if verdict == last {
                continue;
            }
            last = verdict;
            if cut.at != 0 {
                // There are no more segments than cuts, so the remainder changes nothing.
                self.cuts[self.len % MAX_CUTS] = cut.at;
                self.len = self.len.wrapping_add(1);
            }
            if let Some(slot) = self.verdicts.get_mut(self.len) {
                *slot = verdict;
            }
        }
        // All ranges end, so the last verdict is the default, which is there already.
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

/// Where ranges cut the space.
pub(super) struct Cuts {
    /// Ascending. A cut is packed so that it compares by where it is first.
    sorted: [u64; MAX_CUTS],
    len: usize,
}

/// The start or the end of a range.
struct Cut {
    at: u32,
    /// The range's number.
    range: usize,
    /// The range's flags.
    kinds: u32,
}

impl Cuts {
    /// Collects the cuts of all ranges.
    pub(super) fn new(ranges: &[Range; MAX_RANGES]) -> Self {
        let mut cuts = Self {
            sorted: [0; MAX_CUTS],
            len: 0,
        };

        for (nr, range) in (0..).zip(ranges) {
            // A range that reaches the end of the space, or past it, covers nothing: its end is
            // below its base, and an index is in it if it is neither below its base nor at or
            // above its end.
            if let (1.., Some(end)) = (range.nmsrs, range.base.checked_add(range.nmsrs)) {
                let tag = u64::from(range.flags) << 8 | nr;

                cuts.insert(u64::from(range.base) << 32 | tag);
                cuts.insert(u64::from(end) << 32 | tag);
            }
        }
        cuts
    }

    fn insert(&mut self, cut: u64) {
        let mut position = self.len;

        // Filters are mostly given in ascending order, so look from the end. Each range cuts
        // twice, so there is room, and the remainders change nothing.
        while let Some(before) = position.checked_sub(1) {
            let other = self.sorted[before % MAX_CUTS];

            if other <= cut {
                break;
            }
            self.sorted[position % MAX_CUTS] = other;
            position = before;
        }
        self.sorted[position % MAX_CUTS] = cut;
        self.len = self.len.wrapping_add(1);
    }

    fn iter(&self) -> impl Iterator<Item = Cut> + '_ {
        self.sorted.iter().take(self.len).map(|&cut| Cut {
            at: (cut >> 32) as u32,
            range: (cut & 0xff) as usize,
            kinds: (cut as u32) >> 8,
        })
    }
}

/// Returns whether a bit is set; one past the end is not.
#[inline]
pub(super) fn bit(words: &[u64], position: u32) -> bool {
    words
        .get((position / WORD_BITS) as usize)
        .is_some_and(|word| word >> (position % WORD_BITS) & 1 != 0)
}
