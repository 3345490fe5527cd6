// SPDX-License-Identifier: GPL-2.0

//! Arrays whose address and number of elements are members of an ioctl's structure.

use super::{
    read_words,
    write_slice,
    UserPtr, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    slice, //
};
use kernel::{
    error::to_result,
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
};

/// An array in user memory.
pub(crate) struct UserArray<T> {
    address: u64,
    _elements: PhantomData<T>,
}

impl<T: FromBytes + AsBytes> UserArray<T> {
    /// The array at an address.
    pub(crate) fn new(address: u64) -> Self {
        Self {
            address,
            _elements: PhantomData,
        }
    }

    /// The address of an element. It may wrap; user memory is checked when it is accessed.
    fn at(&self, first: usize) -> UserPtr {
        let offset = first.wrapping_mul(size_of::<T>());

        UserPtr::from_addr((self.address as usize).wrapping_add(offset))
    }

    /// Reads elements from position `first` on.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they can't be read.
    pub(crate) fn read(&self, first: usize, to: &mut [T]) -> Result {
        let elements = to.as_mut_ptr().cast::<MaybeUninit<T>>();

        // SAFETY: This is the same memory, to which `read_words()` writes no uninitialized bytes.
        read_words(self.at(first), unsafe {
            slice::from_raw_parts_mut(elements, to.len())
        })
    }

    /// Writes the elements from the first on.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they can't be written.
    pub(crate) fn write(&self, from: &[T]) -> Result {
        write_slice(self.at(0), from)
    }
}

impl UserArray<bindings::kmsr_entry> {
    /// Writes the status and the value of entries from position `first` on.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they can't be written.
    pub(crate) fn write_results(&self, first: usize, from: &[bindings::kmsr_entry]) -> Result {
        let to = self.at(first).as_mut_ptr().cast();

        // SAFETY: `from` has `from.len()` elements. The function checks the user's address.
        to_result(unsafe { bindings::kvm_msr_glue_put_results(to, from.as_ptr(), from.len()) })
    }
}
