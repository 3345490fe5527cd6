// SPDX-License-Identifier: GPL-2.0

//! Copies from and to user memory.

use super::nested::NestedHeader;
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ops::{
        Deref,
        DerefMut, //
    },
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

/// An entry of `KVM_GET_MSRS` and `KVM_SET_MSRS`, `struct kvm_msr_entry`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct MsrEntry(bindings::kvm_msr_entry);

// SAFETY: All bit patterns are valid for integers, and there is no padding.
unsafe impl FromBytes for MsrEntry {}
// SAFETY: Integers without padding have no uninitialised bytes.
unsafe impl AsBytes for MsrEntry {}

impl MsrEntry {
    const ZERO: Self = Self(bindings::kvm_msr_entry {
        index: 0,
        reserved: 0,
        data: 0,
    });

    /// The MSR's index.
    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.0.index
    }

    /// The MSR's value.
    #[inline]
    pub(crate) fn data(&self) -> u64 {
        self.0.data
    }

    /// The MSR's value, to be changed.
    #[inline]
    pub(crate) fn data_mut(&mut self) -> &mut u64 {
        &mut self.0.data
    }
}

/// How many entries there may be that need no memory of their own.
const FEW_ENTRIES: usize = 4;

/// Entries of a [`MsrList`], in the kernel's memory: a few on the stack, or many.
pub(crate) struct MsrEntries {
    few: [MsrEntry; FEW_ENTRIES],
    nr_few: usize,
    many: KVec<MsrEntry>,
}

impl MsrEntries {
    /// None yet.
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            few: [MsrEntry::ZERO; FEW_ENTRIES],
            nr_few: 0,
            many: KVec::new(),
        }
    }
}

impl Deref for MsrEntries {
    type Target = [MsrEntry];

    #[inline]
    fn deref(&self) -> &[MsrEntry] {
        match self.few.get(..self.nr_few) {
            Some(few) if !few.is_empty() => few,
            _ => &self.many,
        }
    }
}

impl DerefMut for MsrEntries {
    #[inline]
    fn deref_mut(&mut self) -> &mut [MsrEntry] {
        match self.few.get_mut(..self.nr_few) {
            Some(few) if !few.is_empty() => few,
            _ => &mut self.many,
        }
    }
}

/// `struct kvm_msrs` in user memory: a number, and as many entries.
#[derive(Clone, Copy)]
pub(crate) struct MsrList(UserPtr);

impl MsrList {
    pub(super) fn new(list: *mut bindings::kvm_msrs) -> Self {
        Self(UserPtr::from_ptr(list.cast()))
    }

    /// Reads how many entries there are.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the head can't be read, all of it.
    pub(crate) fn read_count(self) -> Result<u32> {
        // The word after the number is padding, which has to be readable nevertheless.
        let mut head = [0u32; 2];

        read_slice(self.0, &mut head)?;
        Ok(head[0])
    }

    /// Reads the entries.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EFAULT` if an entry can't be read.
    #[inline]
    pub(crate) fn read_entries(self, count: usize, entries: &mut MsrEntries) -> Result {
        if let Some(few) = entries.few.get_mut(..count) {
            read_slice(self.entries(), few)?;
            entries.nr_few = count;
        } else {
            entries.nr_few = 0;
            entries.many = read_vec(self.entries(), count)?;
        }
        Ok(())
    }

    /// Writes the entries' values back. The rest is what it was.
    ///
    /// # Errors
    ///
    /// `EFAULT` if one can't be written. Those before it may have been.
    pub(crate) fn write_values(self, entries: &[MsrEntry]) -> Result {
        let to = self.entries().as_mut_ptr().cast();

        // SAFETY: There are so many entries. The user's address is checked.
        let r = unsafe {
            bindings::kvm_msr_glue_put_values(to, entries.as_ptr().cast(), entries.len())
        };

        if r != 0 {
            return self.write_entries(entries);
        }
        Ok(())
    }

    /// Writes all of the entries, as C does: if that fails, it may leave part of a value.
    #[cold]
    fn write_entries(self, entries: &[MsrEntry]) -> Result {
        write_slice(self.entries(), entries)
    }

    fn entries(self) -> UserPtr {
        self.0
            .wrapping_byte_add(core::mem::offset_of!(bindings::kvm_msrs, __bindgen_anon_1))
    }
}

/// A list in user memory that begins with the number of its elements: `struct kvm_msr_list` with
/// numbers and elements of 32 bits, `struct kvm_reg_list` with such of 64.
pub(crate) struct UserList<T> {
    list: UserPtr,
    _elements: PhantomData<T>,
}

