// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The layout of the guest's memory, and the mode in which the vCPU starts.

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::kvm_segment;
use kvm_ioctls::VcpuFd;

use crate::code;
use crate::memory::Mapping;

/// Size of guest memory in bytes, from guest-physical address 0.
pub const MEMORY: usize = 0x10000;
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
/// The top of the first vCPU's stack.
const STACK_TOP: u64 = 0x5000;
/// The size of a vCPU's stack.
const STACK: u64 = 0x200;
/// The address of [`code::bytes`].
pub const CODE: u64 = 0x6000;

/// The page directory pointers of [`enable_paging`], and the page directory behind them.
const PAGE_POINTERS: u64 = 0xe000;
const PAGE_DIRECTORY: u64 = 0xf000;

/// Selectors of the flat segments and of the task state.
const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
const TSS_SELECTOR: u16 = 0x18;

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;

/// The top of a vCPU's stack. There is room for 8 vCPUs.
pub fn stack_top(vcpu_id: u64) -> u64 {
    STACK_TOP - vcpu_id % 8 * STACK
}

/// Guest memory with descriptor tables and code.
pub fn load() -> rustix::io::Result<Mapping> {
    // Base, limit and type of the descriptors. All are flat except the TSS.
    const FLAT_CODE: u64 = 0x00cf_9b00_0000_ffff;
    const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;
    const BUSY_TSS: u64 = 0x0000_8b00_0000_0067 | TSS << 16;

    let mut memory = Mapping::new(MEMORY)?;

    for (i, descriptor) in [0, FLAT_CODE, FLAT_DATA, BUSY_TSS].iter().enumerate() {
        memory.write(GDT as usize + 8 * i, &descriptor.to_le_bytes());
    }
    for vector in 0..code::EXCEPTIONS {
        let entry = CODE as usize + code::exceptions() + vector * code::EXCEPTION_STUB_SIZE;
        // A present 32-bit interrupt gate for ring 0.
        let gate = entry as u64 & 0xffff
            | u64::from(CODE_SELECTOR) << 16
            | 0x8e00 << 32
            | (entry as u64 >> 16) << 48;

        memory.write(IDT as usize + 8 * vector, &gate.to_le_bytes());
    }
    memory.write(CODE as usize, code::bytes());

    // Present; and a present and writable page of 2 MiB at address 0.
    let pointer = PAGE_DIRECTORY | 1;
    memory.write(PAGE_POINTERS as usize, &pointer.to_le_bytes());
    memory.write(PAGE_DIRECTORY as usize, &0x83u64.to_le_bytes());
    Ok(memory)
}

/// PAE paging, which maps the guest's memory to the same addresses.
pub fn enable_paging(vcpu: &VcpuFd) -> Result<()> {
    let mut sregs = vcpu.get_sregs().context("KVM_GET_SREGS")?;

    sregs.cr3 = PAGE_POINTERS;
    sregs.cr0 |= CR0_PG;
    vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")
}

/// Protected mode without paging, in the flat segments of [`load`].
pub fn set_protected_mode(vcpu: &VcpuFd) -> Result<()> {
    let segment = |selector, type_| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    };
    let data = segment(DATA_SELECTOR, 3);
    let mut sregs = vcpu.get_sregs().context("KVM_GET_SREGS")?;

    sregs.cs = segment(CODE_SELECTOR, 11);
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = kvm_segment {
        base: TSS,
        limit: 0x67,
        db: 0,
        s: 0,
        g: 0,
        ..segment(TSS_SELECTOR, 11)
    };
    sregs.ldt = kvm_segment {
        unusable: 1,
        present: 0,
        s: 0,
        ..segment(0, 2)
    };
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 4 * 8 - 1;
    sregs.idt.base = IDT;
    sregs.idt.limit = code::EXCEPTIONS as u16 * 8 - 1;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_NE;
    // It has no effect without paging. But on #VMEXIT, QEMU restores the host's CR0 before its
    // CR4, and leaves paging off if the guest set EFER.LME without CR4.PAE.
    sregs.cr4 |= CR4_PAE;
    vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")
}
