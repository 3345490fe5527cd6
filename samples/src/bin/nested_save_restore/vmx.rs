// SPDX-License-Identifier: Apache-2.0 OR MIT

//! L1 and L2 on VMX.
//!
//! The encodings of the VMCS's fields are in the Intel SDM, appendix "Field Encoding in VMCS".

use std::arch::global_asm;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_bindings::kvm_msr_entry;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use kvm_ioctls::VcpuFd;
use kvm_msr_samples::memory::Memory;
use kvm_msr_samples::msrs;

use crate::l1;

const IA32_FEATURE_CONTROL: u32 = 0x3a;
/// Locked, and VMX outside SMX enabled.
const FEATURE_CONTROL: u64 = 1 << 0 | 1 << 2;
const IA32_VMX_BASIC: u32 = 0x480;
const IA32_VMX_PINBASED_CTLS: u32 = 0x481;
const IA32_VMX_PROCBASED_CTLS: u32 = 0x482;
const IA32_VMX_EXIT_CTLS: u32 = 0x483;
const IA32_VMX_ENTRY_CTLS: u32 = 0x484;
const CR4_VMXE: u64 = 1 << 13;

global_asm!(
    ".pushsection .rodata.vmx, \"a\"",
    // L1. RSI points to the address of the VMXON region, the address of the VMCS, and pairs of a
    // VMCS field and its value. A field of -1 ends them.
    "vmx_l1:",
    "vmxon [rsi]",
    "jbe 9f",
    "vmclear [rsi + 8]",
    "jbe 9f",
    "vmptrld [rsi + 8]",
    "jbe 9f",
    "2:",
    "add rsi, 16",
    "mov rax, [rsi]",
    "cmp rax, -1",
    "je 3f",
    "mov rdx, [rsi + 8]",
    "vmwrite rax, rdx",
    "jbe 9f",
    "jmp 2b",
    "3:",
    "vmlaunch",
    "9:",
    "out 0xa5, al",
    "jmp 9b",
    // L2's VMCALL ends here. L2 resumes after its VMCALL of 3 bytes: 0x681e is the guest's RIP.
    "vmx_exit:",
    "out 0xa3, al",
    "mov eax, 0x681e",
    "vmread rdx, rax",
    "add rdx, 3",
    "vmwrite rax, rdx",
    "vmresume",
    "jmp 9b",
    // L2. RDI is the address of its counter.
    "vmx_l2:",
    "inc qword ptr [rdi]",
    "out 0xa2, al",
    "test byte ptr [rdi], 7",
    "jnz vmx_l2",
    "vmcall",
    "jmp vmx_l2",
    "vmx_end:",
    ".popsection",
);

unsafe extern "C" {
    static vmx_l1: u8;
    static vmx_exit: u8;
    static vmx_l2: u8;
    static vmx_end: u8;
}

/// Writes code and VMX regions to the guest's memory, enables VMX, and puts the vCPU at L1's start.
pub fn load(
    vcpu: &VcpuFd,
    memory: &mut Memory,
    sregs: &mut kvm_sregs,
    regs: &mut kvm_regs,
) -> Result<()> {
    let (start, end) = (&raw const vmx_l1, &raw const vmx_end);
    let address = |symbol: *const u8| l1::CODE + (symbol.addr() - start.addr()) as u64;
    let feature_control = kvm_msr_entry {
        index: IA32_FEATURE_CONTROL,
        data: FEATURE_CONTROL,
        ..Default::default()
    };

    ensure!(
        msrs::set_all(vcpu, &[feature_control])?.is_empty(),
        "KVM refused IA32_FEATURE_CONTROL"
    );
    // SAFETY: The symbols enclose the code above.
    memory.write(l1::CODE as usize, unsafe { l1::code(start, end) });
    // Both regions start with the revision.
    let revision = msr(vcpu, IA32_VMX_BASIC)? as u32 & 0x7fff_ffff;
    memory.write(l1::HOST_AREA as usize, &revision.to_le_bytes());
    memory.write(l1::CONTROL as usize, &revision.to_le_bytes());

    sregs.cr4 |= CR4_VMXE;
    let fields = fields(
        vcpu,
        sregs.cr4,
        address(&raw const vmx_exit),
        address(&raw const vmx_l2),
    )?;
    l1::write_words(memory, l1::FIELDS, &fields);
    regs.rip = l1::CODE;
    regs.rsi = l1::FIELDS;
    Ok(())
}

