// SPDX-License-Identifier: GPL-2.0

//! Sorted, disjoint segments of the space of MSR indices.

use super::{
    Access,
    Bitmap,
    Error,
    Range,
    Result,
    Rule,
    Segment,
    MAX_RANGES,
    READ,
    WORD_BITS,
    WRITE, //
};
use core::iter;

/// Each range cuts the space at its two ends.
const MAX_CUTS: usize = 2 * MAX_RANGES;

/// In place of the number of a range: the default decides.
const DEFAULT: u8 = u8::MAX;

/// The segments, with what decides for either kind of access.
///
/// # Invariants
///
/// `cuts` ascends. The first `len` elements are distinct, and not 0; the others are `u32::MAX`.
/// Segment `i` reaches from `cuts[i - 1]`, or 0, up to but without `cuts[i]`. [`DEFAULT`] decides
/// in those from `len` on, also in the last segment as all ranges have an end. So an index of
/// `u32::MAX` is judged well although the search takes it past the cuts that are not in use.
///
/// `len` is at most [`MAX_CUTS`]: each of at most [`MAX_RANGES`] ranges cuts twice. What decides is
/// [`DEFAULT`], or below `nr_ranges`, up to where `deltas` are set.
pub(super) struct Segments {
    cuts: [u32; MAX_CUTS],
    len: usize,
    /// For each segment, by [`Access`]: the number of the range that decides, or [`DEFAULT`].
    deciders: [[u8; 2]; MAX_CUTS + 1],
    default_allow: bool,
    /// For each range: what to add to an index, modulo 2^32, for its bit of the filter's bitmaps.
    deltas: [u32; MAX_RANGES],
    nr_ranges: u8,
}

impl Segments {
    /// One segment, with the default.
    #[inline]
    pub(super) fn new(default_allow: bool) -> Self {
        Self {
            cuts: [u32::MAX; MAX_CUTS],
            len: 0,
            deciders: [[DEFAULT; 2]; MAX_CUTS + 1],
            default_allow,
            // Not in use; it is filled as `cuts` is, at once.
            deltas: [u32::MAX; MAX_RANGES],
            nr_ranges: 0,
        }
    }

    /// Has a range, which is in use, decide where none before it does, for the kinds of access that
    /// it concerns. Its bitmap starts at `first_bit`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there are more than [`MAX_RANGES`].
    #[inline]
    pub(super) fn add(&mut self, range: &Range, first_bit: u32) -> Result {
        // A range that reaches the end of the space, or past it, covers nothing: its end is below
        // its base, and an index is in it if it is neither below its base nor at or above its end.
        let Some(end) = range.base.checked_add(range.nmsrs) else {
            return Ok(());
        };
        let number = self.nr_ranges;
        let delta = self.deltas.get_mut(usize::from(number));

        *delta.ok_or(Error::Invalid)? = first_bit.wrapping_sub(range.base);
        self.nr_ranges = number.wrapping_add(1);

        let first = self.cut(range.base)?;
        let behind = self.cut(end)?;

        for [read, write] in self.deciders.get_mut(first..behind).unwrap_or_default() {
            if range.flags & READ != 0 && *read == DEFAULT {
                *read = number;
            }
            if range.flags & WRITE != 0 && *write == DEFAULT {
                *write = number;
            }
        }
        Ok(())
    }

    /// Sees to it that a segment starts at an index, and returns its number.
    #[inline]
    fn cut(&mut self, at: u32) -> Result<usize> {
        let len = self.len;
        let mut number = len;

        // Filters are mostly given in ascending order, so look from the end. Here and below, the
        // remainders change nothing, as there are no more cuts than `MAX_CUTS`.
        while let Some(before) = number.checked_sub(1) {
            let cut = self.cuts[before % MAX_CUTS];

            if cut == at {
                return Ok(number);
            }
            if cut < at {
                break;
            }
            number = before;
        }
        if at == 0 {
            return Ok(0);
        }
        if len >= MAX_CUTS {
            return Err(Error::Invalid);
        }

        let number = number % MAX_CUTS;

        if number < len {
            self.cuts.copy_within(number..len, number + 1);
            self.deciders.copy_within(number + 1..len + 1, number + 2);
        }

        self.cuts[number] = at;
        // What decided in the segment does so in both parts.
        self.deciders[number + 1] = self.deciders[number];
        self.len = len.wrapping_add(1);
        Ok(number + 1)
    }

    /// Returns whether an access to `index` is allowed, given the filter's bitmaps.
    #[inline]
    pub(super) fn allows(&self, index: u32, access: Access, words: &[u64]) -> bool {
        let decider = self.deciders[self.position(index)][access as usize];

        match self.deltas.get(usize::from(decider)) {
            Some(delta) => bit(words, index.wrapping_add(*delta)),
            None => self.default_allow,
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

    /// The segments of one kind of access in order, for people to read. Where a range ends that
    /// decides nothing there, or for the other kind only, they don't.
    pub(super) fn iter<'a>(
        &'a self,
        access: Access,
        words: &'a [u64],
    ) -> impl Iterator<Item = Segment<'a>> {
        let deciders = self.deciders.iter().map(move |by| by[access as usize]);
        let firsts = iter::once(0).chain(self.cuts.iter().copied().take(self.len));
        let mut parts = firsts.zip(deciders).peekable();

        iter::from_fn(move || {
            let (first, decider) = parts.next()?;

            while parts.next_if(|(_, next)| *next == decider).is_some() {}

            let rule = match self.deltas.get(usize::from(decider)) {
                Some(&delta) => Rule::Bitmap(Bitmap { words, delta }),
                None if self.default_allow => Rule::Allow,
                None => Rule::Deny,
            };
            // A cut is not 0, so there is an index before it.
            let last = parts
                .peek()
                .map_or(u32::MAX, |(next, _)| next.wrapping_sub(1));

            Some(Segment { first, last, rule })
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
