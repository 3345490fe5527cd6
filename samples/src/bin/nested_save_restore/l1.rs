// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A VM whose guest, L1, is a hypervisor of a few instructions. L1's guest, L2, counts.
//!
//! L2 writes to a port each time it has counted. L1 does not intercept this, so it exits to user
//! space. After some counts, L2 calls L1, which writes to another port and resumes L2. L1 and L2
//! are in 64-bit mode and share one address space, in which the lowest 2 MiB are mapped one to one.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_sregs;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuExit;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use kvm_msr_samples::memory::Memory;

use crate::svm;
use crate::vmx;

/// L2 has counted.
const PORT_L2: u16 = 0xa2;
/// L2 has called L1.
const PORT_L1: u16 = 0xa3;
/// An instruction of L1 has failed.
const PORT_FAILED: u16 = 0xa5;

/// Pages of guest memory.
const PAGES: usize = 256;
// Guest-physical addresses.
const GDT: u64 = 0x1000;
const TSS: u64 = 0x3000;
/// The end of L1's stack.
pub const L1_STACK: u64 = 0x5000;
/// The code of L1 and L2.
pub const CODE: u64 = 0x6000;
/// The end of L2's stack.
pub const L2_STACK: u64 = 0x9000;
/// On VMX, the fields that L1 writes to its VMCS.
pub const FIELDS: u64 = 0xa000;
const COUNTER: u64 = 0xc000;
const PAGE_TABLES: u64 = 0x1_0000;
/// The VMXON region, or SVM's host save area.
pub const HOST_AREA: u64 = 0x2_0000;
/// The VMCS or VMCB.
pub const CONTROL: u64 = 0x2_1000;

/// Selector of the code segment.
pub const CODE_SELECTOR: u16 = 0x08;
/// Selector of the data segments.
pub const DATA_SELECTOR: u16 = 0x10;
/// Selector of the task state segment.
pub const TSS_SELECTOR: u16 = 0x18;
/// Base of the global descriptor table.
pub const GDT_BASE: u64 = GDT;
/// Limit of the global descriptor table: 5 entries, as a TSS takes two.
pub const GDT_LIMIT: u16 = 5 * 8 - 1;
/// Base of the task state segment.
pub const TSS_BASE: u64 = TSS;
/// Limit of the task state segment.
pub const TSS_LIMIT: u32 = 0x67;

/// CR0: PG, NE, ET and PE.
pub const CR0: u64 = 1 << 31 | 1 << 5 | 1 << 4 | 1 << 0;
/// CR3: the page tables.
pub const CR3: u64 = PAGE_TABLES;
/// CR4: PAE.
pub const CR4: u64 = 1 << 5;
/// EFER: LME and LMA.
pub const EFER: u64 = 1 << 8 | 1 << 10;

/// The kind of virtualisation that KVM offers to guests.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Vendor {
    Vmx,
    Svm,
}

impl Vendor {
    fn of(kvm: &Kvm) -> Result<Self> {
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;
        let ecx = |function| {
            let mut entries = cpuid.as_slice().iter();

            entries
                .find(|entry| entry.function == function)
                .map_or(0, |entry| entry.ecx)
        };

        if ecx(1) & 1 << 5 != 0 {
            Ok(Vendor::Vmx)
        } else if ecx(0x8000_0001) & 1 << 2 != 0 {
            Ok(Vendor::Svm)
        } else {
            bail!(
                "KVM offers neither VMX nor SVM to guests: is kvm_intel or kvm_amd loaded with nested=1?"
            )
        }
    }
}

/// Why the vCPU exited to user space.
pub enum Exit {
    /// L2 has counted.
    L2Counted,
    /// L2 has called L1.
    L2CalledL1,
}

/// The VM, with one vCPU.
pub struct L1 {
    // Fields are dropped in this order: the memory has to be the last.
    vcpu: VcpuFd,
    vm: VmFd,
    memory: Memory,
}

