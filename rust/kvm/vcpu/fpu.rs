// SPDX-License-Identifier: GPL-2.0

//! The guest's FPU state.

use super::Vcpu;
use crate::{
    bindings,
    engine::cpu::Fpu, //
};

/// The guest's FPU state, loaded in place of the current task's own until this is dropped.
///
/// MSRs that XSAVES manages are only accessible while it is loaded. Leaking this leaves the task
/// with the guest's FPU state.
///
/// # Invariants
///
/// The guest's FPU state is loaded, and nobody else puts it.
pub(crate) struct GuestFpu<'a> {
    vcpu: &'a Vcpu,
}

impl<'a> GuestFpu<'a> {
    /// Loads the state. It must not be loaded yet. The run loop has it loaded, so this is for
    /// ioctls only.
    pub(crate) fn load(vcpu: &'a Vcpu) -> Self {
        // SAFETY: `vcpu` is valid and this task has it loaded. KVM warns, and kills the VM, if its
        // FPU state is loaded already.
        unsafe { bindings::kvm_msr_glue_load_guest_fpu(vcpu.as_raw()) };
        // INVARIANT: The state was just loaded.
        Self { vcpu }
    }
}

impl Drop for GuestFpu<'_> {
    fn drop(&mut self) {
        // SAFETY: `vcpu` is valid, this task has it loaded, and `load()` loaded its FPU state.
        unsafe { bindings::kvm_msr_glue_put_guest_fpu(self.vcpu.as_raw()) };
    }
}

impl Fpu for Vcpu {
    fn read_xstate(&self, index: u32) -> u64 {
        // SAFETY: `self` is a valid vCPU that this task has loaded. If its FPU state is not, the
        // function kills the VM and reads nothing. If the CPU lacks the MSR, this raises a fault,
        // which the kernel reports and survives.
        unsafe { bindings::kvm_msr_glue_read_xstate(self.as_raw(), index) }
    }

    fn write_xstate(&self, index: u32, data: u64) {
        // SAFETY: `self` is a valid vCPU that this task has loaded. If its FPU state is not, the
        // function kills the VM and writes nothing, so that no value gets into the host's state.
        unsafe { bindings::kvm_msr_glue_write_xstate(self.as_raw(), index, data) }
    }

    fn xfd(&self) -> u64 {
        // SAFETY: `self` is a valid vCPU that this task has loaded. Its FPU state exists since its
        // creation, and its buffer does not move while this task is outside of the guest.
        unsafe { (*(*self.as_raw()).arch.guest_fpu.fpstate).xfd }
    }

    fn set_xfd(&self, xfd: u64) {
        // SAFETY: `self` is a valid vCPU that this task has loaded, so nobody else uses its FPU
        // state.
        unsafe { bindings::fpu_update_guest_xfd(&raw mut (*self.as_raw()).arch.guest_fpu, xfd) }
    }
}
