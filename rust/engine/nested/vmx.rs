// SPDX-License-Identifier: GPL-2.0

//! The state of nested VMX: a header with the addresses of the VMXON region and of the current
//! VMCS, that VMCS (vmcs12) if there is one, and while L2 runs its shadow if it has one.
//!
//! vmcs12's layout is KVM's own, `struct vmcs12` in `arch/x86/kvm/vmx/vmcs12.h`, which promises
//! not to change it.
//!
//! The rules come in three steps, and what one refuses can't undo what came before:
//!
//! 1. [`check`], without effects. Then the vCPU leaves VMX operation, and enters it anew if there
//!    is a VMXON region.
//! 2. [`has_vmcs12`]. Then the vCPU has a current VMCS, with whatever contents follow.
//! 3. [`check_vmcs12`] and [`check_shadow_size`]. Then the vCPU enters L2 if it was in L2.

use super::{
    field,
    is_page,
    require,
    Format,
    Header,
    AREA_SIZE,
    EVMCS,
    GUEST_MODE,
    HEADER_SIZE,
    RUN_PENDING, //
};
use crate::engine::error::{
    Error,
    Result, //
};

/// No address, of a VMXON region or a VMCS: all ones.
pub(crate) const NO_ADDRESS: u64 = u64::MAX;

/// An SMI came in while L2 ran.
pub(crate) const SMM_GUEST_MODE: u16 = 1 << 0;
/// An SMI came in during VMX operation.
pub(crate) const SMM_VMXON: u16 = 1 << 1;

/// The header has the deadline of the VMX-preemption timer.
pub(crate) const PREEMPTION_TIMER_DEADLINE: u32 = 1 << 0;

/// What vmcs12 begins with, but for the bit that makes it a shadow.
pub(crate) const REVISION: u32 = 0x11e5_7ed0;
const SHADOW_INDICATOR: u32 = 1 << 31;

/// Fields of vmcs12.
pub(crate) const VMCS_LINK_POINTER: usize = 176;
pub(crate) const CPU_BASED_CONTROL: usize = 748;
pub(crate) const SECONDARY_CONTROL: usize = 804;

const ACTIVATE_SECONDARY: u32 = 1 << 31;
const SHADOW_VMCS: u32 = 1 << 14;

impl Header {
    /// Whether there is a VMXON region, i.e. the vCPU is in VMX operation.
    pub(crate) const fn has_vmxon_region(&self) -> bool {
        self.vmxon_pa() != NO_ADDRESS
    }

    /// The address of the VMXON region, or [`NO_ADDRESS`].
    pub(crate) const fn vmxon_pa(&self) -> u64 {
        self.body(0)
    }

    /// The address of the current VMCS, or [`NO_ADDRESS`].
    const fn vmcs12_pa(&self) -> u64 {
        self.body(1)
    }

    /// What was suspended by an SMI.
    const fn smm_flags(&self) -> u16 {
        self.body(2) as u16
    }

    const fn vmx_flags(&self) -> u32 {
        (self.body(2) >> 32) as u32
    }
}

/// What the rules need to know of the vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// Whether the guest has VMX.
    pub(crate) vmx: bool,
    /// Whether user space enabled enlightened VMCSs.
    pub(crate) evmcs: bool,
    /// Whether it is in system management mode.
    pub(crate) smm: bool,
    /// The bits that the guest's physical addresses do not have.
    pub(crate) reserved_address: u64,
    /// `sizeof(struct vmcs12)`, in bytes.
    pub(crate) vmcs12_size: u32,
}

/// Checks the header, but for the current VMCS.
///
/// # Errors
///
/// [`Error::Invalid`].
pub(crate) fn check(header: &Header, cpu: &Cpu) -> Result {
    let flags = header.flags();
    let smm = header.smm_flags();

    require(header.format() == Some(Format::Vmx))?;

    if !header.has_vmxon_region() {
        // EVMCS used to mean that user space enables them, which needed no VMXON.
        require(smm == 0 && header.vmcs12_pa() == NO_ADDRESS && flags & !EVMCS == 0)?;
    } else {
        require(cpu.vmx && is_page(header.vmxon_pa(), cpu.reserved_address))?;
    }

    require(smm & !(SMM_GUEST_MODE | SMM_VMXON) == 0)?;
    require(smm & SMM_GUEST_MODE == 0 || smm & SMM_VMXON != 0)?;
    require(smm & SMM_GUEST_MODE == 0 || !header.has(GUEST_MODE))?;
    require(header.vmx_flags() & !PREEMPTION_TIMER_DEADLINE == 0)?;

    // SMIs suspend VMX operation, and RSM resumes it.
    if cpu.smm {
        require(flags & (GUEST_MODE | RUN_PENDING) == 0)?;
    } else {
        require(smm == 0)?;
    }

    require(!header.has(EVMCS) || cpu.vmx && cpu.evmcs)
}

/// Whether there is a current VMCS, of a vCPU in VMX operation.
///
/// # Errors
///
/// [`Error::Invalid`] if there has to be one but it does not follow, or its address is none.
pub(crate) fn has_vmcs12(header: &Header, cpu: &Cpu) -> Result<bool> {
    let address = header.vmcs12_pa();

    if header.size() < HEADER_SIZE.saturating_add(cpu.vmcs12_size) {
        require(address == NO_ADDRESS && header.flags() & (GUEST_MODE | EVMCS) == 0)?;
        return Ok(false);
    }

    if address == NO_ADDRESS {
        require(header.has(EVMCS))?;
    } else {
        require(address != header.vmxon_pa() && is_page(address, cpu.reserved_address))?;
    }
    Ok(true)
}

/// Checks vmcs12, as far as the vendor's own checks at VM-entry don't.
///
/// # Errors
///
/// [`Error::Invalid`] if it is none that KVM made.
pub(crate) fn check_vmcs12(vmcs12: &[u8]) -> Result {
    let revision = u32::from_le_bytes(field(vmcs12, 0));

    require(revision & !SHADOW_INDICATOR == REVISION)
}

/// Whether a vmcs12 has a shadow that L2 accesses in place of a VMCS of its own.
pub(crate) fn has_shadow(vmcs12: &[u8]) -> bool {
    let primary = u32::from_le_bytes(field(vmcs12, CPU_BASED_CONTROL));
    let secondary = u32::from_le_bytes(field(vmcs12, SECONDARY_CONTROL));
    let link = u64::from_le_bytes(field(vmcs12, VMCS_LINK_POINTER));

    primary & ACTIVATE_SECONDARY != 0 && secondary & SHADOW_VMCS != 0 && link != NO_ADDRESS
}

/// Checks that there is room for a shadow behind vmcs12.
///
/// # Errors
///
/// [`Error::Invalid`].
pub(crate) fn check_shadow_size(header: &Header, cpu: &Cpu) -> Result {
    let needed = (HEADER_SIZE + AREA_SIZE).saturating_add(cpu.vmcs12_size);

    if header.size() < needed {
        return Err(Error::Invalid);
    }
    Ok(())
}
