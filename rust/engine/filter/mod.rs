// SPDX-License-Identifier: GPL-2.0

//! The MSR filter: the input of `KVM_X86_SET_MSR_FILTER`, and a compiled form for fast lookups.
//!
//! Source: `Documentation/virt/kvm/api.rst`, section `KVM_X86_SET_MSR_FILTER`.
//!
//! User space passes up to [`MAX_RANGES`] ranges. The first range that covers the index for the
//! kind of access decides. A search of the ranges takes longer the more ranges there are, so the
//! filter is compiled when it is set: for all pages of indices with MSRs, each block of 64 indices
//! gets a word of verdicts for each kind of access ([`blocks`]). A lookup then takes two loads,
//! regardless of the number of ranges. Only indices outside of these pages, where no MSR exists,
//! need a search.

mod blocks;
mod describe;

// Only the module names this type, cargo's tests don't.
#[allow(unused_imports)]
pub(crate) use self::describe::Segment;

use self::blocks::Blocks;
use super::{
    access::Access,
    registers::Location,
    request::{
        Error,
        Result, //
    },
};
use core::ops::RangeInclusive;

/// The maximum number of ranges in a filter (`KVM_MSR_FILTER_MAX_RANGES`).
pub(crate) const MAX_RANGES: usize = 16;

/// The maximum size of a range's bitmap, in bytes (`KVM_MSR_FILTER_MAX_BITMAP_SIZE`).
pub(crate) const MAX_BITMAP_BYTES: usize = 0x600;

/// The range applies to reads (`KVM_MSR_FILTER_READ`).
pub(crate) const READ: u32 = 1 << 0;

/// The range applies to writes (`KVM_MSR_FILTER_WRITE`).
pub(crate) const WRITE: u32 = 1 << 1;

/// Accesses that no range covers are denied (`KVM_MSR_FILTER_DEFAULT_DENY`).
pub(crate) const DEFAULT_DENY: u32 = 1 << 0;

/// The MSRs of the x2APIC. Filters don't apply to them (api.rst), as the guest can access most of
/// them without a VM-exit.
pub(crate) const X2APIC: RangeInclusive<u32> = 0x800..=0x8ff;

const WORD_BITS: u32 = u64::BITS;
const WORD_BYTES: usize = size_of::<u64>();

/// A range as user space passes it, without its bitmap: the first members of
/// `struct kvm_msr_filter_range`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    /// [`READ`], [`WRITE`] or both.
    pub(crate) flags: u32,
    /// The number of MSRs, and of bits in the bitmap. 0 means that the range is not in use.
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
/// [`Error::Invalid`] if a flag is not defined, or if the default denies and no range is in use.
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

/// A range that is in use, and the position of its bitmap in the filter's words.
#[derive(Clone, Copy, Default)]
struct Placed {
    range: Range,
    first_word: u32,
}

impl Placed {
    /// Whether the range covers an access. A range that reaches index `u32::MAX` covers nothing, as
    /// in C: its end wraps around to a number below its base.
    fn covers(&self, index: u32, access: Access) -> bool {
        let Range { flags, nmsrs, base } = self.range;
        let kind = match access {
            Access::Read => READ,
            Access::Write => WRITE,
        };

        flags & kind != 0 && base <= index && index < base.wrapping_add(nmsrs)
    }

    /// The range's verdict on an index that it covers.
    fn allows<W: Words>(&self, index: u32, words: &W) -> bool {
        let bit = index.wrapping_sub(self.range.base);

        self.word(bit / WORD_BITS, words) >> (bit % WORD_BITS) & 1 != 0
    }

    fn word<W: Words>(&self, number: u32, words: &W) -> u64 {
        words.word(self.first_word.wrapping_add(number) as usize)
    }
}

/// The bitmaps of all ranges, one after the other. Each begins with a new word.
pub(crate) trait Words {
    /// Returns the word at a position, or 0 past the end.
    ///
    /// Guests control the position, so an implementation must not load past the end, not even
    /// speculatively.
    fn word(&self, position: usize) -> u64;
}

/// A filter, which is ready for lookups after [`Self::compile`].
pub(crate) struct Filter<W> {
    blocks: Blocks,
    ranges: [Placed; MAX_RANGES],
    nr_ranges: usize,
    default_allow: bool,
    words: W,
}

impl<W: Words> Filter<W> {
    /// Creates a filter without ranges. The caller must call [`Self::compile`] before lookups.
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

    /// Adds a range, with a lower priority than the ranges before it. `append` is called with the
    /// bitmap's number of words: it appends the bitmap to the words and returns the position of its
    /// first word.
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
        // The bitmap of a range that is not in use is ignored, and may be an invalid pointer.
        let first_word = match range.bitmap_words()? {
            0 => return Ok(()),
            count => append(&mut self.words, count)?,
        };
        let slot = self.ranges.get_mut(self.nr_ranges).ok_or(Error::Invalid)?;

        *slot = Placed {
            range: *range,
            // It fits: there are at most 16 bitmaps of 192 words.
            first_word: first_word as u32,
        };
        self.nr_ranges = self.nr_ranges.wrapping_add(1);
        Ok(())
    }

    /// Prepares lookups, after all ranges were added.
    pub(crate) fn compile(&mut self) {
        self.blocks.set_default(self.default_allow);
        // In reverse order, so that the first range overrides the others.
        for placed in self.ranges.iter().take(self.nr_ranges).rev() {
            self.blocks.set(placed, &self.words);
        }
        self.blocks.allow(X2APIC);
    }

    /// Returns whether the guest may access an MSR.
    #[inline]
    pub(crate) fn allows(&self, index: u32, access: Access) -> bool {
        self.verdict(index, access)
            .unwrap_or_else(|| self.search(index, access))
    }

    /// Does what [`Self::allows`] does by one lookup, or returns [`None`] if that does not tell.
    #[inline(always)]
    pub(crate) fn verdict(&self, index: u32, access: Access) -> Option<bool> {
        let location = Location::of(index);

        if !location.is_of(index) {
            return None;
        }
        if self.blocks.allow_access(location, index, access) {
            return Some(true);
        }
        (!self.blocks.is_full()).then_some(false)
    }

    /// Searches the ranges to decide whether the guest may access an MSR.
    #[cold]
    fn search(&self, index: u32, access: Access) -> bool {
        X2APIC.contains(&index)
            || match self.decider(index, access) {
                Some(placed) => placed.allows(index, &self.words),
                None => self.default_allow,
            }
    }

    /// Returns the first range that covers an access.
    fn decider(&self, index: u32, access: Access) -> Option<&Placed> {
        self.ranges
            .iter()
            .take(self.nr_ranges)
            .find(|placed| placed.covers(index, access))
    }
}
