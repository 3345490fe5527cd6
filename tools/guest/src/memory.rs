// SPDX-License-Identifier: Apache-2.0 OR MIT

//! User memory whose end, holes and protection a test controls.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use rustix::io;
use rustix::mm;
use rustix::mm::MapFlags;
use rustix::mm::MprotectFlags;
use rustix::mm::ProtFlags;

/// Bytes per page.
pub const PAGE: usize = 4096;

/// Inaccessible bytes on both sides of a [`Mapping`]. No ioctl of this crate accesses more bytes
/// from its pointer.
pub const GUARD: usize = 16 * PAGE;

/// Which accesses to a page user space, and the kernel on its behalf, can make.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protection {
    /// Any access faults.
    None,
    /// Writes fault.
    Read,
    /// Nothing faults.
    ReadWrite,
}

/// Anonymous memory with inaccessible pages on both sides.
///
/// # Invariants
///
/// `base` is the start of a mapping of `GUARD + pages.len() * PAGE + GUARD`
/// bytes that this object owns; page `i` after the first guard has the
/// protection `pages[i]`.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<c_void>,
    pages: Vec<Protection>,
}

// SAFETY: A `Mapping` owns its memory, and nothing about it is tied to a thread.
unsafe impl Send for Mapping {}

// SAFETY: A shared `Mapping` can only be copied from. Whatever changes it needs it alone.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of zeroes, rounded up to pages.
    pub fn new(length: usize) -> io::Result<Self> {
        Self::with_flags(length, MapFlags::empty())
    }

    /// Like [`Mapping::new`], but below 2 GiB, for 32-bit pointers.
    pub fn low(length: usize) -> io::Result<Self> {
        Self::with_flags(length, MapFlags::from_bits_retain(libc::MAP_32BIT as u32))
    }

    fn with_flags(length: usize, flags: MapFlags) -> io::Result<Self> {
        let pages = length.div_ceil(PAGE).max(1);
        // SAFETY: A mapping at an address of the kernel's choice touches no
        // existing memory.
        let base = unsafe {
            mm::mmap_anonymous(
                std::ptr::null_mut(),
                2 * GUARD + pages * PAGE,
                ProtFlags::empty(),
                MapFlags::PRIVATE | flags,
            )
        }?;

        let base = NonNull::new(base).ok_or(io::Errno::FAULT)?;
        let mut mapping = Mapping {
            base,
            pages: vec![Protection::None; pages],
        };
        mapping.protect(0..pages, Protection::ReadWrite)?;
        Ok(mapping)
    }

    /// Changes the protection of some pages.
    ///
    /// Panics if `pages` is out of range.
    pub fn protect(&mut self, pages: Range<usize>, protection: Protection) -> io::Result<()> {
        assert!(pages.start <= pages.end && pages.end <= self.pages.len());

        let flags = match protection {
            Protection::None => MprotectFlags::empty(),
            Protection::Read => MprotectFlags::READ,
            Protection::ReadWrite => MprotectFlags::READ | MprotectFlags::WRITE,
        };
        // SAFETY: By the type invariant the pages are this object's, and no
        // reference into them exists: they are only copied from and to.
        unsafe {
            mm::mprotect(
                self.data().add(pages.start * PAGE).cast(),
                pages.len() * PAGE,
                flags,
            )
        }?;

        self.pages[pages].fill(protection);
        Ok(())
    }

    /// Number of bytes between the guards.
    pub fn length(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// Copies `bytes` to `offset`.
    ///
    /// Panics if a byte is out of range or not writable.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len(), |p| p == Protection::ReadWrite);
        // SAFETY: The range was checked to be inside the mapping and writable,
        // and `bytes` can't overlap it, as no reference into it exists.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.data().add(offset), bytes.len())
        };
    }

    /// Copies `length` bytes from `offset`.
    ///
    /// Panics if a byte is out of range or not readable.
    pub fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];

        self.check(offset, length, |p| p != Protection::None);
        // SAFETY: The range was checked to be inside the mapping and readable.
        unsafe {
            std::ptr::copy_nonoverlapping(self.data().add(offset), bytes.as_mut_ptr(), length)
        };
        bytes
    }

    /// Reads the little-endian 32-bit number at `offset`, panics as `read`.
    pub fn read_u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.read(offset, 4));
        u32::from_le_bytes(bytes)
    }

    /// Pointer to `offset`, which may be one past the last byte.
    ///
    /// Panics if `offset` is larger.
    pub fn at(&self, offset: usize) -> UserPtr<'_> {
        assert!(offset <= self.length());
        UserPtr {
            address: self.data().expose_provenance() + offset,
            mapping: PhantomData,
        }
    }

    /// Pointer to the inaccessible byte before the mapping.
    pub fn before(&self) -> UserPtr<'_> {
        UserPtr {
            address: self.data().expose_provenance() - 1,
            mapping: PhantomData,
        }
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: By the type invariant the guard is part of the mapping.
        unsafe { self.base.as_ptr().cast::<u8>().add(GUARD) }
    }

    fn check(&self, offset: usize, length: usize, allowed: impl Fn(Protection) -> bool) {
        let end = offset.checked_add(length).expect("range wraps");

        assert!(end <= self.length(), "range {offset:#x}..{end:#x}");
        if length > 0 {
            let pages = offset / PAGE..=(end - 1) / PAGE;
            assert!(self.pages[pages].iter().all(|&p| allowed(p)));
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the mapping is this object's, and no
        // pointer into it outlives it. Failure would only leak it.
        let _ = unsafe { mm::munmap(self.base.as_ptr(), 2 * GUARD + self.length()) };
    }
}

/// An address for an ioctl.
///
/// # Invariants
///
/// The [`GUARD`] bytes from `address` hold nothing that belongs to Rust code:
/// they are part of a [`Mapping`] that outlives this object, or of no mapping.
#[derive(Clone, Copy, Debug)]
pub struct UserPtr<'a> {
    address: usize,
    mapping: PhantomData<&'a Mapping>,
}

impl UserPtr<'static> {
    /// The null pointer. (Linux maps nothing in the lowest 64 KiB.)
    pub fn null() -> Self {
        UserPtr {
            address: 0,
            mapping: PhantomData,
        }
    }

    /// A non-canonical address, which no mapping can contain.
    pub fn non_canonical() -> Self {
        UserPtr {
            address: 0x8000_dead_0000_0000,
            mapping: PhantomData,
        }
    }

    /// An address in the kernel's half.
    pub fn kernel() -> Self {
        UserPtr {
            address: 0xffff_8880_0000_0000,
            mapping: PhantomData,
        }
    }
}

impl UserPtr<'_> {
    /// The address as a number.
    pub fn address(self) -> u64 {
        self.address as u64
    }
}
