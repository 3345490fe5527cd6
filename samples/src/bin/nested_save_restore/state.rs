// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The whole state of a vCPU.

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::kvm_debugregs;
use kvm_bindings::kvm_lapic_state;
use kvm_bindings::kvm_mp_state;
use kvm_bindings::kvm_msr_entry;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use kvm_bindings::kvm_vcpu_events;
use kvm_bindings::kvm_xcrs;
use kvm_bindings::kvm_xsave;
use kvm_ioctls::Kvm;
use kvm_ioctls::KvmNestedStateBuffer;
use kvm_ioctls::VcpuFd;
use kvm_msr_samples::msrs;
use serde::Deserialize;
use serde::Serialize;

/// The state of a vCPU.
#[derive(Deserialize, Serialize)]
pub struct State {
    regs: kvm_regs,
    sregs: kvm_sregs,
    /// The MSRs of KVM_GET_MSR_INDEX_LIST that the vCPU has.
    pub msrs: Vec<kvm_msr_entry>,
    /// Pending events, and whether the vCPU is in SMM.
    events: kvm_vcpu_events,
    debug: kvm_debugregs,
    xcrs: kvm_xcrs,
    xsave: Box<kvm_xsave>,
    mp_state: kvm_mp_state,
    lapic: kvm_lapic_state,
    /// The nested state: its header, and vmcs12 or vmcb12.
    pub nested: Box<KvmNestedStateBuffer>,
}

impl State {
    /// Saves the state.
    pub fn save(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Self> {
        let list = kvm.get_msr_index_list().context("KVM_GET_MSR_INDEX_LIST")?;
        let (msrs, _) = msrs::get_all(vcpu, list.as_slice())?;
        let mut nested = Box::new(KvmNestedStateBuffer::empty());

        vcpu.nested_state(&mut nested)
            .context("KVM_GET_NESTED_STATE")?;
        Ok(State {
            regs: vcpu.get_regs().context("KVM_GET_REGS")?,
            sregs: vcpu.get_sregs().context("KVM_GET_SREGS")?,
            msrs,
            events: vcpu.get_vcpu_events().context("KVM_GET_VCPU_EVENTS")?,
            debug: vcpu.get_debug_regs().context("KVM_GET_DEBUGREGS")?,
            xcrs: vcpu.get_xcrs().context("KVM_GET_XCRS")?,
            xsave: Box::new(vcpu.get_xsave().context("KVM_GET_XSAVE")?),
            mp_state: vcpu.get_mp_state().context("KVM_GET_MP_STATE")?,
            lapic: vcpu.get_lapic().context("KVM_GET_LAPIC")?,
            nested,
        })
    }

    /// Restores the state. Returns the MSRs that KVM refused.
    ///
    /// Nested state is the last: KVM checks it against CR0, EFER and SMM, and then treats the
    /// registers as L2's.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<Vec<kvm_msr_entry>> {
        vcpu.set_sregs(&self.sregs).context("KVM_SET_SREGS")?;
        let refused = msrs::set_all(vcpu, &self.msrs)?;
        vcpu.set_xcrs(&self.xcrs).context("KVM_SET_XCRS")?;
        // SAFETY: Without KVM_CAP_XSAVE2 and AMX, `struct kvm_xsave` has room for all of it.
        unsafe { vcpu.set_xsave(&self.xsave) }.context("KVM_SET_XSAVE")?;
        vcpu.set_vcpu_events(&self.events)
            .context("KVM_SET_VCPU_EVENTS")?;
        vcpu.set_mp_state(self.mp_state)
            .context("KVM_SET_MP_STATE")?;
        vcpu.set_regs(&self.regs).context("KVM_SET_REGS")?;
        vcpu.set_debug_regs(&self.debug)
            .context("KVM_SET_DEBUGREGS")?;
        vcpu.set_lapic(&self.lapic).context("KVM_SET_LAPIC")?;
        vcpu.set_nested_state(&self.nested)
            .context("KVM_SET_NESTED_STATE")?;
        Ok(refused)
    }
}
