// SPDX-License-Identifier: GPL-2.0

//! `struct kvm_msrs`: `KVM_GET_MSRS` and `KVM_SET_MSRS`.

use super::{
    read_value,
    write_slice,
    UserPtr,
    UserVec, //
};
use crate::{
    bindings,
    engine::request::check_count, //
};
use core::mem::offset_of;
use kernel::{
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
};

/// `struct kvm_msr_entry`
pub(crate) type MsrEntry = bindings::kvm_msr_entry;

const _: () = assert!(align_of::<MsrEntry>() == align_of::<u64>());

// SAFETY: All bit patterns are valid for integers, and there is no padding.
unsafe impl FromBytes for MsrEntry {}
// SAFETY: Integers without padding have no uninitialized bytes.
unsafe impl AsBytes for MsrEntry {}

/// The entries of a list. Four are enough for VMMs that access single MSRs.
pub(crate) type MsrEntries = UserVec<MsrEntry, 4>;

/// `struct kvm_msrs` in user memory: a number, and as many entries.
pub(crate) struct MsrList(pub(in crate::kvm) UserPtr);

impl MsrList {
    /// Reads the entries.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the list can't be read, `ENOMEM`, and the error of [`check_count`].
    #[inline]
    pub(crate) fn read(self) -> Result<(MsrEntries, UserEntries)> {
        // The word after the number is padding. C reads it, too, and fails if it is not mapped.
        let [count, _]: [u32; 2] = read_value(self.0)?;

        check_count(count)?;
        let user = self
            .0
            .wrapping_byte_add(offset_of!(bindings::kvm_msrs, __bindgen_anon_1));
        let mut entries = MsrEntries::new();

        entries.append(user, count as usize)?;
        Ok((entries, UserEntries(user)))
    }
}

/// The entries of a list in user memory.
pub(crate) struct UserEntries(UserPtr);

impl UserEntries {
    /// Writes the values of the entries.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a value can't be written. The values before it may have been written.
    pub(crate) fn write_values(self, entries: &[MsrEntry]) -> Result {
        let to = self.0.as_mut_ptr().cast();

        // SAFETY: `entries` has `entries.len()` elements. The function checks the user's address.
        let ret = unsafe {
            bindings::kvm_msr_glue_put_values(to, entries.as_ptr().cast(), entries.len())
        };

        if ret != 0 {
            return self.write_entries(entries);
        }
        Ok(())
    }

    /// Writes whole entries, as C does. If this fails, the entries up to the fault are written, as
    /// in C.
    #[cold]
    fn write_entries(self, entries: &[MsrEntry]) -> Result {
        write_slice(self.0, entries)
    }
}
