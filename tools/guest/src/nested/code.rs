// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The code of L1, L2 and L1's SMI handler.
//!
//! It is 64-bit and position independent, except for the addresses in [`layout`](super::layout).
//! OUTs tell user space where it is.

use std::arch::global_asm;

/// L1 is in VMX operation, or has set `EFER.SVME`.
pub const PORT_ENABLED: u16 = 0xa0;
/// L1's VMCS or VMCB is ready, and L1 is about to enter L2.
pub const PORT_LOADED: u16 = 0xa1;
/// L2 has counted.
pub const PORT_L2: u16 = 0xa2;
/// L2 has exited to L1. RBX is the reason.
pub const PORT_L1: u16 = 0xa3;
/// The SMI handler runs.
pub const PORT_SMM: u16 = 0xa4;
/// An instruction of L1 failed.
pub const PORT_FAILED: u16 = 0xa5;

/// L2 exits to L1 whenever its counter is a multiple of this.
pub const COUNTS_PER_EXIT: u64 = 8;

global_asm!(
    ".pushsection .rodata.kvm_msr_nested, \"a\"",
    ".globl kvm_msr_nested_start, kvm_msr_nested_vmx, kvm_msr_nested_vmx_exit",
    ".hidden kvm_msr_nested_start, kvm_msr_nested_vmx, kvm_msr_nested_vmx_exit",
    ".globl kvm_msr_nested_svm, kvm_msr_nested_l2_vmx, kvm_msr_nested_l2_svm",
    ".hidden kvm_msr_nested_svm, kvm_msr_nested_l2_vmx, kvm_msr_nested_l2_svm",
    ".globl kvm_msr_nested_smi, kvm_msr_nested_end",
    ".hidden kvm_msr_nested_smi, kvm_msr_nested_end",
    ".code64",
    "kvm_msr_nested_start:",
    // L1 on VMX. RSI points to the address of the VMXON region, the address of the VMCS, and pairs
    // of a VMCS field and its value. A field of -1 ends them.
    "kvm_msr_nested_vmx:",
    "vmxon [rsi]",
    "jbe 9f",
    "out 0xa0, al",
    "vmclear [rsi + 8]",
    "jbe 9f",
    "vmptrld [rsi + 8]",
    "jbe 9f",
    "1:",
    "add rsi, 16",
    "mov rax, [rsi]",
    "cmp rax, -1",
    "je 2f",
    "mov rdx, [rsi + 8]",
    "vmwrite rax, rdx",
    "jbe 9f",
    "jmp 1b",
    "2:",
    "out 0xa1, al",
    "vmlaunch",
    "9:",
    "out 0xa5, al",
    "jmp 9b",
    // VM-exits arrive here. L2 resumes after its VMCALL.
    "kvm_msr_nested_vmx_exit:",
    "mov eax, 0x4402",
    "vmread rbx, rax",
    "out 0xa3, al",
    "mov eax, 0x681e",
    "vmread rdx, rax",
    "add rdx, 3",
    "vmwrite rax, rdx",
    "vmresume",
    "jmp 9b",
    // L1 on SVM. RAX is the address of the VMCB.
    "kvm_msr_nested_svm:",
    "out 0xa0, al",
    "out 0xa1, al",
    "1:",
    "vmrun rax",
    // #VMEXITs arrive here, with GIF clear. L2 resumes after its VMMCALL.
    "stgi",
    "mov rbx, [rax + 0x70]",
    "out 0xa3, al",
    "add qword ptr [rax + 0x578], 3",
    "jmp 1b",
    // L2. RDI points to its counter.
    "kvm_msr_nested_l2_vmx:",
    "inc qword ptr [rdi]",
    "out 0xa2, al",
    "test byte ptr [rdi], 7",
    "jnz kvm_msr_nested_l2_vmx",
    "vmcall",
    "jmp kvm_msr_nested_l2_vmx",
    "kvm_msr_nested_l2_svm:",
    "inc qword ptr [rdi]",
    "out 0xa2, al",
    "test byte ptr [rdi], 7",
    "jnz kvm_msr_nested_l2_svm",
    "vmmcall",
    "jmp kvm_msr_nested_l2_svm",
    // These bytes are the same instructions in 16-bit code.
    "kvm_msr_nested_smi:",
    "out 0xa4, al",
    "rsm",
    "kvm_msr_nested_end:",
    ".popsection",
);

unsafe extern "C" {
    static kvm_msr_nested_start: u8;
    static kvm_msr_nested_vmx: u8;
    static kvm_msr_nested_vmx_exit: u8;
    static kvm_msr_nested_svm: u8;
    static kvm_msr_nested_l2_vmx: u8;
    static kvm_msr_nested_l2_svm: u8;
    static kvm_msr_nested_smi: u8;
    static kvm_msr_nested_end: u8;
}

/// A label in [`bytes`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entry {
    /// L1 on VMX.
    Vmx,
    /// VM-exits to L1 on VMX.
    VmxExit,
    /// L1 on SVM.
    Svm,
    /// L2 on VMX.
    L2Vmx,
    /// L2 on SVM.
    L2Svm,
    /// L1's SMI handler.
    Smi,
}

impl Entry {
    /// Offset in [`bytes`].
    pub fn offset(self) -> usize {
        let address = match self {
            Entry::Vmx => &raw const kvm_msr_nested_vmx,
            Entry::VmxExit => &raw const kvm_msr_nested_vmx_exit,
            Entry::Svm => &raw const kvm_msr_nested_svm,
            Entry::L2Vmx => &raw const kvm_msr_nested_l2_vmx,
            Entry::L2Svm => &raw const kvm_msr_nested_l2_svm,
            Entry::Smi => &raw const kvm_msr_nested_smi,
        };

        address.addr() - (&raw const kvm_msr_nested_start).addr()
    }
}

/// All of the code.
pub fn bytes() -> &'static [u8] {
    let start = &raw const kvm_msr_nested_start;
    let length = (&raw const kvm_msr_nested_end).addr() - start.addr();

    // SAFETY: Both symbols are in one section of read-only data, the end after
    // the start, and all bytes between them are initialised above.
    unsafe { std::slice::from_raw_parts(start, length) }
}
