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

/// The maximum number of different pairs of words.
const ROOM: usize = 32;

/// The words of uniform blocks, in which a kind of access is allowed to all indices or to none.
/// Most blocks are uniform, so they share these words, which are at the start of the array, flipped
/// if the default allows.
const UNIFORM: [Words; 4] = [[0, 0], [!0, 0], [0, !0], [!0, !0]];

/// The words of all blocks.
///
/// # Invariants
///
/// The first `used` elements of `words` are in use, and `used` is at most [`ROOM`]. Every number in
/// `numbers` is below `used`. The element at position 0 has the default's verdicts.
pub(super) struct Blocks {
    /// For each block, the position of its words.
    numbers: [u8; Location::BLOCKS],
    words: [Words; ROOM],
    used: usize,
    /// Whether `words` was too small. Blocks without words of their own deny everything, and
    /// [`super::Filter`] searches the ranges then.
    full: bool,
}

impl Blocks {
    /// Creates blocks that deny everything.
    #[inline]
    pub(super) const fn new() -> Self {
        Self {
            numbers: [0; Location::BLOCKS],
            words: [[0; 2]; ROOM],
            used: UNIFORM.len(),
            full: false,
        }
    }

    /// Applies the default to all blocks. It must be called before [`Self::set`], as it keeps the
    /// blocks' numbers.
    pub(super) fn set_default(&mut self, allow: bool) {
        let default = if allow { !0 } else { 0 };

        for (words, [read, write]) in self.words.iter_mut().zip(UNIFORM) {
            *words = [read ^ default, write ^ default];
        }
    }

    /// Returns whether an access is allowed. If it is not and [`Self::is_full`], the caller has to
    /// search the ranges.
    #[inline]
    pub(super) fn allow_access(&self, location: Location, index: u32, access: Access) -> bool {
        let number = self.numbers[location.block()];

        // The number is below `ROOM`. The remainder lets the compiler omit the bounds check, and
        // holds under speculation.
        self.words[usize::from(number) % ROOM][access as usize] >> (index % WORD_BITS) & 1 != 0
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
        let Some(number) = self.uniform([!0; 2]) else {
            return;
        };

        if let Some(numbers) = self.numbers.get_mut(first..=last) {
            numbers.fill(number);
        }
    }

    /// The position of uniform words, or [`None`] if the words are not uniform.
    #[inline]
    fn uniform(&self, [read, write]: Words) -> Option<u8> {
        let [default, _] = self.words[0];
        let flipped = [read ^ default, write ^ default];

        (UNIFORM.iter().zip(0..)).find_map(|(words, number)| (*words == flipped).then_some(number))
    }

    /// Sets `count` verdicts of a block, from bit `first` on. The verdicts are in the low bits of
    /// `bits`.
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
            // Words that are not uniform belong to one block only, and can be changed.
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
