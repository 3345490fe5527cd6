// SPDX-License-Identifier: GPL-2.0

//! Access to the guest's memory. It requires a read-side section of `kvm->srcu`, as user space can
//! move and remove memory slots at any time.

use super::Section;
use crate::bindings;

impl Section<'_> {
    /// Reads `N` bytes of the guest's memory. Returns [`None`] if not all of them can be read.
    pub(super) fn read_guest<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: The VM is valid, and `self` proves that this task is in a section of its
        // `kvm->srcu`. `bytes` has room for `N` bytes.
        let ret = unsafe {
            bindings::kvm_read_guest(self.vm().as_raw(), address, bytes.as_mut_ptr().cast(), N)
        };

        (ret == 0).then_some(bytes)
    }

    /// Writes the guest's memory, and returns whether all bytes were written.
    pub(super) fn write_guest(&self, address: u64, bytes: &[u8]) -> bool {
        let (vm, len) = (self.vm().as_raw(), bytes.len());

        // SAFETY: The VM is valid, and `self` proves that this task is in a section of its
        // `kvm->srcu`. `bytes` can be read.
        unsafe { bindings::kvm_write_guest(vm, address, bytes.as_ptr().cast(), len) == 0 }
    }
}