impl<T: FromBytes + AsBytes + Copy + Default> UserList<T> {
    pub(super) fn new(list: *mut c_void) -> Self {
        Self {
            list: UserPtr::from_ptr(list),
            _elements: PhantomData,
        }
    }

    /// Reads how many elements there is room for.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be read.
    pub(crate) fn read_count(&self) -> Result<T> {
        let mut count = [T::default()];

        read_slice(self.list, &mut count)?;
        Ok(count[0])
    }

    /// Writes how many elements there are.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be written.
    pub(crate) fn write_count(&self, count: T) -> Result {
        write_slice(self.list, &[count])
    }

    /// Writes the elements.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they can't be written.
    pub(crate) fn write_elements(&self, elements: &[T]) -> Result {
        write_slice(self.list.wrapping_byte_add(size_of::<T>()), elements)
    }
}

impl UserList<u64> {
    /// Writes how many elements there are, all of the number or nothing.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be written.
    pub(crate) fn put_count(&self, count: u64) -> Result {
        put_u64(self.list, count)
    }
}

/// `struct kvm_one_reg` in user memory: an ID, and where the value is.
pub(crate) struct OneReg(UserPtr);

/// Where user space has the value of a register.
pub(crate) struct UserValue(UserPtr);

impl OneReg {
    pub(super) fn new(one_reg: *mut c_void) -> Self {
        Self(UserPtr::from_ptr(one_reg))
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be read.
    pub(crate) fn read(&self) -> Result<(u64, UserValue)> {
        let mut one_reg = [0; 2];

        read_slice(self.0, &mut one_reg)?;
        let [id, address] = one_reg;
        Ok((id, UserValue(UserPtr::from_addr(address as usize))))
    }
}

impl UserValue {
    /// Reads the value.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be read.
    pub(crate) fn read(&self) -> Result<u64> {
        let mut value = [0];

        read_slice(self.0, &mut value)?;
        Ok(value[0])
    }

    /// Writes the value.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be written.
    pub(crate) fn write(&self, value: u64) -> Result {
        put_u64(self.0, value)
    }
}

/// `struct kvm_nested_state` in user memory.
#[derive(Clone, Copy)]
pub(crate) struct NestedState(UserPtr);

impl NestedState {
    pub(super) fn new(state: *mut bindings::kvm_nested_state) -> Self {
        Self(UserPtr::from_ptr(state.cast()))
    }

    /// Reads the size.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be read.
    pub(crate) fn read_size(self) -> Result<u32> {
        let mut size = [0];

        read_slice(self.size(), &mut size)?;
        Ok(size[0])
    }

    /// Writes the size.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be written.
    pub(crate) fn write_size(self, size: u32) -> Result {
        // SAFETY: The user's address is checked.
        to_result(unsafe { bindings::kvm_msr_glue_put_u32(self.size().as_mut_ptr().cast(), size) })
    }

    /// Reads the header, all of it.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be read.
    #[inline]
    pub(crate) fn read_header(self, header: &mut NestedHeader) -> Result {
        read_slice(self.0, header)
    }

    /// Writes the header.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be written, all of it.
    pub(crate) fn write_header(self, header: &NestedHeader) -> Result {
        write_slice(self.0, header)
    }

    /// Reads `size` bytes behind the header.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EFAULT` if not all can be read.
    pub(crate) fn read_data(self, size: usize) -> Result<KVec<u8>> {
        read_vec(self.data(0), size)
    }

    /// Reads bytes that are `offset` bytes behind the header, as many as there is room for. Those
    /// that can't be read become 0.
    ///
    /// # Errors
    ///
    /// `EFAULT` if not all can be read.
    pub(crate) fn read_data_at(self, offset: usize, to: &mut [u8]) -> Result {
        read_slice(self.data(offset), to)
    }

    /// Writes bytes to `offset` bytes behind the header.
    ///
    /// # Errors
    ///
    /// `EFAULT` if not all can be written.
    pub(crate) fn write_data_at(self, offset: usize, from: &[u8]) -> Result {
        write_slice(self.data(offset), from)
    }

    /// Clears `size` bytes that are `offset` bytes behind the header.
    ///
    /// # Errors
    ///
    /// `EFAULT` if not all can be written.
    pub(crate) fn clear_data(self, offset: usize, size: usize) -> Result {
        let to = self.data(offset).as_mut_ptr();
        // SAFETY: The address is checked.
        let left = unsafe { bindings::kvm_msr_glue_clear_user(to, size) };

        if left != 0 {
            return Err(EFAULT);
        }
        Ok(())
    }

