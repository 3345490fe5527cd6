// SPDX-License-Identifier: GPL-2.0

//! `struct kvm_nested_state`: `KVM_GET_NESTED_STATE` and `KVM_SET_NESTED_STATE`.

use super::{
    read_slice,
    read_uninit,
    read_value,
    write_slice,
    UserPtr, //
};
use crate::{
    bindings,
    engine::nested::Header, //
};
use core::mem::offset_of;
use kernel::prelude::*;

/// `struct kvm_nested_state` in user memory: a header, and data areas after it.
pub(crate) struct NestedState(pub(in crate::kvm) UserPtr);

impl NestedState {
    /// Reads the size.
    pub(crate) fn read_size(&self) -> Result<u32> {
        read_value(self.size())
    }

    /// Writes the size.
    pub(crate) fn write_size(&self, size: u32) -> Result {
        write_slice(self.size(), &[size])
    }

    /// Reads the header.
    #[inline]
    pub(crate) fn read_header(&self, header: &mut Header) -> Result {
        read_slice(self.0, &mut header.0)
    }

    /// Writes the header.
    pub(crate) fn write_header(&self, header: &Header) -> Result {
        write_slice(self.0, &header.0)
    }

    /// Reads the first `size` bytes of data after the header.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EFAULT` if not all can be read.
    pub(crate) fn read_first(&self, size: usize) -> Result<KVec<u8>> {
        let mut bytes = KVec::with_capacity(size, GFP_KERNEL)?;
        let room = bytes.spare_capacity_mut().get_mut(..size);

        read_uninit(self.data(0), room.ok_or(ENOMEM)?)?;
        // SAFETY: The capacity is at least `size`, and `read_uninit()` initialized `size` bytes.
        unsafe { bytes.inc_len(size) };
        Ok(bytes)
    }

    /// Reads data at `offset` bytes from the header's end. Bytes that can't be read become 0.
    pub(crate) fn read_data(&self, offset: usize, to: &mut [u8]) -> Result {
        read_slice(self.data(offset), to)
    }

    /// Writes data at `offset` bytes from the header's end.
    pub(crate) fn write_data(&self, offset: usize, from: &[u8]) -> Result {
        write_slice(self.data(offset), from)
    }

    /// Clears `size` bytes at `offset` bytes from the header's end.
    pub(crate) fn clear_data(&self, offset: usize, size: usize) -> Result {
        let to = self.data(offset).as_mut_ptr();
        // SAFETY: clear_user() checks the address.
        let left = unsafe { bindings::kvm_msr_glue_clear_user(to, size) };

        if left != 0 {
            return Err(EFAULT);
        }
        Ok(())
    }

    fn size(&self) -> UserPtr {
        self.0
            .wrapping_byte_add(offset_of!(bindings::kvm_nested_state, size))
    }

    fn data(&self, offset: usize) -> UserPtr {
        self.0
            .wrapping_byte_add(size_of::<Header>())
            .wrapping_byte_add(offset)
    }
}
