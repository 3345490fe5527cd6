// SPDX-License-Identifier: GPL-2.0

//! What requires a read-side section of a VM's `kvm->srcu`: what the engine keeps for the VM, and
//! guest memory, as user space can move memory slots at any time.

use super::{
    Overlay,
    Protected,
    Vm, //
};
use crate::bindings;
use core::ptr;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        srcu::Guard, //
    },
};

/// A read-side section of a VM's `kvm->srcu`.
///
/// A leaked section never ends, so [`Vm::replace`] waits forever. The same happens if
/// [`Vm::replace`] is called in a section.
///
/// # Invariants
///
/// The current task is in a read-side section of the SRCU domain of `vm` as long as this exists:
/// the guard's section, or if there is no guard, one that the caller of [`Self::enclosing`] is in.
pub(crate) struct Section<'a> {
    vm: &'a Vm,
    _guard: Option<Guard<'a>>,
}

impl<'a> Section<'a> {
    /// Enters a section.
    #[inline]
    pub(super) fn enter(vm: &'a Vm) -> Self {
        // INVARIANT: The guard keeps the task in the section.
        Self {
            vm,
            _guard: Some(vm.srcu().read_lock()),
        }
    }

    /// Creates a section for a task that is already in one, e.g. in the run loop. It has no cost at
    /// run time.
    ///
    /// # Safety
    ///
    /// The current task must be in a read-side section of the SRCU domain of `vm`, and must not
    /// leave it during `'a`.
    #[inline]
    pub(super) unsafe fn enclosing(vm: &'a Vm) -> Self {
        #[cfg(CONFIG_PROVE_RCU)]
        // SAFETY: `vm` is a valid VM, and the function only queries lockdep.
        kernel::warn_on!(!unsafe { bindings::kvm_msr_glue_srcu_held(vm.as_raw()) });

        // INVARIANT: The caller is in a section that outlives this.
        Self { vm, _guard: None }
    }

    /// The VM.
    pub(super) fn vm(&self) -> &'a Vm {
        self.vm
    }

    /// The filter, if user space has set one.
    #[inline]
    pub(crate) fn filter(&self) -> Option<&Protected> {
        self.read(&self.vm.state().filter)
    }

    /// What `/dev/kvm-msr` has set up for the VM, if anything.
    #[inline]
    pub(crate) fn overlay(&self) -> Option<&Overlay> {
        self.read(&self.vm.state().overlay)
    }

    /// Reads a pointer of this VM's state.
    #[inline]
    fn read<T>(&self, pointer: &SrcuPtr<T>) -> Option<&T> {
        // As srcu_dereference(): a READ_ONCE(), whose address dependency pairs with the full
        // ordering in `SrcuPtr::swap()`.
        let value = pointer.load_raw();

        // SAFETY: The pointer is null, or to a value that is freed only after a grace period of
        // this VM's domain, see `Replaced`. `self` proves that this task is in a section of that
        // domain, so no grace period ends while the reference is used.
        unsafe { value.as_ref() }
    }

    /// Reads `N` bytes of the guest's memory. Returns [`None`] if not all of them can be read.
    pub(super) fn read_guest<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: The VM is valid, and `self` proves that this task is in a section of its
        // `kvm->srcu`. `bytes` has room for `N` bytes.
        let ret = unsafe {
            bindings::kvm_read_guest(self.vm.as_raw(), address, bytes.as_mut_ptr().cast(), N)
        };

        (ret == 0).then_some(bytes)
    }

    /// Writes the guest's memory, and returns whether all bytes were written.
    pub(super) fn write_guest(&self, address: u64, bytes: &[u8]) -> bool {
        let (vm, len) = (self.vm.as_raw(), bytes.len());

        // SAFETY: The VM is valid, and `self` proves that this task is in a section of its
        // `kvm->srcu`. `bytes` can be read.
        unsafe { bindings::kvm_write_guest(vm, address, bytes.as_ptr().cast(), len) == 0 }
    }
}

/// An optional `KBox` that SRCU protects.
///
/// # Invariants
///
/// `value` is null or comes from `KBox::into_raw`. A value is freed when this is dropped, or after
/// it was replaced and a grace period of the VM's `kvm->srcu` has passed.
pub(super) struct SrcuPtr<T> {
    value: Atomic<*mut T>,
}

// SAFETY: This owns a `T`, and readers on other CPUs have references to it.
unsafe impl<T: Send + Sync> Send for SrcuPtr<T> {}
// SAFETY: As above. The pointer itself is atomic.
unsafe impl<T: Send + Sync> Sync for SrcuPtr<T> {}

impl<T> SrcuPtr<T> {
    /// Creates a null pointer.
    pub(super) const fn null() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            value: Atomic::new(ptr::null_mut()),
        }
    }

    /// The pointer, for a task that is not in a section, but that keeps the value otherwise.
    #[inline]
    pub(super) fn load_raw(&self) -> *mut T {
        // SAFETY: The pointer is to the atomic, which is valid, and all writes to it are atomic.
        unsafe { self.value.as_ptr().read_volatile() }
    }

    /// Publishes a new value, and returns the old one.
    pub(super) fn swap(&self, new: Option<KBox<T>>) -> Replaced<T> {
        // INVARIANT: The new pointer is null or comes from a box.
        Replaced(
            self.value
                .xchg(new.map_or(ptr::null_mut(), KBox::into_raw), Full),
        )
    }
}

impl<T> Drop for SrcuPtr<T> {
    fn drop(&mut self) {
        // SAFETY: There are no readers: they borrow the VM, which has ended.
        drop(unsafe { self.swap(None).into_box() });
    }
}

/// A value that was replaced. Readers may still use it.
///
/// It leaks unless [`Self::into_box`] is called.
#[must_use]
pub(super) struct Replaced<T>(*mut T);

impl<T> Replaced<T> {
    /// # Safety
    ///
    /// No reader may use the value anymore: a grace period of the VM's `kvm->srcu` must have passed
    /// since the value was replaced, or the VM must have ended.
    pub(super) unsafe fn into_box(self) -> Option<KBox<T>> {
        // SAFETY: A pointer in an `SrcuPtr` is null or comes from `KBox::into_raw`. The caller has
        // waited for a grace period, so no reader uses it.
        (!self.0.is_null()).then(|| unsafe { KBox::from_raw(self.0) })
    }
}
