// SPDX-License-Identifier: GPL-2.0

//! Virtual machines.

use super::{
    srcu::SrcuPtr,
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
        // SAFETY: By the caller's promise.
        unsafe { &*kvm.cast() }
    }

    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::kvm {
        self.kvm.get()
    }

    /// The pointer to what the engine keeps.
    #[inline]
    pub(super) fn protected(&self) -> &SrcuPtr<P> {
        // SAFETY: By the type invariants, the pointer is to an `SrcuPtr`, which outlives `self`,
        // and which nobody has a mutable reference to.
        unsafe { &*(*self.as_raw()).arch.msr_engine.cast() }
    }

    /// The SRCU domain `kvm->srcu`.
    #[inline]
    pub(super) fn srcu(&self) -> &Srcu {
        // SAFETY: By the type invariants, `self` is a valid VM.
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

    /// Whether guests may read `PLATFORM_INFO`.
    pub(crate) fn guest_can_read_platform_info(&self) -> bool {
        // SAFETY: `self` is a valid VM. As in C, an ioctl may write concurrently.
        unsafe {
            (&raw const (*self.as_raw()).arch.guest_can_read_msr_platform_info).read_volatile()
        }
    }

    /// The guest's address of the wall clock.
    pub(crate) fn wall_clock_address(&self) -> u64 {
        // SAFETY: `self` is a valid VM. As in C, another vCPU may write concurrently.
        unsafe { (&raw const (*self.as_raw()).arch.wall_clock).read_volatile() }
    }

    /// Stores the guest's address of the wall clock.
    pub(crate) fn set_wall_clock_address(&self, address: u64) {
        // SAFETY: `self` is a valid VM. As in C, another vCPU may read or write concurrently.
        unsafe { (&raw mut (*self.as_raw()).arch.wall_clock).write_volatile(address) }
    }

    /// Whether the boot vCPU's clock is set by the old MSR.
    pub(crate) fn boot_clock_is_old(&self) -> bool {
        // SAFETY: `self` is a valid VM. Only the boot vCPU writes it.
        unsafe { (&raw const (*self.as_raw()).arch.boot_vcpu_runs_old_kvmclock).read_volatile() }
    }

    /// Stores whether the boot vCPU's clock is set by the old MSR.
    pub(crate) fn set_boot_clock_is_old(&self, old: bool) {
        // SAFETY: `self` is a valid VM. As in C, other vCPUs may read concurrently.
        unsafe { (&raw mut (*self.as_raw()).arch.boot_vcpu_runs_old_kvmclock).write_volatile(old) }
    }

    /// Writes the time at which the guest's clocks were 0 to the guest's memory, as a
    /// `struct pvclock_wall_clock`. The version is odd meanwhile.
    ///
    /// Nothing is written if there is no memory: the guest is not told.
    pub(crate) fn write_wall_clock(&self, address: u64) {
        let Some(old) = self.read_guest(address) else {
            return;
        };
        // It may be odd if this is the first time, as memory may hold anything.
        let odd = u32::from_ne_bytes(old).wrapping_add(1) | 1;

        if !self.write_guest(address, &odd.to_ne_bytes()) {
            return;
        }
        // SAFETY: `self` is a valid VM.
        let epoch = unsafe { bindings::kvm_get_wall_clock_epoch(self.as_raw()) };
        // The guest's seconds end in 2106.
        let (seconds, nanoseconds) = (
            (epoch / 1_000_000_000) as u32,
            (epoch % 1_000_000_000) as u32,
        );
        let mut clock = [0; 12];

        for (bytes, value) in clock.chunks_exact_mut(4).zip([odd, seconds, nanoseconds]) {
            bytes.copy_from_slice(&value.to_ne_bytes());
        }
        self.write_guest(address, &clock);
        self.write_guest(address, &odd.wrapping_add(1).to_ne_bytes());
    }

    /// Reads the guest's memory, all of it or nothing.
    fn read_guest<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: `self` is a valid VM, whose `kvm->srcu` section the caller is in as all who
        // access MSRs are, and `bytes` can be written.
        let ret = unsafe {
            bindings::kvm_read_guest(self.as_raw(), address, bytes.as_mut_ptr().cast(), N)
        };

        (ret == 0).then_some(bytes)
    }

    /// Writes the guest's memory, and returns whether that worked.
    fn write_guest(&self, address: u64, bytes: &[u8]) -> bool {
        // SAFETY: As in `read_guest()`.
        unsafe {
            bindings::kvm_write_guest(self.as_raw(), address, bytes.as_ptr().cast(), bytes.len())
                == 0
        }
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

    /// Attaches a new VM.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `kvm` must be a valid VM that is not attached, and that nobody else uses yet.
    pub(super) unsafe fn attach(kvm: *mut bindings::kvm) -> Result {
        let protected = KBox::new(SrcuPtr::<P>::null(), GFP_KERNEL_ACCOUNT)?;

        // SAFETY: By the caller's promise.
        unsafe { (*kvm).arch.msr_engine = KBox::into_raw(protected).cast() };
        Ok(())
    }

    /// Detaches a VM, and frees what the engine kept for it.
    ///
    /// # Safety
    ///
    /// `kvm` must have been attached with the same `P`, and nobody may use it as a [`Vm`] anymore.
    pub(super) unsafe fn detach(kvm: *mut bindings::kvm) {
        // SAFETY: By the caller's promise.
        let protected: *mut SrcuPtr<P> = unsafe { (*kvm).arch.msr_engine }.cast();

        // SAFETY: `attach()` got the pointer from a box of the same type, and nobody uses it.
        drop(unsafe { KBox::from_raw(protected) });
    }
}
