// SPDX-License-Identifier: GPL-2.0

//! The MSR filter: what `KVM_X86_SET_MSR_FILTER` takes, and a form that is quick to ask.
//!
//! Source: `Documentation/virt/kvm/api.rst`, section `KVM_X86_SET_MSR_FILTER`.
//!
//! User space gives up to [`MAX_RANGES`] ranges, and the first one that covers an index for the
//! kind of access at hand decides. Looking at one range after the other would cost more with every
//! range, so the filter is compiled once, when it is set: for the pages of indices that have MSRs,
//! the verdicts on each block of 64 indices become a word of bits for each kind of access, and the
//! blocks are sorted by index ([`blocks`]). A lookup is then two loads, however many ranges there
//! are. The ranges are only looked at for indices elsewhere, which no MSR has.

mod blocks;
mod describe;

// Cargo's tests name no segment.
#[allow(unused_imports)]
pub(crate) use self::describe::Segment;

use self::blocks::Blocks;
use super::{
    access::Access,
    error::{
        Error,
        Result, //
    },
    registers::Location,
};
use core::ops::RangeInclusive;

/// How many ranges a filter takes (`KVM_MSR_FILTER_MAX_RANGES`).
pub(crate) const MAX_RANGES: usize = 16;

/// How large a range's bitmap may be, in bytes (`KVM_MSR_FILTER_MAX_BITMAP_SIZE`).
pub(crate) const MAX_BITMAP_BYTES: usize = 0x600;

/// The range concerns reads (`KVM_MSR_FILTER_READ`).
pub(crate) const READ: u32 = 1 << 0;

/// The range concerns writes (`KVM_MSR_FILTER_WRITE`).
pub(crate) const WRITE: u32 = 1 << 1;

/// What no range covers is denied (`KVM_MSR_FILTER_DEFAULT_DENY`).
pub(crate) const DEFAULT_DENY: u32 = 1 << 0;

/// The MSRs of the x2APIC, which are never filtered: the guest may write most of them without an
/// exit.
const X2APIC: RangeInclusive<u32> = 0x800..=0x8ff;

const WORD_BITS: u32 = u64::BITS;
const WORD_BYTES: usize = size_of::<u64>();

/// A range as user space gives it, but for its bitmap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    /// [`READ`], [`WRITE`] or both.
    pub(crate) flags: u32,
    /// The number of MSRs, and thus of bits; 0 means that the range is not in use.
    pub(crate) nmsrs: u32,
    /// The first MSR's index.
    pub(crate) base: u32,
}

impl Range {
    /// The size of the bitmap that user space has to provide, in words of 64 bits.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a flag is not defined or none is set, or the bitmap would be larger
    /// than [`MAX_BITMAP_BYTES`]. A range that is not in use is always valid, and has no bitmap.
    pub(crate) fn bitmap_words(&self) -> Result<usize> {
        if self.nmsrs == 0 {
            return Ok(0);
        }
        if self.flags == 0 || self.flags & !(READ | WRITE) != 0 {
            return Err(Error::Invalid);
        }
        let words = self.nmsrs.div_ceil(WORD_BITS) as usize;
        if words > MAX_BITMAP_BYTES / WORD_BYTES {
            return Err(Error::Invalid);
        }
        Ok(words)
    }
}

/// Returns whether a filter allows accesses that no range covers, given its flags and ranges.
///
/// # Errors
///
/// [`Error::Invalid`] if a flag is not defined, or if everything is to be denied and no range
/// allows anything.
pub(crate) fn default_allows(flags: u32, mut ranges: impl Iterator<Item = Range>) -> Result<bool> {
    if flags & !DEFAULT_DENY != 0 {
        return Err(Error::Invalid);
    }
    let default_allow = flags & DEFAULT_DENY == 0;

    if !default_allow && ranges.all(|range| range.nmsrs == 0) {
        return Err(Error::Invalid);
    }
    Ok(default_allow)
}

/// A range that is in use, and the position of its bitmap among the filter's words.
#[derive(Clone, Copy, Default)]
struct Placed {
    range: Range,
    first_word: u32,
}

