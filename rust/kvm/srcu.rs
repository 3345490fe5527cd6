// SPDX-License-Identifier: GPL-2.0

//! Pointers that are read under a VM's `kvm->srcu`, and written under its `kvm->lock`.

use super::Vm;
use core::{
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    },
};
use kernel::{
    prelude::*,
    sync::srcu::Guard, //
};

/// A read-side section of a VM's `kvm->srcu`.
///
/// # Invariants
///
/// The current task is in a read-side section of the SRCU domain of `vm` as long as this exists:
/// either one of its own, if there is a guard, or one that encloses it.
pub(crate) struct Section<'a, D> {
    vm: &'a Vm<D>,
    _guard: Option<Guard<'a>>,
}

impl<'a, D: Send + Sync> Section<'a, D> {
    /// Enters a section.
    #[inline]
    pub(super) fn enter(vm: &'a Vm<D>) -> Self {
        // INVARIANT: The guard is the section.
        Self {
            vm,
            _guard: Some(vm.srcu().read_lock()),
        }
    }

    /// Speaks for a section that the current task is in already, as it is while the run loop
    /// handles an exit, so that it costs nothing.
    ///
    /// # Safety
    ///
    /// The current task must be in a read-side section of the SRCU domain of `vm`, and must not
    /// leave it during `'a`.
    #[inline]
    pub(super) unsafe fn enclosing(vm: &'a Vm<D>) -> Self {
        #[cfg(CONFIG_PROVE_RCU)]
        // SAFETY: `vm` is a valid VM.
        kernel::warn_on!(!unsafe { crate::bindings::kvm_msr_glue_srcu_held(vm.as_raw()) });

        // INVARIANT: By the caller's promise.
        Self { vm, _guard: None }
    }

    /// Reads a pointer of the VM's data.
    #[inline]
    pub(crate) fn read<T: Send + Sync>(&self, field: impl FnOnce(&D) -> &SrcuPtr<T>) -> Option<&T> {
        // Pairs with the release in `SrcuPtr::swap()`. On x86, which is all there is to KVM x86,
        // it is a plain load.
        let value = field(self.vm.data()).value.load(Ordering::Acquire);

        // SAFETY: The pointer is null, or to a `T` that is not freed before a grace period has
        // passed since it was replaced. By the type invariants, none passes while `self` exists.
        unsafe { value.as_ref() }
    }
}

/// An optional box in the data of a [`Vm`], which is read in a [`Section`] of that VM and replaced
/// by [`Vm::replace`].
///
/// # Invariants
///
/// `value` is null, or a pointer that a `KBox` was turned into, which is freed a grace period of
/// the VM's `kvm->srcu` after it was replaced, or when this is dropped.
pub(crate) struct SrcuPtr<T> {
    value: AtomicPtr<T>,
}

impl<T: Send + Sync> SrcuPtr<T> {
    /// Creates a pointer to nothing.
    pub(crate) const fn null() -> Self {
        // INVARIANT: It is null.
        Self {
            value: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Publishes a new value.
    pub(super) fn swap(&self, new: Option<KBox<T>>) -> Replaced<T> {
        let new = new.map_or(ptr::null_mut(), KBox::into_raw);

        // INVARIANT: `new` is null or comes from a box.
        Replaced(self.value.swap(new, Ordering::AcqRel))
    }
}

impl<T> Drop for SrcuPtr<T> {
    fn drop(&mut self) {
        let value = *self.value.get_mut();

        if !value.is_null() {
            // SAFETY: By the type invariants it comes from a box. There can't be readers, they
            // borrow the VM's data that this is dropped with.
            drop(unsafe { KBox::from_raw(value) });
        }
    }
}

/// A value that was replaced, and that readers may still use.
///
/// It leaks unless it is turned into a box.
#[must_use]
pub(super) struct Replaced<T>(*mut T);

impl<T> Replaced<T> {
    /// # Safety
    ///
    /// A grace period must have passed since the value was replaced.
    pub(super) unsafe fn into_box(self) -> Option<KBox<T>> {
        // SAFETY: The pointer was in an `SrcuPtr`, so if it is not null, it comes from a box,
        // and by the caller's promise there are no readers left.
        (!self.0.is_null()).then(|| unsafe { KBox::from_raw(self.0) })
    }
}
