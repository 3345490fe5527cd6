// SPDX-License-Identifier: GPL-2.0

//! The verdicts on the indices of the pages that have MSRs, as words of 64 bits.

use super::{
    Access,
    Location,
    Placed,
    Range,
    RangeInclusive,
    READ,
    WORD_BITS,
    WRITE, //
};

/// Verdicts on the indices of a block by [`Access`], a bit for each: 1 allows.
type Words = [u64; 2];

/// How many different pairs of words there is room for.
const ROOM: usize = 32;

/// The words of blocks that are allowed or denied as a whole, for either kind of access. As most
/// blocks are, these words are there once for all of them, at the start.
const UNIFORM: [Words; 4] = [[0, 0], [!0, 0], [0, !0], [!0, !0]];

/// The words of all blocks.
///
/// # Invariants
///
/// `words` is used up to `used`, which is at most [`ROOM`]. Every number in `numbers` is below
/// `used`. Position 0 has the words of the default.
pub(super) struct Blocks {
    /// For each block, the position of its words.
    numbers: [u8; Location::BLOCKS],
    words: [Words; ROOM],
    used: usize,
    /// A block got no words of its own for lack of room, and denies everything instead.
    full: bool,
}

impl Blocks {
    /// Blocks that deny everything, until [`Self::set_default`].
    #[inline]
    pub(super) const fn new() -> Self {
        Self {
            numbers: [0; Location::BLOCKS],
            words: [[0; 2]; ROOM],
            used: UNIFORM.len(),
            full: false,
        }
    }

    /// Has the default decide about all blocks. Numbers stay as they are, so this comes first.
    pub(super) fn set_default(&mut self, allow: bool) {
        let uniform = self.words.iter_mut().zip(UNIFORM);

        for (words, [read, write]) in uniform {
            *words = if allow {
                [!read, !write]
            } else {
                [read, write]
            };
        }
    }

    /// Returns whether an access is allowed. If not, and [`Self::is_full`], the ranges decide.
    #[inline]
    pub(super) fn allow_access(&self, location: Location, index: u32, access: Access) -> bool {
        let number = self.numbers[location.block()];

        // The remainder keeps the number, and needs no comparison.
        self.words[usize::from(number) % ROOM][access as usize] >> (index % WORD_BITS) & 1 != 0
    }

    /// Whether there was not enough room for all blocks.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Has a range decide wherever it covers an index, given the filter's bitmaps.
    pub(super) fn set<W: super::Words>(&mut self, placed: &Placed, bitmaps: &W) {
        let Range { flags, nmsrs, base } = placed.range;
        let Some(end) = base.checked_add(nmsrs) else {
            return;
        };
        let mut first = base;

        while first < end {
            let in_block = first % WORD_BITS;
            let count = (end - first).min(WORD_BITS - in_block);
            let location = Location::of(first);

            if location.is_of(first) {
                let bit = first - base;
                let low = placed.word(bit / WORD_BITS, bitmaps);
                let high = placed.word(bit / WORD_BITS + 1, bitmaps);
                let both = u128::from(high) << WORD_BITS | u128::from(low);
                let bits = (both >> (bit % WORD_BITS)) as u64;

                self.decide(location, in_block, count, bits, flags);
            }
            first = first.wrapping_add(count);
        }
    }

    /// Allows all accesses to some MSRs.
    pub(super) fn allow(&mut self, indices: RangeInclusive<u32>) {
        let Some(number) = self.uniform([!0; 2]) else {
            return;
        };

        for index in indices.step_by(WORD_BITS as usize) {
            self.numbers[Location::of(index).block()] = number;
        }
    }

    /// The position of words, if these are uniform.
    fn uniform(&self, words: Words) -> Option<u8> {
        let uniform = self.words.iter().take(UNIFORM.len());

        uniform
            .zip(0..)
            .find_map(|(uniform, number)| (*uniform == words).then_some(number))
    }

    /// Sets `count` verdicts of a block from the bit `first` on.
    fn decide(&mut self, location: Location, first: u32, count: u32, bits: u64, flags: u32) {
        let block = location.block();
        let number = self.numbers[block];
        let mask = u64::MAX >> (WORD_BITS - count) << first;
        let mut words = self.words[usize::from(number) % ROOM];

        for (word, kind) in words.iter_mut().zip([READ, WRITE]) {
            if flags & kind != 0 {
                *word = *word & !mask | bits << first & mask;
            }
        }
        self.numbers[block] = match self.uniform(words) {
            Some(uniform) => uniform,
            // Other words are of one block only.
            None if usize::from(number) >= UNIFORM.len() => {
                self.words[usize::from(number) % ROOM] = words;
                number
            }
            None if self.used < ROOM => {
                let number = self.used;

                self.words[number % ROOM] = words;
                self.used = number + 1;
                number as u8
            }
            None => {
                self.full = true;
                self.uniform([0; 2]).unwrap_or(0)
            }
        };
    }
}
