// SPDX-License-Identifier: GPL-2.0

//! A vector of elements from user memory.

use super::{
    read_words,
    UserPtr, //
};
use core::{
    mem::MaybeUninit,
    ops::{
        Deref,
        DerefMut, //
    },
    slice,
};
use kernel::{
    prelude::*,
    transmute::FromBytes, //
};

/// Elements that were read from user memory. Up to `N` elements need no allocation.
///
/// # Invariants
///
/// The first `nr_few` elements of `few` are initialized.
pub(crate) struct UserVec<T, const N: usize> {
    few: [MaybeUninit<T>; N],
    nr_few: usize,
    /// All elements, once there are more than `N`.
    many: Option<KVVec<T>>,
}

impl<T: FromBytes + Copy, const N: usize> UserVec<T, N> {
    /// An empty vector.
    #[inline]
    pub(crate) fn new() -> Self {
        // INVARIANT: There are no elements.
        Self {
            few: [const { MaybeUninit::uninit() }; N],
            nr_few: 0,
            many: None,
        }
    }

    /// Reads `count` elements, and returns the position of the first one.
    ///
    /// # Errors
    ///
    /// `EFAULT` if not all can be read, `ENOMEM`. The contents of the vector are unspecified then.
    #[inline]
    pub(super) fn append(&mut self, from: UserPtr, count: usize) -> Result<usize> {
        let first = self.nr_few;
        let room = self
            .few
            .get_mut(first..)
            .and_then(|few| few.get_mut(..count));

        match room {
            Some(room) if self.many.is_none() => {
                read_words(from, room)?;
                // INVARIANT: `read_words()` initialized these elements.
                self.nr_few = first.wrapping_add(count);
                Ok(first)
            }
            _ => self.append_many(from, count),
        }
    }

    fn append_many(&mut self, from: UserPtr, count: usize) -> Result<usize> {
        let mut many = match self.many.take() {
            Some(many) => many,
            None => {
                let len = self.nr_few.wrapping_add(count);
                let mut many = KVVec::with_capacity(len, GFP_KERNEL_ACCOUNT)?;

                many.extend_from_slice(self, GFP_KERNEL_ACCOUNT)?;
                many
            }
        };
        let first = many.len();

        many.reserve(count, GFP_KERNEL_ACCOUNT)?;
        let room = many.spare_capacity_mut().get_mut(..count);

        read_words(from, room.ok_or(ENOMEM)?)?;
        // SAFETY: The capacity is sufficient, and `read_words()` initialized `count` elements.
        unsafe { many.inc_len(count) };
        self.many = Some(many);
        Ok(first)
    }
}

impl<T, const N: usize> Deref for UserVec<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        if let Some(many) = &self.many {
            return many;
        }
        // SAFETY: `append()` initialized the first `nr_few` elements.
        unsafe { slice::from_raw_parts(self.few.as_ptr().cast(), self.nr_few) }
    }
}

impl<T, const N: usize> DerefMut for UserVec<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        if let Some(many) = &mut self.many {
            return many;
        }
        // SAFETY: `append()` initialized the first `nr_few` elements.
        unsafe { slice::from_raw_parts_mut(self.few.as_mut_ptr().cast(), self.nr_few) }
    }
}
