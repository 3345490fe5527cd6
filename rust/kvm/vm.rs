// SPDX-License-Identifier: GPL-2.0

//! Virtual machines.

use super::{
    srcu::SrcuPtr,
    DyingVm,
    NewVm,
    Section,
    Vcpu, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::Srcu,
    types::Opaque, //
};

/// A virtual machine that the engine serves, which keeps a `P` for it, protected by `kvm->srcu`.
///
/// # Invariants
///
/// This is a valid `struct kvm` past `kvm_msr_engine_ops::vm_init` and before `vm_destroy`, whose
/// `arch.msr_engine` is an `SrcuPtr<P>` that a `KBox` was turned into, and which only
/// `vm_destroy` frees.
#[repr(transparent)]
pub(crate) struct Vm<P> {
    kvm: Opaque<bindings::kvm>,
    _protected: PhantomData<P>,
}

// `Vm::srcu` takes one for the other.
const _: () =
    assert!(size_of::<bindings::srcu_struct>() == size_of::<kernel::bindings::srcu_struct>());

impl<P: Send + Sync> Vm<P> {
    /// # Safety
    ///
    /// `kvm` must meet the type's invariants for all of `'a`.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(kvm: *mut bindings::kvm) -> &'a Self {
        // CAST: `Self` is transparent.
        // SAFETY: The caller promises a valid VM that is attached during `'a`.
        unsafe { &*kvm.cast() }
    }

    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::kvm {
        self.kvm.get()
    }

    /// The pointer to what the engine keeps.
    #[inline]
    pub(super) fn protected(&self) -> &SrcuPtr<P> {
        // SAFETY: `attach()` stored a pointer to an `SrcuPtr<P>`, which only `detach()` frees, after
        // the last use of `self`. Nobody has a mutable reference to it before.
        unsafe { &*(*self.as_raw()).arch.msr_engine.cast() }
    }

    /// The SRCU domain `kvm->srcu`.
    #[inline]
    pub(super) fn srcu(&self) -> &Srcu {
        // SAFETY: `self` is a valid VM.
        let srcu = unsafe { &raw const (*self.as_raw()).srcu };

        // CAST: `Srcu` is transparent, and its `struct srcu_struct` is the one seen here.
        // SAFETY: `kvm_create_vm()` initialised the domain before the VM was attached, and
        // it lives as long as the VM does, at the same place.
        unsafe { &*srcu.cast() }
    }

    /// Enters a read-side section of `kvm->srcu`.
    #[inline]
    pub(crate) fn read_section(&self) -> Section<'_, P> {
        Section::enter(self)
    }

    /// Replaces what the engine keeps, and frees the old once all readers are done with it: after
    /// this, nobody sees the old value.
    ///
    /// Sleeps, and takes `kvm->lock`. Must not be called in a [`Section`] of the VM.
    pub(crate) fn replace(&self, new: KBox<P>) {
        // SAFETY: `self` is a valid VM, hence its lock is initialised.
        unsafe { bindings::kvm_msr_glue_lock(self.as_raw()) };
        let old = self.protected().swap(new);
        // SAFETY: It was locked above.
        unsafe { bindings::kvm_msr_glue_unlock(self.as_raw()) };

        // User space waits for it: expedited, as others of this domain in KVM are, so that it does
        // not wait for timer ticks only because another ended shortly before.
        self.srcu().synchronize_expedited();
        // SAFETY: `old` came from the pointer, and the grace period is over.
        drop(unsafe { old.into_box() });
    }

    /// Makes every vCPU find out anew which MSRs it has to intercept, before it enters the guest
    /// the next time.
    pub(crate) fn recalc_intercepts(&self) {
        // SAFETY: `self` is a valid VM.
        unsafe { bindings::kvm_msr_glue_recalc_intercepts(self.as_raw()) }
    }

    /// The reasons for which user space wants to hear of failed accesses.
    #[inline]
    pub(crate) fn user_space_msr_mask(&self) -> u32 {
        // SAFETY: `self` is a valid VM. As in C, an ioctl may write concurrently.
        unsafe { (&raw const (*self.as_raw()).arch.user_space_msr_mask).read_volatile() }
    }

    /// Sets the reasons for which user space wants to hear of failed accesses.
    pub(crate) fn set_user_space_msr_mask(&self, mask: u32) {
        // SAFETY: `self` is a valid VM. As in C, vCPUs may read concurrently.
        unsafe { (&raw mut (*self.as_raw()).arch.user_space_msr_mask).write_volatile(mask) }
    }

    /// The vCPUs that are there now, for what needs none of them to be loaded.
    pub(super) fn vcpus(&self) -> impl Iterator<Item = *mut bindings::kvm_vcpu> + '_ {
        // SAFETY: `self` is a valid VM.
        let nr = unsafe { bindings::kvm_msr_glue_nr_vcpus(self.as_raw()) };

        // SAFETY: As above, and vCPUs below the number of those online stay.
        (0..nr).map(|i| unsafe { bindings::kvm_msr_glue_get_vcpu(self.as_raw(), i) })
    }

    /// The sum of a counter over all vCPUs.
    pub(crate) fn count_of(&self, counter: super::Counter) -> u64 {
        self.vcpus().fold(0, |sum: u64, vcpu| {
            // SAFETY: `vcpu` is a valid vCPU of an attached VM, and stays so while `self` does.
            sum.wrapping_add(unsafe { Vcpu::<P>::read_counter(vcpu, counter) })
        })
    }
}

impl NewVm {
    /// Attaches the VM to the engine.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn attach<P: Send + Sync>(self) -> Result {
        let protected = KBox::new(SrcuPtr::<P>::null(), GFP_KERNEL_ACCOUNT)?;

        // SAFETY: The VM is valid, and nobody else uses it yet.
        unsafe { (*self.0).arch.msr_engine = KBox::into_raw(protected).cast() };
        Ok(())
    }
}

impl DyingVm {
    /// Detaches the VM, and frees what the engine kept for it.
    pub(crate) fn detach<P: Send + Sync>(self) {
        // SAFETY: The VM is valid, and nobody else uses it anymore.
        let protected: *mut SrcuPtr<P> = unsafe { (*self.0).arch.msr_engine }.cast();

        // SAFETY: `NewVm::attach()` got the pointer from a box.
        drop(unsafe { KBox::from_raw(protected) });
    }
}
