// SPDX-License-Identifier: GPL-2.0

//! Lists that user space asks for, and single registers.

use super::{
    put_u64,
    read_value,
    write_slice,
    UserPtr, //
};
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
};

/// A list in user memory that begins with the number of its elements: `struct kvm_msr_list` with
/// 32 bits each, `struct kvm_reg_list` with 64 bits each.
pub(crate) struct UserList<T> {
    list: UserPtr,
    _elements: PhantomData<T>,
}

impl<T: FromBytes + AsBytes> UserList<T> {
    pub(in crate::kvm) fn new(list: UserPtr) -> Self {
        Self {
            list,
            _elements: PhantomData,
        }
    }

    /// Reads the number of elements that user space has room for.
    pub(crate) fn read_count(&self) -> Result<T> {
        read_value(self.list)
    }

    /// Writes the number of elements.
    pub(crate) fn write_count(&self, count: T) -> Result {
        write_slice(self.list, &[count])
    }

    /// Writes the elements.
    pub(crate) fn write_elements(self, elements: &[T]) -> Result {
        write_slice(self.list.wrapping_byte_add(size_of::<T>()), elements)
    }
}

impl UserList<u64> {
    /// Writes the number of elements with a single store, so that it is never written in part.
    pub(crate) fn put_count(&self, count: u64) -> Result {
        put_u64(self.list, count)
    }

    /// Writes the elements with a single store each, so that none is written in part.
    pub(crate) fn put_elements(self, elements: &[u64]) -> Result {
        let mut to = self.list;

        for &element in elements {
            to = to.wrapping_byte_add(size_of::<u64>());
            put_u64(to, element)?;
        }
        Ok(())
    }
}

/// `struct kvm_one_reg` in user memory: an ID, and the address of the value.
pub(crate) struct OneReg(pub(in crate::kvm) UserPtr);

/// The value of a register in user memory.
pub(crate) struct UserValue(UserPtr);

impl OneReg {
    /// Reads the ID and the address.
    pub(crate) fn read(self) -> Result<(u64, UserValue)> {
        let [id, address]: [u64; 2] = read_value(self.0)?;

        Ok((id, UserValue(UserPtr::from_addr(address as usize))))
    }
}

impl UserValue {
    /// Reads the value.
    pub(crate) fn read(self) -> Result<u64> {
        read_value(self.0)
    }

    /// Writes the value.
    pub(crate) fn write(self, value: u64) -> Result {
        put_u64(self.0, value)
    }
}
