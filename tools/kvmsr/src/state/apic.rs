// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The local APIC, whose registers are MSRs in x2APIC mode, and not to be restored as such: a
//! write of the ICR would send an interrupt, and the IRR, ISR and TMR take none.

use kvm_bindings::kvm_lapic_state;
use kvm_ioctls::VcpuFd;

use crate::error::Error;
use crate::error::Result;
use crate::ioctl;

const APIC_BASE: u32 = 0x1b;

/// IA32_APIC_BASE, which says the mode, and the registers behind it, which `KVM_GET_LAPIC` gives
/// in the layout of that mode.
#[derive(Clone, Copy, Debug)]
pub struct Apic {
    /// IA32_APIC_BASE.
    pub base: u64,
    /// The registers.
    pub registers: kvm_lapic_state,
}

impl Apic {
    /// Saves the local APIC of a vCPU, in a VM with `KVM_CREATE_IRQCHIP` or
    /// `KVM_CAP_SPLIT_IRQCHIP`.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`], if KVM does not emulate it for one thing.
    pub fn save(vcpu: &VcpuFd) -> Result<Self> {
        let registers = vcpu.get_lapic().map_err(Error::kvm("KVM_GET_LAPIC"))?;
        let base = ioctl::get_msr(vcpu, APIC_BASE)
            .map_err(Error::kvm("KVM_GET_MSRS"))?
            .ok_or_else(|| Error::Missing("KVM has no IA32_APIC_BASE here".to_owned()))?;

        Ok(Apic { base, registers })
    }

    /// Restores it. `KVM_SET_CPUID2` comes before, and [`restore`](crate::state::restore) after,
    /// as IA32_TSC_DEADLINE is lost on an APIC that is not in that mode.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`]; [`Error::Input`] if KVM refuses the base, as without the CPUID bit of the
    /// x2APIC.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<()> {
        let taken =
            ioctl::set_msr(vcpu, APIC_BASE, self.base).map_err(Error::kvm("KVM_SET_MSRS"))?;

        if !taken {
            return Err(Error::Input(format!(
                "KVM refuses {:#x} for IA32_APIC_BASE (0x1b): x2APIC mode (bit 10) needs bit 21 \
                 of ECX of CPUID 1",
                self.base
            )));
        }
        vcpu.set_lapic(&self.registers)
            .map_err(Error::kvm("KVM_SET_LAPIC"))
    }
}
