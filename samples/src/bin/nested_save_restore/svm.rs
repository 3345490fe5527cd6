// SPDX-License-Identifier: Apache-2.0 OR MIT

//! L1 and L2 on SVM.
//!
//! The layout of the VMCB is in the AMD APM, volume 2, appendix "Layout of VMCB".

use std::arch::global_asm;

use anyhow::Result;
use anyhow::ensure;
use kvm_bindings::kvm_msr_entry;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use kvm_ioctls::VcpuFd;
use kvm_msr_samples::memory::Memory;
use kvm_msr_samples::msrs;

use crate::l1;

const VM_HSAVE_PA: u32 = 0xc001_0117;
const EFER_SVME: u64 = 1 << 12;

global_asm!(
    ".pushsection .rodata.svm, \"a\"",
    // L1. RAX is the address of the VMCB.
    "svm_l1:",
    "vmrun rax",
    // L2's VMMCALL ends here, with GIF clear. L2 resumes after its VMMCALL of 3 bytes: 0x578 is
    // the VMCB's RIP.
    "stgi",
    "out 0xa3, al",
    "add qword ptr [rax + 0x578], 3",
    "jmp svm_l1",
    // L2. RDI is the address of its counter.
    "svm_l2:",
    "inc qword ptr [rdi]",
    "out 0xa2, al",
    "test byte ptr [rdi], 7",
    "jnz svm_l2",
    "vmmcall",
    "jmp svm_l2",
    "svm_end:",
    ".popsection",
);

unsafe extern "C" {
    static svm_l1: u8;
    static svm_l2: u8;
    static svm_end: u8;
}

/// Writes code and VMCB to the guest's memory, enables SVM, and puts the vCPU at L1's start.
pub fn load(
    vcpu: &VcpuFd,
    memory: &mut Memory,
    sregs: &mut kvm_sregs,
    regs: &mut kvm_regs,
) -> Result<()> {
    let (start, l2, end) = (&raw const svm_l1, &raw const svm_l2, &raw const svm_end);
    // SAFETY: The symbols enclose the code above.
    memory.write(l1::CODE as usize, unsafe { l1::code(start, end) });
    write_vmcb(memory, l1::CODE + (l2.addr() - start.addr()) as u64);

    sregs.efer |= EFER_SVME;
    // VM_HSAVE_PA can only be set with SVM enabled.
    vcpu.set_sregs(sregs)?;
    let host_area = kvm_msr_entry {
        index: VM_HSAVE_PA,
        data: l1::HOST_AREA,
        ..Default::default()
    };
    ensure!(
        msrs::set_all(vcpu, &[host_area])?.is_empty(),
        "KVM refused VM_HSAVE_PA"
    );
    regs.rip = l1::CODE;
    regs.rax = l1::CONTROL;
    Ok(())
}

fn write_vmcb(memory: &mut Memory, l2: u64) {
    const INTERCEPTS: usize = 0x10;
    const VMRUN_AND_VMMCALL: u32 = 0b11;
    const ASID: usize = 0x58;
    const SAVE_AREA: usize = 0x400;
    let vmcb = l1::CONTROL as usize;

    memory.write(vmcb + INTERCEPTS, &VMRUN_AND_VMMCALL.to_le_bytes());
    memory.write(vmcb + ASID, &1u32.to_le_bytes());

    let save = vmcb + SAVE_AREA;
    let mut segment = |offset: usize, selector: u16, attributes: u16, limit: u32, base: u64| {
        memory.write(save + offset, &selector.to_le_bytes());
        memory.write(save + offset + 2, &attributes.to_le_bytes());
        memory.write(save + offset + 4, &limit.to_le_bytes());
        memory.write(save + offset + 8, &base.to_le_bytes());
    };
    // ES, SS, DS, FS, GS.
    for data in [0x00, 0x20, 0x30, 0x40, 0x50] {
        segment(data, l1::DATA_SELECTOR, 0xc93, 0xffff_ffff, 0);
    }
    segment(0x10, l1::CODE_SELECTOR, 0xa9b, 0xffff_ffff, 0); // CS
    segment(0x60, 0, 0, l1::GDT_LIMIT.into(), l1::GDT_BASE); // GDTR
    segment(0x70, 0, 0, 0, 0); // LDTR
    segment(0x80, 0, 0, 0, 0); // IDTR
    segment(0x90, l1::TSS_SELECTOR, 0x08b, l1::TSS_LIMIT, l1::TSS_BASE); // TR

    for (offset, value) in [
        (0xd0, l1::EFER | EFER_SVME),
        (0x148, l1::CR4),
        (0x150, l1::CR3),
        (0x158, l1::CR0),
        (0x160, 0x400),       // DR7
        (0x168, 0xffff_0ff0), // DR6
        (0x170, 1 << 1),      // RFLAGS
        (0x178, l2),          // RIP
        (0x1d8, l1::L2_STACK),
        (0x268, 0x0007_0406_0007_0406), // PAT
    ] {
        let value: u64 = value;

        memory.write(save + offset, &value.to_le_bytes());
    }
}
