// SPDX-License-Identifier: GPL-2.0

//! Structures that begin with their size, as the ioctls of `/dev/kvm-msr` take them.

use super::{
    read_value,
    UserPtr, //
};
use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
};

/// A structure in user memory that begins with its size in bytes (32 bits), and that may be longer
/// or shorter than `T`: user space may know a newer version of it.
pub(crate) struct Sized<T> {
    address: UserPtr,
    /// The size of user space's version.
    size: usize,
    /// What was read.
    pub(crate) value: T,
}

impl<T: FromBytes + AsBytes> Sized<T> {
    /// Reads the structure. Members that user space does not have become 0.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is smaller than the first version; `E2BIG` if members that the module does
    /// not know are not 0, or it is larger than a page; `EFAULT` if it can't be read.
    pub(crate) fn read(address: UserPtr) -> Result<Self> {
        let size = read_value::<u32>(address)? as usize;

        // Each structure is in its first version.
        if size < size_of::<T>() {
            return Err(EINVAL);
        }
        if size > kernel::page::PAGE_SIZE {
            return Err(E2BIG);
        }
        let mut value = core::mem::MaybeUninit::<T>::zeroed();

        // SAFETY: `value` is valid for writes of its size. The function checks the user's address.
        to_result(unsafe {
            bindings::kvm_msr_glue_copy_struct_from_user(
                value.as_mut_ptr().cast(),
                size_of::<T>(),
                address.as_const_ptr(),
                size,
            )
        })?;
        Ok(Self {
            address,
            size,
            // SAFETY: All bytes were initialized with 0 or with user space's, and all bit patterns
            // are valid, as `T` is `FromBytes`.
            value: unsafe { value.assume_init() },
        })
    }

    /// Writes the structure back, as far as user space knows it.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be written.
    pub(crate) fn write(&self) -> Result {
        // SAFETY: `value` is valid for reads of its size, and has no uninitialized bytes, as `T` is
        // `AsBytes`. The function checks the user's address.
        to_result(unsafe {
            bindings::kvm_msr_glue_copy_struct_to_user(
                self.address.as_mut_ptr(),
                self.size,
                (&raw const self.value).cast(),
                size_of::<T>(),
            )
        })
    }
}
