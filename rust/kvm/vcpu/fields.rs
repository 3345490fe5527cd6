// SPDX-License-Identifier: GPL-2.0

//! The 64-bit values that KVM keeps for a vCPU: in `struct kvm_vcpu`, and in the arrays of the
//! machine check banks.

use super::Vcpu;
use crate::{
    bindings,
    engine::{
        cpu::Fields,
        registers::{
            with_fields,
            Field, //
        },
    },
};
use core::mem::offset_of;

/// A 64-bit integer, for which all bit patterns are valid.
trait Word {}

impl Word for u64 {}
impl Word for i64 {}

const fn check_type<T: Word>(_: fn(&bindings::kvm_vcpu) -> &T) {}

macro_rules! offsets {
    ($($name:ident = $($member:ident).+,)*) => {
        [$({
            const OFFSET: usize = offset_of!(bindings::kvm_vcpu, $($member).+);

            check_type(|vcpu| &vcpu.$($member).+);
            assert!(OFFSET <= u16::MAX as usize);
            OFFSET as u16
        },)*]
    };
}

/// The offsets of the values in `struct kvm_vcpu`, in bytes. Each value is a [`Word`].
///
/// This is an array, because a `match` would become a tree of comparisons: the kernel disables jump
/// tables.
static OFFSETS: [u16; 256] = {
    const DECLARED: [u16; Field::ALL.len()] = with_fields!(offsets);
    let mut offsets = [DECLARED[0]; 256];
    let mut i = 0;

    while i < DECLARED.len() {
        offsets[i] = DECLARED[i];
        i += 1;
    }
    offsets
};

/// The number of machine check banks. It is a power of two, so that a remainder is a mask, which
/// keeps an index that the guest chose in bounds, even if the CPU mispredicts a branch.
const BANKS: usize = bindings::KVM_MAX_MCE_BANKS as usize;
const _: () = assert!(BANKS.is_power_of_two());

/// Each bank has `IA32_MCi_CTL`, `_STATUS`, `_ADDR` and `_MISC`.
const VALUES: usize = BANKS * 4;

impl Vcpu {
    #[inline]
    fn field_ptr(&self, field: Field) -> *mut u64 {
        // SAFETY: `self` is a whole `struct kvm_vcpu`, and all offsets are inside of it.
        unsafe {
            self.as_raw()
                .cast::<u64>()
                .byte_add(usize::from(OFFSETS[field as usize]))
        }
    }

    fn mce_bank_ptr(&self, offset: usize) -> *mut u64 {
        // SAFETY: `self` is a valid vCPU, whose creation allocated `VALUES` values.
        unsafe { (*self.as_raw()).arch.mce_banks.add(offset % VALUES) }
    }

    fn mce_ctl2_ptr(&self, bank: usize) -> *mut u64 {
        // SAFETY: `self` is a valid vCPU, whose creation allocated a value for each of `BANKS`.
        unsafe { (*self.as_raw()).arch.mci_ctl2_banks.add(bank % BANKS) }
    }
}

impl Fields for Vcpu {
    #[inline]
    fn field(&self, field: Field) -> u64 {
        // SAFETY: `field_ptr()` points to a 64-bit integer, and only this task, which has the vCPU
        // loaded, writes it.
        unsafe { self.field_ptr(field).read() }
    }

    #[inline]
    fn set_field(&self, field: Field, value: u64) {
        // SAFETY: `field_ptr()` points to a 64-bit integer, and only this task, which has the vCPU
        // loaded, uses it.
        unsafe { self.field_ptr(field).write(value) }
    }

    fn mce_bank(&self, offset: usize) -> u64 {
        // SAFETY: The pointer is to one of the vCPU's values, and only this task, which has the
        // vCPU loaded, writes them.
        unsafe { self.mce_bank_ptr(offset).read() }
    }

    fn set_mce_bank(&self, offset: usize, value: u64) {
        // SAFETY: The pointer is to one of the vCPU's values, and only this task, which has the
        // vCPU loaded, uses them.
        unsafe { self.mce_bank_ptr(offset).write(value) }
    }

    fn mce_ctl2(&self, bank: usize) -> u64 {
        // SAFETY: The pointer is to one of the vCPU's values, and only this task, which has the
        // vCPU loaded, writes them.
        unsafe { self.mce_ctl2_ptr(bank).read() }
    }

    fn set_mce_ctl2(&self, bank: usize, value: u64) {
        // SAFETY: The pointer is to one of the vCPU's values, and only this task, which has the
        // vCPU loaded, uses them.
        unsafe { self.mce_ctl2_ptr(bank).write(value) }
    }
}
