// SPDX-License-Identifier: GPL-2.0

//! `struct kvm_msr_filter`: `KVM_X86_SET_MSR_FILTER`.

use super::{
    read_value,
    read_words,
    UserPtr,
    UserVec, //
};
use crate::{
    bindings,
    engine::filter::{
        Range,
        Words, //
    },
    kvm::nospec::index_nospec, //
};
use core::{
    mem::MaybeUninit,
    slice, //
};
use kernel::{
    prelude::*,
    transmute::FromBytes, //
};

/// The number of ranges in a filter.
const RANGES: usize = bindings::KVM_MSR_FILTER_MAX_RANGES as usize;

/// The words of a filter's bitmaps, one bitmap after the other. One word for each range is enough
/// for most filters.
pub(crate) type FilterWords = UserVec<u64, RANGES>;

impl Words for FilterWords {
    #[inline]
    fn word(&self, position: usize) -> u64 {
        let words: &[u64] = self;

        if position >= words.len() {
            return 0;
        }
        // The check above ensures this already, but the CPU may mispredict it.
        words
            .get(index_nospec(position, words.len()))
            .copied()
            .unwrap_or(0)
    }
}

/// `struct kvm_msr_filter_range`, with pointers of type `P`: the bitmap is still in user memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UserRange<P = u64> {
    /// The range without its bitmap.
    pub(crate) range: Range,
    bitmap: P,
}

impl UserRange {
    /// Reads the bitmap, which has `count` words, and appends it to `words`. Returns the position
    /// of its first word.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the bitmap can't be read, `ENOMEM`.
    #[inline]
    pub(crate) fn read_bitmap(&self, words: &mut FilterWords, count: usize) -> Result<usize> {
        words.append(UserPtr::from_addr(self.bitmap as usize), count)
    }
}

/// `struct kvm_msr_filter`, with pointers of type `P`.
#[repr(C)]
pub(crate) struct UserFilter<P = u64> {
    /// `KVM_MSR_FILTER_DEFAULT_DENY` or 0.
    pub(crate) flags: u32,
    /// The ranges, in the order in which they decide.
    pub(crate) ranges: [UserRange<P>; RANGES],
}

const _: () = assert!(size_of::<UserFilter>() == size_of::<bindings::kvm_msr_filter>());

// SAFETY: The structure consists of integers, for which all bit patterns are valid.
unsafe impl<P: FromBytes> FromBytes for UserFilter<P> {}

/// `struct kvm_msr_filter` in user memory, in the layout of 64-bit or of 32-bit programs.
pub(crate) struct MsrFilter {
    filter: UserPtr,
    compat: bool,
}

impl MsrFilter {
    /// The structure at an address, in the layout of 32-bit programs if `compat`.
    pub(crate) fn new(filter: UserPtr, compat: bool) -> Self {
        Self { filter, compat }
    }

    /// Reads the structure to `filter`, without the bitmaps of its ranges.
    #[inline]
    pub(crate) fn read(self, filter: &mut MaybeUninit<UserFilter>) -> Result<&UserFilter> {
        if self.compat {
            return Ok(filter.write(self.read_compat()?));
        }
        read_words(self.filter, slice::from_mut(filter))?;
        // SAFETY: `read_words()` initialized all of it, and all bit patterns are valid for
        // integers.
        Ok(unsafe { filter.assume_init_ref() })
    }

    #[cold]
    fn read_compat(self) -> Result<UserFilter> {
        let UserFilter { flags, ranges } = read_value::<UserFilter<u32>>(self.filter)?;

        Ok(UserFilter {
            flags,
            ranges: ranges.map(|UserRange { range, bitmap }| UserRange {
                range,
                bitmap: bitmap.into(),
            }),
        })
    }
}