fn msr(vcpu: &VcpuFd, index: u32) -> Result<u64> {
    let (values, _) = msrs::get_all(vcpu, &[index])?;

    Ok(values
        .first()
        .with_context(|| format!("KVM does not know MSR {index:#x}"))?
        .data)
}

/// What L1 reads through RSI. L1 is the VMCS's host, L2 its guest.
fn fields(vcpu: &VcpuFd, cr4: u64, l1_exit: u64, l2: u64) -> Result<Vec<u64>> {
    const HOST_64_BIT: u64 = 1 << 9;
    const GUEST_64_BIT: u64 = 1 << 9;
    // The lower half of these MSRs has the controls that must be 1.
    let required = |index| -> Result<u64> { Ok(msr(vcpu, index)? & 0xffff_ffff) };
    let mut words = vec![l1::HOST_AREA, l1::CONTROL];
    let mut field = |field: u64, value| words.extend([field, value]);

    field(0x4000, required(IA32_VMX_PINBASED_CTLS)?);
    field(0x4002, required(IA32_VMX_PROCBASED_CTLS)?);
    field(0x400c, required(IA32_VMX_EXIT_CTLS)? | HOST_64_BIT);
    field(0x4012, required(IA32_VMX_ENTRY_CTLS)? | GUEST_64_BIT);
    for zero in [
        0x4004, // exception bitmap
        0x4006, 0x4008, // page-fault error codes
        0x400a, // number of CR3 targets
        0x400e, 0x4010, 0x4014, // number of MSRs to store and load
        0x4016, // event to inject
        0x6000, 0x6002, // CR0 and CR4 masks
    ] {
        field(zero, 0);
    }
    field(0x2800, u64::MAX); // VMCS link pointer: none

    // The guest's ES, CS, SS, DS, FS, GS, LDTR, TR.
    for i in 0..8 {
        let (selector, base, limit, rights) = match i {
            1 => (l1::CODE_SELECTOR, 0, 0xffff_ffff, 0xa09b),
            6 => (0, 0, 0, 0x1_0000),
            7 => (l1::TSS_SELECTOR, l1::TSS_BASE, l1::TSS_LIMIT.into(), 0x8b),
            _ => (l1::DATA_SELECTOR, 0, 0xffff_ffff, 0xc093),
        };
        field(0x800 + 2 * i, selector.into());
        field(0x6806 + 2 * i, base);
        field(0x4800 + 2 * i, limit);
        field(0x4814 + 2 * i, rights);
    }
    field(0x6816, l1::GDT_BASE);
    field(0x4810, l1::GDT_LIMIT.into());
    field(0x6818, 0); // IDTR
    field(0x4812, 0);
    field(0x6800, l1::CR0);
    field(0x6802, l1::CR3);
    field(0x6804, cr4);
    field(0x681a, 0x400); // DR7
    field(0x681c, l1::L2_STACK);
    field(0x681e, l2);
    field(0x6820, 1 << 1); // RFLAGS
    for zero in [
        0x2802, // IA32_DEBUGCTL
        0x4824, 0x4826, // interruptibility and activity state
        0x482a, 0x6824, 0x6826, // IA32_SYSENTER_*
        0x6822, // pending debug exceptions
    ] {
        field(zero, 0);
    }

    // The host's ES, CS, SS, DS, FS, GS, TR.
    for i in 0..7 {
        let selector = match i {
            1 => l1::CODE_SELECTOR,
            6 => l1::TSS_SELECTOR,
            _ => l1::DATA_SELECTOR,
        };
        field(0xc00 + 2 * i, selector.into());
    }
    for zero in [
        0x6c06, 0x6c08, // FS and GS base
        0x6c0e, // IDTR
        0x4c00, 0x6c10, 0x6c12, // IA32_SYSENTER_*
    ] {
        field(zero, 0);
    }
    field(0x6c00, l1::CR0);
    field(0x6c02, l1::CR3);
    field(0x6c04, cr4);
    field(0x6c0a, l1::TSS_BASE);
    field(0x6c0c, l1::GDT_BASE);
    field(0x6c14, l1::L1_STACK);
    field(0x6c16, l1_exit);
    words.push(u64::MAX);
    Ok(words)
}
