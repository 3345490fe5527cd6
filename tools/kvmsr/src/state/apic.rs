// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The local APIC. In x2APIC mode its registers are MSRs, but must not be restored as such: a
//! write of the ICR would send an interrupt, and the IRR, ISR and TMR are read-only.

use kvm_bindings::kvm_lapic_state;
use kvm_ioctls::VcpuFd;

use crate::error::Error;
use crate::error::Result;
use crate::ioctl;

const APIC_BASE: u32 = 0x1b;

/// IA32_APIC_BASE, which has the mode, and the registers in the layout of `KVM_GET_LAPIC` for that
/// mode.
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
    /// [`Error::Kvm`], e.g. if KVM does not emulate the local APIC.
    pub fn save(vcpu: &VcpuFd) -> Result<Self> {
        let registers = vcpu.get_lapic().map_err(Error::kvm("KVM_GET_LAPIC"))?;
        let base = ioctl::get_msr(vcpu, APIC_BASE)
            .map_err(Error::kvm("KVM_GET_MSRS"))?
            .ok_or_else(|| Error::Missing("KVM can't read IA32_APIC_BASE".to_owned()))?;

        Ok(Apic { base, registers })
    }

    /// Restores it. Call `KVM_SET_CPUID2` before, and [`restore`](crate::state::restore) after it,
    /// because IA32_TSC_DEADLINE is lost if the APIC is not in TSC-deadline mode.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`]; [`Error::Input`] if KVM refuses the base, e.g. without the CPUID bit of the
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
