// SPDX-License-Identifier: GPL-2.0

//! Virtual machines.

use super::{
    user::FilterWords,
    Counter,
    DyingVm,
    NewVm,
    Section,
    Vcpu,
    VmState, //
};
use crate::{
    bindings,
    engine::filter::Filter, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        Srcu, //
    },
    types::Opaque, //
};

/// The MSR filter of a VM, which `kvm->srcu` protects.
pub(crate) type Protected = Filter<FilterWords>;

/// A virtual machine that the engine serves.
///
/// # Invariants
///
/// This is a valid `struct kvm` after `kvm_msr_engine_ops::vm_init` and before `vm_destroy`. Its
/// `arch.msr_engine` points to a `VmState` that comes from `Arc::into_raw`, whose reference only
/// `vm_destroy` drops.
#[repr(transparent)]
pub(crate) struct Vm(Opaque<bindings::kvm>);

// `Vm::srcu` casts from the first to the second.
const _: () =
    assert!(size_of::<bindings::srcu_struct>() == size_of::<kernel::bindings::srcu_struct>());

impl Vm {
    /// # Safety
    ///
    /// `kvm` must meet the type's invariants for all of `'a`.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(kvm: *mut bindings::kvm) -> &'a Self {
        // CAST: `Self` is transparent.
        // SAFETY: The caller passes a valid VM that stays attached for all of `'a`.
        unsafe { &*kvm.cast() }
    }

    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::kvm {
        self.0.get()
    }

    /// What the engine keeps for the VM.
    #[inline]
    pub(crate) fn state(&self) -> &VmState {
        // SAFETY: `attach()` stored a pointer to a `VmState` of which the VM has a reference.
        // Only `detach()` drops that, after the last use of `self`.
        unsafe { &*(*self.as_raw()).arch.msr_engine.cast() }
    }

    /// What the engine keeps for the VM, as a reference that can outlive the VM.
    pub(super) fn shared_state(&self) -> ArcBorrow<'_, VmState> {
        // SAFETY: The pointer comes from `Arc::into_raw`, and the VM has a reference, see
        // `state()`.
        unsafe { ArcBorrow::from_raw((*self.as_raw()).arch.msr_engine.cast_const().cast()) }
    }

    /// The SRCU domain `kvm->srcu`.
    #[inline]
    pub(super) fn srcu(&self) -> &Srcu {
        // SAFETY: `self` is a valid VM.
        let srcu = unsafe { &raw const (*self.as_raw()).srcu };

        // CAST: `Srcu` is transparent, and both bindings have the same `struct srcu_struct`.
        // SAFETY: `kvm_create_vm()` initialized the domain before the VM was attached. It is part
        // of the VM, so it lives as long and does not move.
        unsafe { &*srcu.cast() }
    }

    /// Enters a read-side section of `kvm->srcu`.
    #[inline]
    pub(crate) fn read_section(&self) -> Section<'_> {
        Section::enter(self)
    }

    /// Replaces the filter, waits for all readers of the old one, and frees it. After this, nobody
    /// uses the old filter.
    ///
    /// Sleeps, and takes `kvm->lock`. Must not be called in a [`Section`] of the VM.
    pub(crate) fn replace(&self, new: KBox<Protected>) {
        // SAFETY: `self` is a valid VM.
        let lock = unsafe { &raw mut (*self.as_raw()).lock }.cast();

        // SAFETY: The VM is valid, so its lock is initialized.
        unsafe { kernel::bindings::mutex_lock(lock) };
        let old = self.state().filter.swap(Some(new));
        // SAFETY: This task locked `kvm->lock` above.
        unsafe { kernel::bindings::mutex_unlock(lock) };

        self.synchronize();
        // SAFETY: `old` was replaced before the grace period that has just ended.
        drop(unsafe { old.into_box() });
    }

    /// Waits until all sections have ended that exist now.
    pub(super) fn synchronize(&self) {
        // User space waits for the grace period, so it is expedited, as KVM's other grace periods
        // of this domain are. A normal one could wait for timer ticks if another ended shortly
        // before.
        self.srcu().synchronize_expedited();
    }

    /// Makes every vCPU update its intercepted MSRs before the next VM-entry.
    pub(crate) fn recalc_intercepts(&self) {
        // SAFETY: `self` is a valid VM.
        unsafe { bindings::kvm_msr_glue_recalc_intercepts(self.as_raw()) }
    }

    /// Waits until every vCPU has left the guest. Before it enters the guest again, it handles the
    /// requests that were made before, e.g. by [`Self::recalc_intercepts`].
    pub(super) fn leave_guest_mode(&self) {
        // SAFETY: `self` is a valid VM.
        unsafe { bindings::kvm_msr_glue_leave_guest_mode(self.as_raw()) }
    }

    /// Whether KVM keeps a historical behavior: one of `KVM_X86_QUIRK_*`.
    pub(super) fn has_quirk(&self, quirk: u32) -> bool {
        // SAFETY: `self` is a valid VM. An ioctl may disable quirks concurrently.
        let disabled =
            unsafe { (&raw const (*self.as_raw()).arch.disabled_quirks).read_volatile() };

        disabled & u64::from(quirk) == 0
    }

    /// The reasons for which failed accesses exit to user space.
    #[inline]
    pub(crate) fn user_space_msr_mask(&self) -> u32 {
        // SAFETY: `self` is a valid VM. As in C, an ioctl may write concurrently.
        unsafe { (&raw const (*self.as_raw()).arch.user_space_msr_mask).read_volatile() }
    }

    /// Sets the reasons for which failed accesses exit to user space.
    pub(crate) fn set_user_space_msr_mask(&self, mask: u32) {
        // SAFETY: `self` is a valid VM. As in C, vCPUs may read concurrently.
        unsafe { (&raw mut (*self.as_raw()).arch.user_space_msr_mask).write_volatile(mask) }
    }

    /// The number of the VM's current vCPUs.
    pub(crate) fn nr_vcpus(&self) -> c_int {
        // SAFETY: `self` is a valid VM. Another task may create a vCPU concurrently.
        unsafe { (&raw const (*self.as_raw()).online_vcpus.counter).read_volatile() }
    }

    /// The VM's current vCPUs. They are raw pointers, as the vCPUs are not loaded.
    pub(super) fn vcpus(&self) -> impl Iterator<Item = *mut bindings::kvm_vcpu> + '_ {
        // SAFETY: `self` is a valid VM, and vCPUs below the online number stay until the VM is
        // destroyed.
        (0..self.nr_vcpus()).map(|i| unsafe { bindings::kvm_msr_glue_get_vcpu(self.as_raw(), i) })
    }

    /// The sum of a counter over all vCPUs.
    pub(crate) fn count_of(&self, counter: Counter) -> u64 {
        self.vcpus().fold(0, |sum: u64, vcpu| {
            // SAFETY: `vcpu` is a valid vCPU of `self`, and stays valid as long as the VM.
            sum.wrapping_add(unsafe { Vcpu::read_counter(vcpu, counter) })
        })
    }
}

impl NewVm {
    /// Attaches the VM to the engine.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn attach(self) -> Result {
        let state = Arc::pin_init(VmState::new(self.0), GFP_KERNEL_ACCOUNT)?;

        // CAST: KVM stores the pointer as mutable, but nobody writes through it.
        // SAFETY: KVM passes a valid VM to `vm_init`, and nobody else uses it yet.
        unsafe { (*self.0).arch.msr_engine = Arc::into_raw(state).cast_mut().cast() };
        Ok(())
    }
}

impl DyingVm {
    /// Detaches the VM, and frees what the engine kept for it, but for what files of the device
    /// still refer to.
    pub(crate) fn detach(self) {
        // SAFETY: KVM passes a valid VM to `vm_destroy`, and nobody else uses it anymore.
        let state: *const VmState = unsafe { (*self.0).arch.msr_engine }.cast();

        // SAFETY: `NewVm::attach()` got the pointer from `Arc::into_raw`, and the VM gives up its
        // reference here.
        let state = unsafe { Arc::from_raw(state) };

        // SAFETY: The VM has ended, so there is no reader.
        unsafe { state.end() };
    }
}