impl L1 {
    /// Creates the VM, with L1 at its first instruction.
    pub fn new(kvm: &Kvm) -> Result<Self> {
        let mut l1 = Self::empty(kvm)?;
        let mut sregs = l1.vcpu.get_sregs().context("KVM_GET_SREGS")?;
        let mut regs = kvm_regs {
            rsp: L1_STACK,
            // L2 gets RDI from L1, unchanged.
            rdi: COUNTER,
            rflags: 1 << 1,
            ..Default::default()
        };

        write_tables(&mut l1.memory);
        set_long_mode(&mut sregs);
        match Vendor::of(kvm)? {
            Vendor::Vmx => vmx::load(&l1.vcpu, &mut l1.memory, &mut sregs, &mut regs)?,
            Vendor::Svm => svm::load(&l1.vcpu, &mut l1.memory, &mut sregs, &mut regs)?,
        }
        l1.vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")?;
        l1.vcpu.set_regs(&regs).context("KVM_SET_REGS")?;
        Ok(l1)
    }

    /// Creates the VM, with empty memory and the vCPU in its reset state.
    pub fn empty(kvm: &Kvm) -> Result<Self> {
        let memory = Memory::new(PAGES);
        let vm = kvm.create_vm().context("KVM_CREATE_VM")?;

        vm.set_tss_address(0xfffb_d000)
            .context("KVM_SET_TSS_ADDR")?;
        vm.create_irq_chip().context("KVM_CREATE_IRQCHIP")?;
        // SAFETY: The memory is dropped after `vm`: here as it was declared before it, and in
        // `L1` as the last field.
        unsafe { memory.add_to(&vm) }?;
        let vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;
        vcpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;
        Ok(L1 { vcpu, vm, memory })
    }

    /// The VM.
    pub fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// The vCPU.
    pub fn vcpu(&self) -> &VcpuFd {
        &self.vcpu
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The guest's memory, to be written.
    pub fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// L2's counter.
    pub fn counter(&self) -> u64 {
        let bytes = self.memory.read(COUNTER as usize, 8);

        u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
    }

    /// Runs the vCPU until it exits to user space.
    pub fn run(&mut self) -> Result<Exit> {
        match self.vcpu.run().context("KVM_RUN")? {
            VcpuExit::IoOut(PORT_L2, _) => Ok(Exit::L2Counted),
            VcpuExit::IoOut(PORT_L1, _) => Ok(Exit::L2CalledL1),
            VcpuExit::IoOut(PORT_FAILED, _) => bail!("an instruction of L1 failed"),
            exit => bail!("unexpected exit: {exit:?}"),
        }
    }

    /// Has KVM complete the last exit, i.e. advance RIP past OUT. Before that, the vCPU's state
    /// can't be saved.
    pub fn complete_exit(&mut self) -> Result<()> {
        const EINTR: i32 = 4;

        self.vcpu.set_kvm_immediate_exit(1);
        let result = self.vcpu.run().map(|_| ());
        self.vcpu.set_kvm_immediate_exit(0);
        ensure!(
            result.is_err_and(|error| error.errno() == EINTR),
            "KVM_RUN with immediate_exit must fail with EINTR"
        );
        Ok(())
    }
}

/// Writes 64-bit values to the guest's memory.
pub fn write_words(memory: &mut Memory, at: u64, words: &[u64]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();

    memory.write(at as usize, &bytes);
}

/// Writes the descriptor table and the page tables, with one page of 2 MiB.
fn write_tables(memory: &mut Memory) {
    const PRESENT: u64 = 0b111;
    const LARGE: u64 = 1 << 7;
    const CODE64: u64 = 0x00af_9b00_0000_ffff;
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    const BUSY_TSS: u64 = 0x0000_8b00_0000_0000 | TSS << 16 | TSS_LIMIT as u64;

    write_words(memory, GDT, &[0, CODE64, DATA, BUSY_TSS, 0]);
    write_words(memory, PAGE_TABLES, &[(PAGE_TABLES + 0x1000) | PRESENT]);
    write_words(
        memory,
        PAGE_TABLES + 0x1000,
        &[(PAGE_TABLES + 0x2000) | PRESENT],
    );
    write_words(memory, PAGE_TABLES + 0x2000, &[PRESENT | LARGE]);
}

/// Puts L1 into 64-bit mode.
fn set_long_mode(sregs: &mut kvm_sregs) {
    let data = kvm_segment {
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
        limit: TSS_LIMIT,
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
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, GDT_LIMIT);
    (sregs.idt.base, sregs.idt.limit) = (0, 0);
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0, CR3, CR4, EFER);
}

/// A function that is assembled into this program, to be copied into the guest's memory.
///
/// # Safety
///
/// `start` and `end` must point to the start and end of initialised, immutable data.
pub unsafe fn code(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: By the caller's promise.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}
