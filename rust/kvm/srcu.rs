// SPDX-License-Identifier: GPL-2.0

//! A pointer that is read under a VM's `kvm->srcu`, and written under its `kvm->lock`.

use super::Vm;
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
/// Leaking one makes it last forever, and [`Vm::replace`] with it; so does calling that while in
/// one.
///
/// # Invariants
///
/// The current task is in a read-side section of the SRCU domain of `vm` as long as this exists:
/// either one of its own, if there is a guard, or one that encloses it.
pub(crate) struct Section<'a, P> {
    vm: &'a Vm<P>,
    _guard: Option<Guard<'a>>,
}

impl<'a, P: Send + Sync> Section<'a, P> {
    /// Enters a section.
    #[inline]
    pub(super) fn enter(vm: &'a Vm<P>) -> Self {
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
    pub(super) unsafe fn enclosing(vm: &'a Vm<P>) -> Self {
        #[cfg(CONFIG_PROVE_RCU)]
        // SAFETY: `vm` is a valid VM.
        kernel::warn_on!(!unsafe { crate::bindings::kvm_msr_glue_srcu_held(vm.as_raw()) });

        // INVARIANT: The caller is in a section that outlives this.
        Self { vm, _guard: None }
    }

    /// The VM.
    pub(super) fn vm(&self) -> &'a Vm<P> {
        self.vm
    }

    /// Reads what the engine keeps for the VM.
    #[inline]
    pub(crate) fn read(&self) -> Option<&P> {
        let value = self.vm.protected().value.as_ptr();

        // What srcu_dereference() does: READ_ONCE(), which pairs with the full ordering in
        // `SrcuPtr::swap()` by the address dependency.
        // SAFETY: The pointer is to the atomic, and all that is written to it is whole pointers.
        let value = unsafe { value.read_volatile() };

        // SAFETY: The pointer is null, or to a value that is not freed before a grace period of
        // this VM's domain has passed since it was replaced, as only `Vm::replace` does. None
        // passes while this task is in a section, for which `self` stands.
        unsafe { value.as_ref() }
    }
}

/// An optional box, of which each [`Vm`] has one.
///
/// # Invariants
///
/// `value` is null, or a pointer that a `KBox` was turned into, which is freed a grace period of
/// the VM's `kvm->srcu` after it was replaced, or when this is dropped.
pub(super) struct SrcuPtr<P> {
    value: Atomic<*mut P>,
}

impl<P: Send + Sync> SrcuPtr<P> {
    /// Creates a pointer to nothing.
    pub(super) const fn null() -> Self {
        // INVARIANT: It is null.
        Self {
            value: Atomic::new(ptr::null_mut()),
        }
    }

    /// Publishes a new value.
    pub(super) fn swap(&self, new: KBox<P>) -> Replaced<P> {
        // INVARIANT: The new pointer comes from a box.
        Replaced(self.value.xchg(KBox::into_raw(new), Full))
    }
}

impl<P> Drop for SrcuPtr<P> {
    fn drop(&mut self) {
        let value = *self.value.get_mut();

        if !value.is_null() {
            // SAFETY: Only `swap()` stores pointers, each from a box. There are no readers, as they
            // borrow the VM, which is not detached before they are done.
            drop(unsafe { KBox::from_raw(value) });
        }
    }
}

/// A value that was replaced, and that readers may still use.
///
/// It leaks unless it is turned into a box.
#[must_use]
pub(super) struct Replaced<P>(*mut P);

impl<P> Replaced<P> {
    /// # Safety
    ///
    /// A grace period must have passed since the value was replaced.
    pub(super) unsafe fn into_box(self) -> Option<KBox<P>> {
        // SAFETY: The pointer was in an `SrcuPtr`, so if it is not null, it comes from a box. A
        // grace period is over, as the caller says, so no reader has it.
        (!self.0.is_null()).then(|| unsafe { KBox::from_raw(self.0) })
    }
}
