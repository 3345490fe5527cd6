// SPDX-License-Identifier: GPL-2.0

//! What the engine keeps for a VM, and files of `/dev/kvm-msr` share.

use super::{
    srcu::SrcuPtr,
    Claims,
    Overlay,
    Protected,
    Vm,
    VmRef, //
};
use crate::bindings;
use core::ptr;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Mutex, //
    },
};

/// What the engine keeps for a VM. `kvm->arch.msr_engine` points to it.
///
/// Files of the device refer to this and not to `struct kvm`, so they do not keep the VM alive.
///
/// # Invariants
///
/// `vm` is the VM until it is destroyed, and null afterwards.
#[pin_data]
pub(crate) struct VmState {
    pub(super) filter: SrcuPtr<Protected>,
    pub(super) overlay: SrcuPtr<Overlay>,
    /// Whether the fast path has to look at the overlay.
    watches_fastpath: Atomic<bool>,
    #[pin]
    vm: Mutex<VmPtr>,
    /// What the overlay was made of, and which files have claimed what.
    #[pin]
    pub(crate) claims: Mutex<Claims>,
}

struct VmPtr(*mut bindings::kvm);

// SAFETY: Any task may use a VM. Those that follow the pointer take a reference before.
unsafe impl Send for VmPtr {}

impl VmState {
    /// The state of a new VM: no filter and no overlay.
    pub(super) fn new(vm: *mut bindings::kvm) -> impl PinInit<Self> {
        // INVARIANT: The VM was just created.
        pin_init!(Self {
            filter: SrcuPtr::null(),
            overlay: SrcuPtr::null(),
            watches_fastpath: Atomic::new(false),
            vm <- new_mutex!(VmPtr(vm), "VmState::vm"),
            claims <- new_mutex!(Claims::default(), "VmState::claims"),
        })
    }

    /// Whether the fast path has to look at the overlay.
    #[inline]
    pub(crate) fn watches_fastpath(&self) -> bool {
        // `Atomic::load()` would be a function call.
        // SAFETY: The pointer is to the atomic, which is valid, and all writes to it are atomic.
        unsafe { self.watches_fastpath.as_ptr().read_volatile() }
    }

    /// Takes a reference to the VM. Hold it only for the length of an ioctl, as it keeps the VM
    /// alive.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the VM has ended.
    pub(crate) fn vm(&self) -> Result<VmRef> {
        let vm = self.vm.lock();

        // SAFETY: The VM is not destroyed while `vm` is locked and not null. Its reference count
        // may have reached 0 already, in which case this takes no reference.
        if vm.0.is_null() || !unsafe { bindings::kvm_get_kvm_safe(vm.0) } {
            return Err(ENODEV);
        }
        // SAFETY: `kvm_get_kvm_safe()` took a reference to the VM, which is the engine's.
        Ok(unsafe { VmRef::from_raw(vm.0) })
    }

    /// Changes the claims, and the overlay with them. On failure, both stay as they were.
    ///
    /// Sleeps. Must not be called in a [`Section`](super::Section) of the VM.
    ///
    /// # Errors
    ///
    /// The error of `change`, and `ENOMEM`.
    pub(crate) fn change_claims(
        &self,
        vm: &Vm,
        change: impl FnOnce(&mut Claims) -> Result,
    ) -> Result {
        let mut claims = self.claims.lock();
        let mut new = claims.clone();

        change(&mut new)?;
        self.replace_overlay(vm, new.overlay()?);
        *claims = new;
        Ok(())
    }

    /// Replaces the overlay, and waits until no access is judged by the old one and all vCPUs
    /// intercept what they have to.
    fn replace_overlay(&self, vm: &Vm, new: Option<KBox<Overlay>>) {
        let has_overlay = new.is_some();

        // So that the fast path misses no rule.
        if has_overlay {
            self.watches_fastpath.store(true, Relaxed);
        }
        let old = self.overlay.swap(new);

        vm.synchronize();
        if !has_overlay {
            self.watches_fastpath.store(false, Relaxed);
        }
        vm.recalc_intercepts();
        // The fast path is not in a section, but in guest mode.
        vm.leave_guest_mode();
        // SAFETY: `old` was replaced before the grace period that has ended, and before all vCPUs
        // left guest mode.
        drop(unsafe { old.into_box() });
    }

    /// Forgets the VM, and frees the filter and the overlay.
    ///
    /// # Safety
    ///
    /// The VM must have ended: nobody has a [`Vm`] or a section of it anymore.
    pub(super) unsafe fn end(&self) {
        // INVARIANT: The VM is being destroyed.
        self.vm.lock().0 = ptr::null_mut();
        // SAFETY: There are no readers, as the caller promises.
        unsafe {
            drop(self.filter.swap(None).into_box());
            drop(self.overlay.swap(None).into_box());
        }
    }
}
