// SPDX-License-Identifier: GPL-2.0

//! A pointer that is read under a VM's `kvm->srcu`, and written under its `kvm->lock`.

use super::{
    Protected,
    Vm, //
};
use core::ptr;
use kernel::{
    bindings,
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
        // ordering in `Vm::replace()`.
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
}

impl Drop for SrcuPtr {
    fn drop(&mut self) {
        let value = *self.value.get_mut();

        if !value.is_null() {
            // SAFETY: Only `Vm::replace()` stores pointers, each from `KBox::into_raw`. There are
            // no readers: they borrow the VM, and KVM detaches it only after its last use.
            drop(unsafe { KBox::from_raw(value) });
        }
    }
}

impl Vm {
    /// Enters a read-side section of `kvm->srcu`.
    #[inline]
    pub(crate) fn read_section(&self) -> Section<'_> {
        // INVARIANT: The guard keeps the task in the section.
        Section {
            vm: self,
            _guard: Some(self.srcu().read_lock()),
        }
    }

    /// Replaces the value that the engine keeps, waits for all readers of the old value, and frees
    /// it. After this, nobody uses the old value.
    ///
    /// Sleeps, and takes `kvm->lock`. Must not be called in a [`Section`] of the VM.
    pub(crate) fn replace(&self, new: KBox<Protected>) {
        // SAFETY: `self` is a valid VM.
        let lock = unsafe { &raw mut (*self.as_raw()).lock }.cast();

        // SAFETY: The VM is valid, so its lock is initialized.
        unsafe { bindings::mutex_lock(lock) };
        // INVARIANT: The new pointer comes from a box.
        let old = self.protected().value.xchg(KBox::into_raw(new), Full);
        // SAFETY: This task locked `kvm->lock` above.
        unsafe { bindings::mutex_unlock(lock) };

        // User space waits for the grace period, so it is expedited, as KVM's other grace periods
        // of this domain are. A normal one could wait for timer ticks if another ended shortly
        // before.
        self.srcu().synchronize_expedited();
        if !old.is_null() {
            // SAFETY: The pointer comes from `KBox::into_raw`. It was replaced before the grace
            // period that has just ended, so no reader uses it.
            drop(unsafe { KBox::from_raw(old) });
        }
    }
}
