// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The layout of guest memory. L1 and L2 share it, and map it one to one.

use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_sregs;

use crate::code;
use crate::memory::Mapping;

/// Size of guest memory in bytes, from guest-physical address 0.
pub const MEMORY: usize = 0x10_0000;
/// The address of [`code::bytes`](super::code::bytes).
pub const CODE: u64 = 0x6000;
/// The top of L1's stack.
pub const L1_STACK: u64 = 0x5000;
/// The top of L2's stack.
pub const L2_STACK: u64 = 0x9000;
/// L1's parameters on VMX, see [`code`](super::code).
pub const PARAMETERS: u64 = 0xa000;
/// L2's counter, of 64 bits.
pub const COUNTER: u64 = 0xc000;
/// The page tables.
const PAGE_TABLES: u64 = 0x1_0000;
/// The VMXON region, or SVM's host save area.
pub const HOST_AREA: u64 = 0x2_0000;
/// vmcs12 or vmcb12.
pub const CONTROL: u64 = 0x2_1000;
/// The shadow vmcs12.
pub const SHADOW: u64 = 0x2_2000;
/// Zeroes, e.g. for the bitmaps of VMREAD and VMWRITE.
pub const ZEROES: u64 = 0x2_3000;
/// A page that nothing else uses.
pub const SPARE: u64 = 0x2_4000;
/// vmcs12's list of MSRs to load on VM-entry.
pub const ENTRY_LOAD_LIST: u64 = 0x2_5000;
/// vmcs12's list of MSRs to store on VM-exit.
pub const EXIT_STORE_LIST: u64 = 0x2_6000;
/// vmcs12's list of MSRs to load on VM-exit.
pub const EXIT_LOAD_LIST: u64 = 0x2_7000;
/// The SMI handler, for the SMBASE after reset.
pub const SMI_HANDLER: u64 = 0x3_8000;
/// The address of the stubs of [`crate::code`], which are the same instructions in 64-bit code.
pub const STUBS: u64 = 0xe000;

const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
/// Bytes of an interrupt gate in long mode.
const GATE: usize = 16;
/// The limit of the interrupt descriptor table.
pub const IDT_LIMIT: u16 = (code::EXCEPTIONS * GATE) as u16 - 1;
const TSS: u64 = 0x3000;
/// Selector of the code segment.
pub const CODE_SELECTOR: u16 = 0x08;
/// Selector of the data segment.
pub const DATA_SELECTOR: u16 = 0x10;
/// Selector of the task state segment.
pub const TSS_SELECTOR: u16 = 0x18;

/// The root of the page tables, for CR3 and nested paging.
pub const CR3: u64 = PAGE_TABLES;
/// PG, NE, ET and PE.
pub const CR0: u64 = CR0_PG | 1 << 5 | 1 << 4 | 1 << 0;
/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.PAE.
pub const CR4: u64 = 1 << 5;
/// CR4.VMXE.
pub const CR4_VMXE: u64 = 1 << 13;
/// EFER.LME and EFER.LMA.
pub const EFER: u64 = 1 << 8 | 1 << 10;
/// EFER.SVME.
pub const EFER_SVME: u64 = 1 << 12;

/// Writes descriptor table, page tables and code.
pub fn load(memory: &mut Mapping) {
    const PRESENT: u64 = 0b111;
    const LARGE: u64 = 1 << 7;
    const CODE64: u64 = 0x00af_9b00_0000_ffff;
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    const BUSY_TSS: u64 = 0x0000_8b00_0000_0067 | TSS << 16;
    const DIRECTORY: u64 = PAGE_TABLES + 0x2000;

    let mut words = |at: u64, words: &[u64]| {
        for (i, word) in words.iter().enumerate() {
            memory.write(at as usize + 8 * i, &word.to_le_bytes());
        }
    };

    words(GDT, &[0, CODE64, DATA, BUSY_TSS, 0]);
    words(PAGE_TABLES, &[(PAGE_TABLES + 0x1000) | PRESENT]);
    words(PAGE_TABLES + 0x1000, &[DIRECTORY | PRESENT]);
    words(DIRECTORY, &[PRESENT | LARGE]);
    memory.write(CODE as usize, super::code::bytes());
    let smi = super::code::Entry::Smi.offset();
    memory.write(SMI_HANDLER as usize, &super::code::bytes()[smi..]);

    memory.write(STUBS as usize, code::bytes());
    for vector in 0..code::EXCEPTIONS {
        let entry = STUBS as usize + code::exceptions() + vector * code::EXCEPTION_STUB_SIZE;
        // A present 64-bit interrupt gate for ring 0. The upper half of the address is 0.
        let gate = entry as u64 & 0xffff
            | u64::from(CODE_SELECTOR) << 16
            | 0x8e00 << 32
            | (entry as u64 >> 16) << 48;

        memory.write(IDT as usize + GATE * vector, &gate.to_le_bytes());
    }
}

/// The top of the stack on which a vCPU runs stubs. There is room for 8 vCPUs.
pub fn stub_stack_top(vcpu_id: u64) -> u64 {
    const STACK: u64 = 0x100;

    L1_STACK - 0x400 - vcpu_id % 8 * STACK
}

/// Sets long mode, for L1.
pub fn set_long_mode(sregs: &mut kvm_sregs) {
    let data = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: DATA_SELECTOR,
        type_: 3,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    };

    sregs.cs = kvm_segment {
        selector: CODE_SELECTOR,
        type_: 11,
        db: 0,
        l: 1,
        ..data
    };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: TSS,
        limit: 0x67,
        selector: TSS_SELECTOR,
        type_: 11,
        present: 1,
        ..Default::default()
    };
    sregs.ldt = kvm_segment {
        type_: 2,
        unusable: 1,
        ..Default::default()
    };
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 5 * 8 - 1;
    sregs.idt.base = IDT;
    sregs.idt.limit = IDT_LIMIT;
    sregs.cr0 = CR0;
    sregs.cr3 = CR3;
    sregs.cr4 = CR4;
    sregs.efer = EFER;
}

/// The base of L1's task state segment.
pub const fn tss() -> u64 {
    TSS
}

/// The base of the interrupt descriptor table.
pub const fn idt() -> u64 {
    IDT
}

/// The base of the descriptor table.
pub const fn gdt() -> u64 {
    GDT
}
