// SPDX-License-Identifier: Apache-2.0 OR MIT

//! All of a vCPU's state, to be saved and restored.

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
use serde::Deserialize;
use serde::Serialize;

use crate::msrs;

/// The state of a vCPU.
#[derive(Deserialize, Serialize)]
pub struct State {
    /// General purpose registers, RIP and RFLAGS.
    pub regs: kvm_regs,
    /// Segments, control registers and EFER.
    pub sregs: kvm_sregs,
    /// What KVM_GET_MSR_INDEX_LIST lists, as far as the vCPU has it.
    pub msrs: Vec<kvm_msr_entry>,
    /// Pending events, and SMM.
    pub events: kvm_vcpu_events,
    /// DR0 to DR7.
    pub debug: kvm_debugregs,
    /// XCR0.
    pub xcrs: kvm_xcrs,
    /// FPU, SSE and AVX.
    pub xsave: Box<kvm_xsave>,
    /// Whether it runs.
    pub mp_state: kvm_mp_state,
    /// The local APIC, if that is in the kernel.
    pub lapic: Option<kvm_lapic_state>,
    /// The nested state: header, and vmcs12 or vmcb12.
    pub nested: Box<KvmNestedStateBuffer>,
}

impl State {
    /// Saves all of it.
    pub fn save(kvm: &Kvm, vcpu: &VcpuFd, irqchip: bool) -> Result<Self> {
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
            lapic: irqchip
                .then(|| vcpu.get_lapic().context("KVM_GET_LAPIC"))
                .transpose()?,
            nested,
        })
    }

    /// Restores all of it, nested state last: that checks it against the rest,
    /// and moves L2's registers to where they belong. Returns the MSRs that KVM
    /// refused.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<Vec<kvm_msr_entry>> {
        vcpu.set_sregs(&self.sregs).context("KVM_SET_SREGS")?;
        let refused = msrs::set_all(vcpu, &self.msrs)?;
        vcpu.set_xcrs(&self.xcrs).context("KVM_SET_XCRS")?;
        // SAFETY: No more state was enabled than `struct kvm_xsave` has room for.
        unsafe { vcpu.set_xsave(&self.xsave) }.context("KVM_SET_XSAVE")?;
        self.restore_core(vcpu)?;
        vcpu.set_debug_regs(&self.debug)
            .context("KVM_SET_DEBUGREGS")?;
        if let Some(lapic) = &self.lapic {
            vcpu.set_lapic(lapic).context("KVM_SET_LAPIC")?;
        }
        vcpu.set_nested_state(&self.nested)
            .context("KVM_SET_NESTED_STATE")?;
        Ok(refused)
    }

    /// Restores what nested state is checked against, or is about.
    pub fn restore_core(&self, vcpu: &VcpuFd) -> Result<()> {
        vcpu.set_sregs(&self.sregs).context("KVM_SET_SREGS")?;
        vcpu.set_vcpu_events(&self.events)
            .context("KVM_SET_VCPU_EVENTS")?;
        vcpu.set_mp_state(self.mp_state)
            .context("KVM_SET_MP_STATE")?;
        vcpu.set_regs(&self.regs).context("KVM_SET_REGS")
    }
}