    fn size(self) -> UserPtr {
        self.0
            .wrapping_byte_add(core::mem::offset_of!(bindings::kvm_nested_state, size))
    }

    fn data(self, offset: usize) -> UserPtr {
        self.0
            .wrapping_byte_add(size_of::<NestedHeader>())
            .wrapping_byte_add(offset)
    }
}

/// The number of ranges in a filter.
const FILTER_RANGES: usize = bindings::KVM_MSR_FILTER_MAX_RANGES as usize;

/// A range of an MSR filter as userspace gives it, with its bitmap still in user memory:
/// `struct kvm_msr_filter_range`, with pointers of type `P`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FilterRange<P = u64> {
    /// Which accesses the range concerns.
    pub(crate) flags: u32,
    /// The number of MSRs.
    pub(crate) nmsrs: u32,
    /// The first MSR's index.
    pub(crate) base: u32,
    bitmap: P,
}

/// The words of a filter's bitmaps, one bitmap after the other: in place, as far as they are no more
/// than it takes for the short ranges that most filters have.
pub(crate) struct FilterWords {
    few: [u64; FILTER_RANGES],
    nr_few: usize,
    /// All of them, if there are more.
    many: Option<KVVec<u64>>,
}

impl FilterWords {
    /// None yet.
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            few: [0; FILTER_RANGES],
            nr_few: 0,
            many: None,
        }
    }

    /// Reads the bitmap of a range, which has `count` words, and appends it. Returns where it is.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be read, `ENOMEM` if there is no room for it.
    #[inline]
    pub(crate) fn append(&mut self, range: &FilterRange, count: usize) -> Result<usize> {
        let from = UserPtr::from_addr(range.bitmap as usize);
        let first = self.nr_few;

        match (&self.many, self.few.get_mut(first)) {
            (None, Some(word)) if count == 1 => {
                *word = get_u64(from)?;
                self.nr_few = first.wrapping_add(1);
                Ok(first)
            }
            _ => self.append_words(from, count),
        }
    }

    fn append_words(&mut self, from: UserPtr, count: usize) -> Result<usize> {
        let first = self.nr_few;
        let many = match &mut self.many {
            Some(many) => many,
            none => {
                let room = self
                    .few
                    .get_mut(first..)
                    .and_then(|few| few.get_mut(..count));

                if let Some(room) = room {
                    read_slice(from, room)?;
                    self.nr_few = first.wrapping_add(count);
                    return Ok(first);
                }
                let few = self.few.get(..first).unwrap_or_default();
                let all = first.wrapping_add(count);
                let mut many = KVVec::with_capacity(all, GFP_KERNEL_ACCOUNT)?;

                many.extend_from_slice(few, GFP_KERNEL_ACCOUNT)?;
                none.insert(many)
            }
        };
        let first = many.len();

        many.reserve(count, GFP_KERNEL_ACCOUNT)?;
        let room = many.spare_capacity_mut().get_mut(..count);

        read_uninit(from, room.ok_or(ENOMEM)?)?;
        // SAFETY: There is room for `count` elements, which were initialised just now.
        unsafe { many.inc_len(count) };
        Ok(first)
    }
}

/// All words, and perhaps more, which are no range's.
impl Deref for FilterWords {
    type Target = [u64];

    #[inline]
    fn deref(&self) -> &[u64] {
        match &self.many {
            Some(many) => many,
            None => &self.few,
        }
    }
}

/// `struct kvm_msr_filter`, with pointers of type `P`.
#[repr(C)]
struct RawFilter<P> {
    flags: u32,
    ranges: [FilterRange<P>; FILTER_RANGES],
}

const _: () = assert!(size_of::<RawFilter<u64>>() == size_of::<bindings::kvm_msr_filter>());

// SAFETY: All bit patterns are valid for integers, and padding has none.
unsafe impl FromBytes for RawFilter<u32> {}
// SAFETY: As above.
unsafe impl FromBytes for RawFilter<u64> {}

/// `struct kvm_msr_filter` in user memory, in the layout of 64-bit or of 32-bit programs.
#[derive(Clone, Copy)]
pub(crate) struct MsrFilter {
    filter: UserPtr,
    compat: bool,
}

impl MsrFilter {
    pub(super) fn new(filter: *mut c_void, compat: bool) -> Self {
        Self {
            filter: UserPtr::from_ptr(filter),
            compat,
        }
    }

