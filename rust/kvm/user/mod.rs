// SPDX-License-Identifier: GPL-2.0

//! Copies from and to user memory.
//!
//! User space can change a structure in its memory between two reads. So each structure is read
//! only once: the methods that read it consume the pointer.
//!
//! # Errors
//!
//! All copies fail with `EFAULT` if not all of the user memory can be read or written.

mod array;
mod filter;
mod lists;
mod msrs;
mod nested_state;
mod sized;
mod words;

pub(crate) use self::{
    array::UserArray,
    filter::{
        FilterWords,
        MsrFilter, //
    },
    lists::{
        OneReg,
        UserList, //
    },
    msrs::{
        MsrEntry,
        MsrList, //
    },
    nested_state::NestedState,
    sized::Sized,
    words::UserVec,
};

use crate::bindings;
use core::{
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
    uaccess::UserPtr, //
};

/// Fills `to`. Elements that can't be read become 0.
#[inline]
fn read_slice<T: FromBytes>(from: UserPtr, to: &mut [T]) -> Result {
    // SAFETY: `to` is valid for writes of its own size, and all bit patterns are valid elements, as
    // `T` is `FromBytes`.
    unsafe { read_raw(from, to.as_mut_ptr().cast(), size_of_val(to)) }
}

/// Initializes `to`. Elements that can't be read become 0.
#[inline]
fn read_uninit<T: FromBytes>(from: UserPtr, to: &mut [MaybeUninit<T>]) -> Result {
    // SAFETY: `to` is valid for writes of its own size, and its elements may be uninitialized.
    unsafe { read_raw(from, to.as_mut_ptr().cast(), size_of_val(to)) }
}

/// Reads `len` bytes, without the cursor of [`UserSlice`](kernel::uaccess::UserSlice), which costs
/// more than the copy of a few bytes.
///
/// # Safety
///
/// `to` must be valid for writes of `len` bytes with any values.
#[inline]
unsafe fn read_raw(from: UserPtr, to: *mut c_void, len: usize) -> Result {
    // SAFETY: `to` is valid for `len` bytes. copy_from_user() checks the user's address.
    if unsafe { kernel::bindings::copy_from_user(to, from.as_const_ptr(), len) } != 0 {
        return Err(EFAULT);
    }
    Ok(())
}

/// Initializes elements that consist of 64-bit words, which is faster than [`read_uninit`] for a few
/// hundred bytes.
///
/// # Errors
///
/// `EFAULT` if not all can be read. Then the elements may be uninitialized.
#[inline]
fn read_words<T: FromBytes>(from: UserPtr, to: &mut [MaybeUninit<T>]) -> Result {
    const { assert!(size_of::<T>() % size_of::<u64>() == 0) };
    const { assert!(align_of::<T>() % align_of::<u64>() == 0) };

    let words = size_of_val(to) / size_of::<u64>();

    // SAFETY: `to` is valid for writes of as many words, which it is aligned for. The function
    // checks the user's address.
    to_result(unsafe {
        bindings::kvm_msr_glue_get_words(to.as_mut_ptr().cast(), from.as_const_ptr().cast(), words)
    })
}

/// Reads a value.
#[inline]
fn read_value<T: FromBytes>(from: UserPtr) -> Result<T> {
    let mut value = MaybeUninit::uninit();

    read_uninit(from, slice::from_mut(&mut value))?;
    // SAFETY: `read_uninit()` initialized all of it, and all bit patterns are valid, as `T` is
    // `FromBytes`.
    Ok(unsafe { value.assume_init() })
}

/// Writes all elements.
#[inline]
fn write_slice<T: AsBytes>(to: UserPtr, from: &[T]) -> Result {
    let len = size_of_val(from);

    // SAFETY: `from` is valid for reads of its own size, and has no uninitialized bytes, as `T` is
    // `AsBytes`. copy_to_user() checks the user's address.
    if unsafe { kernel::bindings::copy_to_user(to.as_mut_ptr(), from.as_ptr().cast(), len) } != 0 {
        return Err(EFAULT);
    }
    Ok(())
}

/// Writes an integer with a single store, so that it is never written in part.
fn put_u64(to: UserPtr, value: u64) -> Result {
    // SAFETY: put_user() checks the user's address.
    to_result(unsafe { bindings::kvm_msr_glue_put_u64(to.as_mut_ptr().cast(), value) })
}