impl Placed {
    /// Whether the range decides about an access. One that reaches the end of the space of indices,
    /// or past it, covers nothing: its end wraps around to a number below its base.
    fn covers(&self, index: u32, access: Access) -> bool {
        let Range { flags, nmsrs, base } = self.range;
        let kind = match access {
            Access::Read => READ,
            Access::Write => WRITE,
        };

        flags & kind != 0 && base <= index && index < base.wrapping_add(nmsrs)
    }

    /// The range's bit for an index that it covers.
    fn allows<W: Words>(&self, index: u32, words: &W) -> bool {
        let bit = index.wrapping_sub(self.range.base);

        self.word(bit / WORD_BITS, words) >> (bit % WORD_BITS) & 1 != 0
    }

    fn word<W: Words>(&self, number: u32, words: &W) -> u64 {
        words.word(self.first_word.wrapping_add(number) as usize)
    }
}

/// The bitmaps of ranges in their order, each in whole words.
pub(crate) trait Words {
    /// The word at a position, or 0 past the end.
    ///
    /// Guests choose the position, so nothing past the end may be loaded even if the CPU
    /// mispredicts.
    fn word(&self, position: usize) -> u64;
}

/// A filter that is ready for lookups.
pub(crate) struct Filter<W> {
    blocks: Blocks,
    ranges: [Placed; MAX_RANGES],
    nr_ranges: usize,
    default_allow: bool,
    words: W,
}

impl<W: Words> Filter<W> {
    /// Creates a filter without ranges. [`Self::compile`] has to follow.
    #[inline]
    pub(crate) fn new(default_allow: bool, words: W) -> Self {
        Self {
            blocks: Blocks::new(),
            ranges: [Placed::default(); MAX_RANGES],
            nr_ranges: 0,
            default_allow,
            words,
        }
    }

    /// Adds a range, which decides where no range before it does. `append` adds the bitmap, of as
    /// many words as it is told, to the words, and returns the position of the first.
    ///
    /// # Errors
    ///
    /// Those of [`Range::bitmap_words`] and of `append`, and [`Error::Invalid`] if there are more
    /// ranges than [`MAX_RANGES`].
    #[inline]
    pub(crate) fn add<E: From<Error>>(
        &mut self,
        range: &Range,
        append: impl FnOnce(&mut W, usize) -> core::result::Result<usize, E>,
    ) -> core::result::Result<(), E> {
        // A range that is not in use may have anything for a bitmap.
        let first_word = match range.bitmap_words()? {
            0 => return Ok(()),
            count => append(&mut self.words, count)?,
        };
        let slot = self.ranges.get_mut(self.nr_ranges).ok_or(Error::Invalid)?;

        *slot = Placed {
            range: *range,
            // At most 16 bitmaps of 192 words.
            first_word: first_word as u32,
        };
        self.nr_ranges = self.nr_ranges.wrapping_add(1);
        Ok(())
    }

    /// Prepares lookups, after all ranges were added.
    pub(crate) fn compile(&mut self) {
        self.blocks.set_default(self.default_allow);
        // From the last range to the first, so that the first one overrides the others.
        for placed in self.ranges.iter().take(self.nr_ranges).rev() {
            self.blocks.set(placed, &self.words);
        }
        self.blocks.allow(X2APIC);
    }

    /// Returns whether the guest may access an MSR.
    #[inline]
    pub(crate) fn allows(&self, index: u32, access: Access) -> bool {
        let location = Location::of(index);

        if location.is_of(index) {
            if self.blocks.allow_access(location, index, access) {
                return true;
            }
            if !self.blocks.is_full() {
                return false;
            }
        }
        self.search(index, access)
    }

    /// Returns whether the guest may access an MSR, according to the ranges.
    #[cold]
    fn search(&self, index: u32, access: Access) -> bool {
        X2APIC.contains(&index)
            || match self.decider(index, access) {
                Some(placed) => placed.allows(index, &self.words),
                None => self.default_allow,
            }
    }

    /// The first range that covers an access.
    fn decider(&self, index: u32, access: Access) -> Option<&Placed> {
        self.ranges
            .iter()
            .take(self.nr_ranges)
            .find(|placed| placed.covers(index, access))
    }
}
