// SPDX-License-Identifier: GPL-2.0

//! The guest's memory, which only someone in a read-side section of `kvm->srcu` may look up: user
//! space can move and remove it at any time.

use super::Section;
use crate::bindings;

impl<P: Send + Sync> Section<'_, P> {
    /// Reads the guest's memory: all `N` bytes, or [`None`] if some are not there.
    pub(super) fn read_guest<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: The VM is valid and this task is in a section of its `kvm->srcu`, which is what
        // `self` stands for. `bytes` has room for `N` bytes.
        let ret = unsafe {
            bindings::kvm_read_guest(self.vm().as_raw(), address, bytes.as_mut_ptr().cast(), N)
        };

        (ret == 0).then_some(bytes)
    }

    /// Writes the guest's memory, and returns whether all of it is there.
    pub(super) fn write_guest(&self, address: u64, bytes: &[u8]) -> bool {
        let (vm, len) = (self.vm().as_raw(), bytes.len());

        // SAFETY: The VM is valid and this task is in a section of its `kvm->srcu`, which is what
        // `self` stands for. `bytes` can be read.
        unsafe { bindings::kvm_write_guest(vm, address, bytes.as_ptr().cast(), len) == 0 }
    }
}