    /// Reads the filter but not the bitmaps of its ranges, and passes its flags and ranges on to a
    /// function.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be read, all of it, and those of the function.
    #[inline]
    pub(crate) fn read_with<T>(
        self,
        take: impl FnOnce(u32, &[FilterRange; FILTER_RANGES]) -> Result<T>,
    ) -> Result<T> {
        let mut filter = MaybeUninit::uninit();

        if self.compat {
            self.read_compat(&mut filter)?;
        } else {
            read_uninit(self.filter, slice::from_mut(&mut filter))?;
        }
        // SAFETY: Either way it was initialised just now.
        let RawFilter { flags, ranges } = unsafe { filter.assume_init_ref() };

        take(*flags, ranges)
    }

    #[cold]
    fn read_compat(self, filter: &mut MaybeUninit<RawFilter<u64>>) -> Result {
        let mut compat = MaybeUninit::<RawFilter<u32>>::uninit();

        read_uninit(self.filter, slice::from_mut(&mut compat))?;
        // SAFETY: It was initialised just now.
        let RawFilter { flags, ranges } = unsafe { compat.assume_init() };

        filter.write(RawFilter {
            flags,
            ranges: ranges.map(|range| FilterRange {
                flags: range.flags,
                nmsrs: range.nmsrs,
                base: range.base,
                bitmap: range.bitmap.into(),
            }),
        });
        Ok(())
    }
}

/// Reads `count` elements.
fn read_vec<T: FromBytes>(from: UserPtr, count: usize) -> Result<KVec<T>> {
    let mut vec = KVec::with_capacity(count, GFP_KERNEL | __GFP_NOWARN)?;

    read_uninit(
        from,
        vec.spare_capacity_mut().get_mut(..count).ok_or(ENOMEM)?,
    )?;
    // SAFETY: There is room for `count` elements, which were initialised just now.
    unsafe { vec.inc_len(count) };
    Ok(vec)
}

/// Reads elements until `to` is full. Those that can't be read become 0.
#[inline]
fn read_uninit<T: FromBytes>(from: UserPtr, to: &mut [MaybeUninit<T>]) -> Result {
    // SAFETY: The bytes are those of `to`, and what becomes of them is valid as `T` is `FromBytes`.
    unsafe { read_raw(from, to.as_mut_ptr().cast(), size_of_val(to)) }
}

/// Reads elements until `to` is full. Those that can't be read become 0.
#[inline]
fn read_slice<T: FromBytes>(from: UserPtr, to: &mut [T]) -> Result {
    // SAFETY: As above.
    unsafe { read_raw(from, to.as_mut_ptr().cast(), size_of_val(to)) }
}

/// Reads `len` bytes, without the cursor of [`UserSlice`](kernel::uaccess::UserSlice), which costs
/// more than the copy of a few bytes, and is of no use to lists that are copied at once.
///
/// # Safety
///
/// `to` must be valid for writes of `len` bytes, any of them.
#[inline]
unsafe fn read_raw(from: UserPtr, to: *mut c_void, len: usize) -> Result {
    // SAFETY: By the caller's promise. The user's address is checked.
    if unsafe { bindings::kvm_msr_glue_copy_from_user(to, from.as_const_ptr(), len) } != 0 {
        return Err(EFAULT);
    }
    Ok(())
}

/// Reads a number.
#[inline]
fn get_u64(from: UserPtr) -> Result<u64> {
    let mut value = 0;

    // SAFETY: The user's address is checked, and the value can be written.
    to_result(unsafe { bindings::kvm_msr_glue_get_u64(&mut value, from.as_const_ptr().cast()) })?;
    Ok(value)
}

/// Writes a number, all of it or nothing.
fn put_u64(to: UserPtr, value: u64) -> Result {
    // SAFETY: The user's address is checked.
    to_result(unsafe { bindings::kvm_msr_glue_put_u64(to.as_mut_ptr().cast(), value) })
}

/// Writes all elements.
#[inline]
fn write_slice<T: AsBytes>(to: UserPtr, from: &[T]) -> Result {
    let len = size_of_val(from);

    // SAFETY: The bytes are those of `from`, and all initialised as `T` is `AsBytes`. The user's
    // address is checked.
    if unsafe { bindings::kvm_msr_glue_copy_to_user(to.as_mut_ptr(), from.as_ptr().cast(), len) }
        != 0
    {
        return Err(EFAULT);
    }
    Ok(())
}
