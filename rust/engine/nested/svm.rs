// SPDX-License-Identifier: GPL-2.0

//! The state of nested SVM: a header with vmcb12's address, and vmcb12 while L2 runs.
//!
//! vmcb12's control area is L1's, as it was at VMRUN. Its save area is the host state that VMRUN
//! saved, i.e. L1's too: L2's registers are the vCPU's. Layout and bits are those of the AMD64
//! Architecture Programmer's Manual, volume 2, appendix B.

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
    error::Result, //
};

/// Bytes of the control area, which the save area follows.
pub(crate) const CONTROL_SIZE: usize = 0x400;

/// The control area's nested paging and encryption controls.
pub(crate) const MISC_CTL: usize = 0x90;
const MISC_CTL_NP: u64 = 1 << 0;

/// Fields of the save area.
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

    /// L2's PAT, if it has one of its own.
    const fn gpat(&self) -> u64 {
        self.body(1)
    }
}

/// What the rules need to know of the vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// `EFER.SVME`, of L2 if the vCPU runs that.
    pub(crate) svme: bool,
    /// Whether it is in system management mode.
    pub(crate) smm: bool,
    /// The bits that the guest's physical addresses do not have.
    pub(crate) reserved_address: u64,
}

/// Checks the header. Whether vmcb12 has to follow is whether it says [`GUEST_MODE`].
///
/// # Errors
///
/// [`Error::Invalid`](super::Error::Invalid).
pub(crate) fn check(header: &Header, cpu: &Cpu) -> Result {
    let flags = header.flags();
    let guest_mode = header.has(GUEST_MODE);

    require(header.format() == Some(Format::Svm))?;
    require(flags & !(GUEST_MODE | RUN_PENDING | GIF_SET) == 0)?;

    // VMRUN needs SVME, in L2 too. Clearing it leaves GIF as it is.
    require(cpu.svme || flags & !GIF_SET == 0)?;

    // SMIs leave guest mode, and RSM returns to it.
    require(!(cpu.smm && guest_mode))?;

    require(
        !guest_mode
            || is_page(header.vmcb_pa(), cpu.reserved_address)
                && header.size() >= HEADER_SIZE + AREA_SIZE,
    )
}

/// Checks vmcb12, as far as the vendor's own checks at VMRUN don't. `cr0` is the vCPU's, i.e. that
/// of L2, and `separate_pat` says whether L2 has a PAT of its own under nested paging.
///
/// # Errors
///
/// [`Error::Invalid`](super::Error::Invalid) if L2's CR0, or L1's state in the save area, is one
/// that VMRUN does not accept, or L2's PAT is none.
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

    require(cr0 & (CR0_CD | CR0_NW) != CR0_NW)?;

    // L1 can't have executed VMRUN in real mode or in virtual-8086 mode.
    require(l1_cr0 & (CR0_PG | CR0_PE) == CR0_PG | CR0_PE && rflags & RFLAGS_VM == 0)?;
    require(efer & (EFER_LMA | EFER_LME) != EFER_LMA)?;

    require(misc_ctl & MISC_CTL_NP == 0 || !separate_pat() || is_pat(header.gpat()))
}
