// SPDX-License-Identifier: GPL-2.0

//! A pointer that is read under a VM's `kvm->srcu`, and written under its `kvm->lock`.

use super::{
    Protected,
    Vm, //
};
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
        kernel::warn_on!(!unsafe { crate::bindings::kvm_msr_glue_srcu_held(vm.as_raw()) });

        // INVARIANT: The caller is in a section that outlives this.
        Self { vm, _guard: None }
    }

    /// The VM.
    pub(super) fn vm(&self) -> &'a Vm {
        self.vm
    }

    /// Reads the value that the engine keeps for the VM.
    #[inline]
    pub(crate) fn read(&self) -> Option<&Protected> {
        let value = self.vm.protected().value.as_ptr();

        // As srcu_dereference(): a READ_ONCE(), whose address dependency pairs with the full
        // ordering in `SrcuPtr::swap()`.
        // SAFETY: The pointer is to the atomic, which is valid, and all writes to it are atomic.
        let value = unsafe { value.read_volatile() };

        // SAFETY: The pointer is null, or to a value that `Vm::replace()` frees only after a grace
        // period of this VM's domain. `self` proves that this task is in a section of that domain,
        // so no grace period ends while the reference is used.
        unsafe { value.as_ref() }
    }
}

/// An optional `KBox` that SRCU protects. Each [`Vm`] has one.
///
/// # Invariants
///
/// `value` is null or comes from `KBox::into_raw`. A value is freed when this is dropped, or after
/// it was replaced and a grace period of the VM's `kvm->srcu` has passed.
pub(super) struct SrcuPtr {
    value: Atomic<*mut Protected>,
}

impl SrcuPtr {
    /// Creates a null pointer.
    pub(super) const fn null() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            value: Atomic::new(ptr::null_mut()),
        }
    }

    /// Publishes a new value, and returns the old one.
    pub(super) fn swap(&self, new: KBox<Protected>) -> Replaced {
        // INVARIANT: The new pointer comes from a box.
        Replaced(self.value.xchg(KBox::into_raw(new), Full))
    }
}

impl Drop for SrcuPtr {
    fn drop(&mut self) {
        let value = *self.value.get_mut();

        if !value.is_null() {
            // SAFETY: Only `swap()` stores pointers, each from `KBox::into_raw`. There are no
            // readers: they borrow the VM, and KVM detaches it only after its last use.
            drop(unsafe { KBox::from_raw(value) });
        }
    }
}

/// A value that was replaced. Readers may still use it.
///
/// It leaks unless [`Self::into_box`] is called.
#[must_use]
pub(super) struct Replaced(*mut Protected);

impl Replaced {
    /// # Safety
    ///
    /// A grace period of the VM's `kvm->srcu` must have passed since the value was replaced.
    pub(super) unsafe fn into_box(self) -> Option<KBox<Protected>> {
        // SAFETY: A pointer in an `SrcuPtr` is null or comes from `KBox::into_raw`. The caller has
        // waited for a grace period, so no reader uses it.
        (!self.0.is_null()).then(|| unsafe { KBox::from_raw(self.0) })
    }
}
