// SPDX-License-Identifier: GPL-2.0

//! The compiled filter: verdicts on all indices in pages with MSRs, as 64-bit words.

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

/// The verdicts on a block of 64 indices: a word for each [`Access`], a bit for each index. 1
/// allows.
type Words = [u64; 2];

/// The number of positions of [`Words`], two for each block that has words of its own. With more,
/// each new filter would take longer to allocate and to clear.
const POSITIONS: usize = 64;

/// The words of uniform blocks, in which a kind of access is allowed to all indices or to none.
/// Most blocks are uniform, so they share these words, which are at the start of the array, flipped
/// if the default allows.
const UNIFORM: [Words; 4] = [[0, 0], [!0, 0], [0, !0], [!0, !0]];

/// The words of all blocks.
///
/// # Invariants
///
/// The first `used` elements of `words` are in use, and `used` is at most [`POSITIONS`]. Every
/// position in `positions` is even, and below `used`. The words at position 0 have the default's
/// verdicts.
pub(super) struct Blocks {
    /// For each block, the position of its [`Words`].
    positions: [u8; Location::BLOCKS],
    /// The last element is there for odd positions, which do not occur.
    words: [u64; POSITIONS + 1],
    used: usize,
    /// Whether `words` was too small. Blocks without words of their own deny everything, and
    /// [`super::Filter`] searches the ranges then.
    full: bool,
}

/// The number of the first word at a position. The remainder lets the compiler omit bounds checks,
/// and holds under speculation.
#[inline]
fn first_word(position: u8) -> usize {
    usize::from(position) % POSITIONS
}

impl Blocks {
    /// Creates blocks that deny everything.
    #[inline]
    pub(super) const fn new() -> Self {
        Self {
            positions: [0; Location::BLOCKS],
            words: [0; POSITIONS + 1],
            used: UNIFORM.len() * 2,
            full: false,
        }
    }

    /// Applies the default to all blocks. It must be called before [`Self::set`], as it keeps the
    /// blocks' numbers.
    pub(super) fn set_default(&mut self, allow: bool) {
        let default = if allow { !0 } else { 0 };

        for (word, uniform) in self.words.iter_mut().zip(UNIFORM.as_flattened()) {
            *word = uniform ^ default;
        }
    }

    /// Returns whether an access is allowed. If it is not and [`Self::is_full`], the caller has to
    /// search the ranges.
    #[inline]
    pub(super) fn allow_access(&self, location: Location, index: u32, access: Access) -> bool {
        let position = self.positions[location.block()];

        self.words[first_word(position) + access as usize] >> (index % WORD_BITS) & 1 != 0
    }

    /// Whether there was no room for the words of some block.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Applies a range's verdicts to all indices that it covers.
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

    /// Allows all accesses to a range of MSRs that consists of whole blocks of one page.
    #[inline]
    pub(super) fn allow(&mut self, indices: RangeInclusive<u32>) {
        let [first, last] = [indices.start(), indices.end()].map(|&i| Location::of(i).block());
        let Some(position) = self.uniform([!0; 2]) else {
            return;
        };

        if let Some(positions) = self.positions.get_mut(first..=last) {
            positions.fill(position);
        }
    }

    /// The position of uniform words, or [`None`] if the words are not uniform.
    #[inline]
    fn uniform(&self, [read, write]: Words) -> Option<u8> {
        let default = self.words[0];
        let flipped = [read ^ default, write ^ default];
        let mut all = UNIFORM.iter().zip((0..).step_by(2));

        all.find_map(|(words, position)| (*words == flipped).then_some(position))
    }

    /// Sets `count` verdicts of a block, from bit `first` on. The verdicts are in the low bits of
    /// `bits`.
    fn decide(&mut self, location: Location, first: u32, count: u32, bits: u64, flags: u32) {
        let block = location.block();
        let position = self.positions[block];
        let mask = u64::MAX >> (WORD_BITS - count) << first;
        let mut words = self.words_at(position);

        for (word, kind) in words.iter_mut().zip([READ, WRITE]) {
            if flags & kind != 0 {
                *word = *word & !mask | bits << first & mask;
            }
        }
        self.positions[block] = match self.uniform(words) {
            Some(uniform) => uniform,
            // Words that are not uniform belong to one block only, and can be changed.
            None if usize::from(position) >= UNIFORM.len() * 2 => {
                self.set_words(position, words);
                position
            }
            None if self.used < POSITIONS => {
                let unused = self.used as u8;

                self.set_words(unused, words);
                self.used += words.len();
                unused
            }
            None => {
                self.full = true;
                self.uniform([0; 2]).unwrap_or(0)
            }
        };
    }

    fn words_at(&self, position: u8) -> Words {
        let first = first_word(position);

        [self.words[first], self.words[first + 1]]
    }

    fn set_words(&mut self, position: u8, [read, write]: Words) {
        let first = first_word(position);

        self.words[first] = read;
        self.words[first + 1] = write;
    }
}
