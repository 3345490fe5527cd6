// SPDX-License-Identifier: GPL-2.0

//! The MSR filter: what `KVM_X86_SET_MSR_FILTER` takes, and a form that is quick to ask.
//!
//! Source: `Documentation/virt/kvm/api.rst`, section `KVM_X86_SET_MSR_FILTER`.
//!
//! Userspace gives up to [`MAX_RANGES`] ranges in order, and the first one that covers an index
//! for the kind of access at hand decides. Asking them one after the other costs more with every
//! range, so they are compiled once: the space of indices is cut at every range's ends, into
//! segments that are sorted and disjoint, each with the one range that decides there for each kind
//! of access. A lookup is then a binary search over a fixed number of cuts, without a branch
//! that depends on how many there are.

mod segments;

use self::segments::Segments;
use super::error::{
    Error,
    Result, //
};
use core::ops::Deref;

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

/// The x2APIC's MSRs, which are never filtered.
const X2APIC: core::ops::RangeInclusive<u32> = 0x800..=0x8ff;

const WORD_BITS: u32 = u64::BITS;
const WORD_BYTES: usize = size_of::<u64>();

/// A kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// RDMSR and its relatives.
    Read,
    /// WRMSR and its relatives.
    Write,
}

/// A range as userspace gives it, but for its bitmap.
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
    /// The size of the bitmap that userspace has to provide, in words of 64 bits.
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

/// A filter that is ready to be asked.
///
/// `W` holds the bitmaps of the ranges, in their order, each in whole words, and perhaps more behind
/// them.
pub(crate) struct Filter<W> {
    segments: Segments,
    words: W,
}

impl<W: Deref<Target = [u64]>> Filter<W> {
    /// Creates a filter without ranges.
    #[inline]
    pub(crate) fn new(default_allow: bool, words: W) -> Self {
        Self {
            segments: Segments::new(default_allow),
            words,
        }
    }

    /// Adds a range, which decides where none before it does. `append` adds its bitmap to those that
    /// are there, which stay, as many words as it is told, and returns at which it starts.
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
        // At most 16 bitmaps of 0x3000 bits, which is far from wrapping.
        let first_bit = (first_word as u32).wrapping_mul(WORD_BITS);

        Ok(self.segments.add(range, first_bit)?)
    }

    /// Returns whether the guest may access an MSR.
    #[inline]
    pub(crate) fn allows(&self, index: u32, access: Access) -> bool {
        X2APIC.contains(&index) || self.segments.allows(index, access, &self.words)
    }

    /// The segments of one kind of access, in the order of their indices.
    pub(crate) fn describe(&self, access: Access) -> impl Iterator<Item = Segment<'_>> {
        self.segments.iter(access, &self.words)
    }
}

/// A part of the space of indices where one rule holds, for people to read.
#[derive(Clone, Copy)]
pub(crate) struct Segment<'a> {
    /// The first index.
    pub(crate) first: u32,
    /// The last index.
    pub(crate) last: u32,
    /// What holds there.
    pub(crate) rule: Rule<'a>,
}

/// What holds in a [`Segment`].
#[derive(Clone, Copy)]
pub(crate) enum Rule<'a> {
    /// Every access is allowed, as no range covers the segment.
    Allow,
    /// Every access is denied, as no range covers the segment.
    Deny,
    /// A range's bitmap decides.
    Bitmap(Bitmap<'a>),
}

/// The bitmap of a [`Segment`].
#[derive(Clone, Copy)]
pub(crate) struct Bitmap<'a> {
    words: &'a [u64],
    delta: u32,
}

impl Bitmap<'_> {
    /// Returns whether the bitmap allows an index, which lies in its segment.
    pub(crate) fn allows(&self, index: u32) -> bool {
        segments::bit(self.words, index.wrapping_add(self.delta))
    }
}

impl Segment<'_> {
    /// Calls `each` with every run of indices that is allowed or denied as a whole.
    pub(crate) fn for_each_run(&self, mut each: impl FnMut(u32, u32, bool)) {
        let bitmap = match self.rule {
            Rule::Allow => return each(self.first, self.last, true),
            Rule::Deny => return each(self.first, self.last, false),
            Rule::Bitmap(bitmap) => bitmap,
        };
        let mut start = self.first;

        while start <= self.last {
            let allowed = bitmap.allows(start);
            let mut end = start;

            // A bitmap's segment is short, and ends before the last index of all.
            while end < self.last && bitmap.allows(end.wrapping_add(1)) == allowed {
                end = end.wrapping_add(1);
            }
            each(start, end, allowed);
            start = end.wrapping_add(1);
        }
    }
}
