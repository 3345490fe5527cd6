// SPDX-License-Identifier: GPL-2.0

//! The state of nested VMX: a header with the addresses of the VMXON region and of the current
//! VMCS; the current VMCS (vmcs12), if there is one; and, while L2 runs, the shadow VMCS that
//! vmcs12 links to, if any.
//!
//! KVM defines the layout of vmcs12: `struct vmcs12` in `arch/x86/kvm/vmx/vmcs12.h`. It is ABI and
//! does not change.
//!
//! The state is checked and loaded in three steps. If a step fails, the effects of the steps before
//! it remain:
//!
//! 1. [`check`] has no effects. Then the vCPU leaves VMX operation, and enters it again if there is
//!    a VMXON region.
//! 2. [`has_vmcs12`]. Then the vCPU gets its current VMCS, whose contents are not checked yet.
//! 3. [`check_vmcs12`] and [`check_shadow_size`]. Then the vCPU enters L2 if the header has
//!    [`GUEST_MODE`].

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
use crate::engine::request::Result;

/// Stands for no address of a VMXON region or a VMCS.
pub(crate) const NO_ADDRESS: u64 = u64::MAX;

/// An SMI arrived while L2 ran.
pub(crate) const SMM_GUEST_MODE: u16 = 1 << 0;
/// An SMI arrived during VMX operation.
pub(crate) const SMM_VMXON: u16 = 1 << 1;

/// The header contains the deadline of the VMX-preemption timer.
pub(crate) const PREEMPTION_TIMER_DEADLINE: u32 = 1 << 0;

/// The revision identifier at the start of vmcs12 (`VMCS12_REVISION`), without the bit that marks a
/// shadow VMCS.
pub(crate) const REVISION: u32 = 0x11e5_7ed0;
const SHADOW_INDICATOR: u32 = 1 << 31;

/// Offsets of fields in vmcs12.
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

    /// What an SMI suspended: a set of `SMM_*`.
    const fn smm_flags(&self) -> u16 {
        self.body(2) as u16
    }

    const fn vmx_flags(&self) -> u32 {
        (self.body(2) >> 32) as u32
    }
}

/// The properties of the vCPU that the rules depend on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// Whether the guest has VMX.
    pub(crate) vmx: bool,
    /// Whether user space enabled enlightened VMCSs.
    pub(crate) evmcs: bool,
    /// Whether the vCPU is in system management mode.
    pub(crate) smm: bool,
    /// The bits beyond the guest's physical address width.
    pub(crate) reserved_address: u64,
    /// `sizeof(struct vmcs12)`, in bytes.
    pub(crate) vmcs12_size: u32,
}

/// Checks the header, except for the current VMCS.
pub(crate) fn check(header: &Header, cpu: &Cpu) -> Result {
    let flags = header.flags();
    let smm = header.smm_flags();

    require(header.format() == Some(Format::Vmx))?;

    if !header.has_vmxon_region() {
        // EVMCS is allowed without VMXON for compatibility: older user space set it to enable
        // enlightened VMCSs.
        require(smm == 0 && header.vmcs12_pa() == NO_ADDRESS && flags & !EVMCS == 0)?;
    } else {
        require(cpu.vmx && is_page(header.vmxon_pa(), cpu.reserved_address))?;
    }

    require(smm & !(SMM_GUEST_MODE | SMM_VMXON) == 0)?;
    require(smm & SMM_GUEST_MODE == 0 || smm & SMM_VMXON != 0)?;
    require(smm & SMM_GUEST_MODE == 0 || !header.has(GUEST_MODE))?;
    require(header.vmx_flags() & !PREEMPTION_TIMER_DEADLINE == 0)?;

    // An SMI suspends VMX operation, and RSM resumes it.
    if cpu.smm {
        require(flags & (GUEST_MODE | RUN_PENDING) == 0)?;
    } else {
        require(smm == 0)?;
    }

    require(!header.has(EVMCS) || cpu.vmx && cpu.evmcs)
}

/// Returns whether the state has a current VMCS. The vCPU must be in VMX operation.
///
/// # Errors
///
/// [`Error::Invalid`](super::Error::Invalid) if the header requires a VMCS but the state is too
/// short for it, or if its address is invalid.
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

/// Checks the parts of vmcs12 that the vendor module does not check as for VM-entry.
///
/// # Errors
///
/// [`Error::Invalid`](super::Error::Invalid) if the revision identifier is not KVM's.
pub(crate) fn check_vmcs12(vmcs12: &[u8]) -> Result {
    let revision = u32::from_le_bytes(field(vmcs12, 0));

    require(revision & !SHADOW_INDICATOR == REVISION)
}

/// Returns whether vmcs12 links to a shadow VMCS, which L2 accesses with VMREAD and VMWRITE.
pub(crate) fn has_shadow(vmcs12: &[u8]) -> bool {
    let primary = u32::from_le_bytes(field(vmcs12, CPU_BASED_CONTROL));
    let secondary = u32::from_le_bytes(field(vmcs12, SECONDARY_CONTROL));
    let link = u64::from_le_bytes(field(vmcs12, VMCS_LINK_POINTER));

    primary & ACTIVATE_SECONDARY != 0 && secondary & SHADOW_VMCS != 0 && link != NO_ADDRESS
}

/// Checks that the state is large enough for a shadow VMCS after vmcs12.
pub(crate) fn check_shadow_size(header: &Header, cpu: &Cpu) -> Result {
    let needed = (HEADER_SIZE + AREA_SIZE).saturating_add(cpu.vmcs12_size);

    require(header.size() >= needed)
}
