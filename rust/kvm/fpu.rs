// SPDX-License-Identifier: GPL-2.0

//! The guest's FPU state.

use super::Vcpu;
use crate::bindings;

/// The guest's FPU state, loaded in place of that of the current task until this is dropped.
///
/// MSRs that XSAVES manages are only accessible while it is loaded. Leaking this leaves the task
/// with the guest's FPU state.
///
/// # Invariants
///
/// The guest's FPU state is loaded, and nobody else puts it.
pub(crate) struct GuestFpu<'a, P: Send + Sync> {
    vcpu: &'a Vcpu<P>,
}

impl<'a, P: Send + Sync> GuestFpu<'a, P> {
    /// Loads the state. It must not be loaded yet, as it is while the vCPU runs.
    pub(crate) fn load(vcpu: &'a Vcpu<P>) -> Self {
        // SAFETY: `vcpu` is loaded. KVM warns, and kills the VM, if its FPU state is as well.
        unsafe { bindings::kvm_msr_glue_load_guest_fpu(vcpu.as_raw()) };
        // INVARIANT: It was loaded just now.
        Self { vcpu }
    }
}

impl<P: Send + Sync> Drop for GuestFpu<'_, P> {
    fn drop(&mut self) {
        // SAFETY: `vcpu` is loaded, and by the type invariants its FPU state is as well.
        unsafe { bindings::kvm_msr_glue_put_guest_fpu(self.vcpu.as_raw()) };
    }
}
