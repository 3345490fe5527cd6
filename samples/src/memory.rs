// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Guest memory.

use std::alloc;
use std::alloc::Layout;
use std::ptr::NonNull;

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

/// Bytes per page.
pub const PAGE: usize = 4096;

/// Page-aligned memory that a guest may change while it runs.
///
/// It is only copied from and to: a reference into it would let Rust assume that nothing else
/// writes to it.
///
/// # Invariants
///
/// `start` points to an allocation of `layout`, which this object owns.
pub struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    /// Allocates `pages` pages of zeroes.
    ///
    /// Panics if `pages` is 0.
    pub fn new(pages: usize) -> Self {
        assert!(pages > 0);
        let layout = Layout::from_size_align(pages * PAGE, PAGE).expect("a size in range");
        // SAFETY: The size is not 0.
        let start = unsafe { alloc::alloc_zeroed(layout) };

        Memory {
            start: NonNull::new(start).unwrap_or_else(|| alloc::handle_alloc_error(layout)),
            layout,
        }
    }

    /// Gives the memory to a VM, at guest-physical address 0.
    ///
    /// # Safety
    ///
    /// The memory must be dropped after the VM and its vCPUs.
    pub unsafe fn add_to(&self, vm: &VmFd) -> Result<()> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: self.length() as u64,
            userspace_addr: self.start.as_ptr().expose_provenance() as u64,
        };

        // SAFETY: The range is allocated until the caller drops it after the VM, and Rust has no
        // reference into it.
        unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")
    }

    /// The size in bytes.
    pub fn length(&self) -> usize {
        self.layout.size()
    }

    /// Copies `bytes` to the guest-physical address `at`.
    ///
    /// Panics if the memory ends before them.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        // SAFETY: The range was checked, and `bytes` is no part of it, as Rust has no reference
        // into it.
        unsafe {
            self.start
                .add(at)
                .copy_from(NonNull::from(bytes).cast(), bytes.len())
        };
    }

    /// Copies `length` bytes from the guest-physical address `at`.
    ///
    /// Panics if the memory ends before them.
    pub fn read(&self, at: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];

        self.check(at, length);
        // SAFETY: As in `write`.
        unsafe {
            self.start
                .add(at)
                .copy_to(NonNull::from(&mut bytes[..]).cast(), length)
        };
        bytes
    }

    fn check(&self, at: usize, length: usize) {
        assert!(at <= self.length() && length <= self.length() - at);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, this is the allocation and its layout.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}
