// SPDX-License-Identifier: GPL-2.0

//! The state of nested SVM: a header with the address of vmcb12, and vmcb12 itself while L2 runs.
//!
//! Both areas of vmcb12 belong to L1: the control area has the controls that L1 passed to VMRUN,
//! and the save area has L1's own registers, which VMRUN saved. L2's registers are not part of this
//! state: user space saves them as the vCPU's registers.
//!
//! The layout is defined in the AMD64 Architecture Programmer's Manual, appendix "Layout of VMCB".

use super::{
    field,
    is_page,
    require,
    Format,
    Header,
    AREA_SIZE,
    GIF_SET,
    GUEST_MODE,
    HEADER_SIZE,
    RUN_PENDING, //
};
use crate::engine::{
    access::is_pat,
    request::Result, //
};

/// The size of the control area, in bytes. The save area follows it.
pub(crate) const CONTROL_SIZE: usize = 0x400;

/// The offset of the nested paging and encryption controls in the control area.
pub(crate) const MISC_CTL: usize = 0x90;
const MISC_CTL_NP: u64 = 1 << 0;

/// Offsets of fields in the save area.
pub(crate) const SAVE_EFER: usize = 0xd0;
pub(crate) const SAVE_CR0: usize = 0x158;
pub(crate) const SAVE_RFLAGS: usize = 0x170;

const CR0_PE: u64 = 1 << 0;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_VM: u64 = 1 << 17;

impl Header {
    /// The address of vmcb12.
    const fn vmcb_pa(&self) -> u64 {
        self.body(0)
    }

    /// L2's PAT, if it is separate from L1's.
    const fn gpat(&self) -> u64 {
        self.body(1)
    }
}

/// The properties of the vCPU that the rules depend on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// The vCPU's current `EFER.SVME`: L2's value while L2 runs.
    pub(crate) svme: bool,
    /// Whether the vCPU is in system management mode.
    pub(crate) smm: bool,
    /// The bits beyond the guest's physical address width.
    pub(crate) reserved_address: u64,
}

/// Checks the header. vmcb12 has to follow it if [`GUEST_MODE`] is set.
pub(crate) fn check(header: &Header, cpu: &Cpu) -> Result {
    let flags = header.flags();
    let guest_mode = header.has(GUEST_MODE);

    require(header.format() == Some(Format::Svm))?;
    require(flags & !(GUEST_MODE | RUN_PENDING | GIF_SET) == 0)?;

    // L2 can run only with SVME set: VMRUN checks that of L1 and of L2. GIF can be set without it,
    // as clearing SVME does not change GIF.
    require(cpu.svme || flags & !GIF_SET == 0)?;

    // An SMI leaves guest mode, and RSM returns to it.
    require(!(cpu.smm && guest_mode))?;

    require(
        !guest_mode
            || is_page(header.vmcb_pa(), cpu.reserved_address)
                && header.size() >= HEADER_SIZE + AREA_SIZE,
    )
}

/// Checks the parts of vmcb12 that the vendor module does not check as for VMRUN. `cr0` is the
/// vCPU's, i.e. L2's. `separate_pat` returns whether L2 has its own PAT with nested paging.
///
/// # Errors
///
/// [`Error::Invalid`](super::Error::Invalid) if VMRUN does not accept L2's CR0 or L1's state in the
/// save area, or L2's PAT is invalid.
pub(crate) fn check_vmcb12(
    header: &Header,
    cr0: u64,
    separate_pat: impl FnOnce() -> bool,
    control: &[u8],
    save: &[u8],
) -> Result {
    let misc_ctl = u64::from_le_bytes(field(control, MISC_CTL));
    let efer = u64::from_le_bytes(field(save, SAVE_EFER));
    let l1_cr0 = u64::from_le_bytes(field(save, SAVE_CR0));
    let rflags = u64::from_le_bytes(field(save, SAVE_RFLAGS));

    // The CPU does not allow NW without CD.
    require(cr0 & (CR0_CD | CR0_NW) != CR0_NW)?;

    // L1 can't have executed VMRUN in real mode or in virtual-8086 mode.
    require(l1_cr0 & (CR0_PG | CR0_PE) == CR0_PG | CR0_PE && rflags & RFLAGS_VM == 0)?;
    // The CPU sets LMA only while LME is set.
    require(efer & (EFER_LMA | EFER_LME) != EFER_LMA)?;

    require(misc_ctl & MISC_CTL_NP == 0 || !separate_pat() || is_pat(header.gpat()))
}
