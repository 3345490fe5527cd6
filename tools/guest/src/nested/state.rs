// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The part of a vCPU's state that KVM_SET_NESTED_STATE checks or changes.

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::kvm_mp_state;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use kvm_bindings::kvm_vcpu_events;
use kvm_ioctls::VcpuFd;

/// The state of a vCPU, without its nested state.
pub struct State {
    regs: kvm_regs,
    sregs: kvm_sregs,
    /// Pending events, and whether the vCPU is in SMM.
    events: kvm_vcpu_events,
    mp_state: kvm_mp_state,
}

impl State {
    /// Saves the state.
    pub fn save(vcpu: &VcpuFd) -> Result<Self> {
        Ok(State {
            regs: vcpu.get_regs().context("KVM_GET_REGS")?,
            sregs: vcpu.get_sregs().context("KVM_GET_SREGS")?,
            events: vcpu.get_vcpu_events().context("KVM_GET_VCPU_EVENTS")?,
            mp_state: vcpu.get_mp_state().context("KVM_GET_MP_STATE")?,
        })
    }

    /// Restores the state.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<()> {
        vcpu.set_sregs(&self.sregs).context("KVM_SET_SREGS")?;
        vcpu.set_vcpu_events(&self.events)
            .context("KVM_SET_VCPU_EVENTS")?;
        vcpu.set_mp_state(self.mp_state)
            .context("KVM_SET_MP_STATE")?;
        vcpu.set_regs(&self.regs).context("KVM_SET_REGS")
    }
}
