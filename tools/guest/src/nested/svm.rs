// SPDX-License-Identifier: Apache-2.0 OR MIT

//! L1's VMCB: what it intercepts, and L2's state.
//!
//! The layout is in the AMD APM, volume 2, appendix "Layout of VMCB".

use anyhow::Result;
use kvm_ioctls::VcpuFd;

use super::code::Entry;
use super::layout::*;
use crate::memory::Mapping;
use crate::msrs;

const VM_HSAVE_PA: u32 = 0xc001_0117;

/// The exit code of VMMCALL.
pub const EXIT_VMMCALL: u64 = 0x81;

/// Sets the address at which the CPU saves L1's state.
pub fn enable(vcpu: &VcpuFd) -> Result<()> {
    msrs::set(vcpu, VM_HSAVE_PA, HOST_AREA)?;
    Ok(())
}

/// Writes the VMCB.
pub fn load(memory: &mut Mapping, nested_paging: bool) {
    const INTERCEPT_VMRUN_AND_VMMCALL: u32 = 0b11;
    const SAVE: usize = 0x400;
    let at = |offset: usize| CONTROL as usize + offset;

    memory.write(at(0x10), &INTERCEPT_VMRUN_AND_VMMCALL.to_le_bytes());
    memory.write(at(0x58), &1u32.to_le_bytes()); // ASID
    if nested_paging {
        memory.write(at(0x90), &1u64.to_le_bytes());
        memory.write(at(0xb0), &CR3.to_le_bytes());
    }

    let mut segment = |offset: usize, selector: u16, attributes: u16, limit: u32, base: u64| {
        let at = at(SAVE + offset);

        memory.write(at, &selector.to_le_bytes());
        memory.write(at + 2, &attributes.to_le_bytes());
        memory.write(at + 4, &limit.to_le_bytes());
        memory.write(at + 8, &base.to_le_bytes());
    };
    for data in [0x00, 0x20, 0x30, 0x40, 0x50] {
        segment(data, DATA_SELECTOR, 0xc93, 0xffff_ffff, 0);
    }
    segment(0x10, CODE_SELECTOR, 0xa9b, 0xffff_ffff, 0);
    segment(0x60, 0, 0, 5 * 8 - 1, gdt());
    segment(0x70, 0, 0, 0, 0);
    segment(0x80, 0, 0, IDT_LIMIT.into(), idt());
    segment(0x90, TSS_SELECTOR, 0x08b, 0x67, tss());

    for (offset, value) in [
        (0xd0, EFER | EFER_SVME),
        (0x148, CR4),
        (0x150, CR3),
        (0x158, CR0),
        (0x160, 0x400),
        (0x168, 0xffff_0ff0),
        (0x170, 2),
        (0x178, CODE + Entry::L2Svm.offset() as u64),
        (0x1d8, L2_STACK),
        (0x268, 0x0007_0406_0007_0406), // PAT
    ] {
        memory.write(at(SAVE + offset), &value.to_le_bytes());
    }
}
