// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A guest of a few bytes, in real mode, that executes one RDMSR or WRMSR at a time.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_regs;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuExit;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;

use crate::memory::Memory;

/// The guest writes to this port when RDMSR or WRMSR has succeeded.
pub const PORT_DONE: u16 = 0x80;
/// The guest writes to this port when it has got #GP.
pub const PORT_GP: u16 = 0x81;

/// Vector 13 of real mode's interrupt table: offset and segment of the handler.
const GP_VECTOR: usize = 13 * 4;
const RDMSR: usize = 0x500;
const WRMSR: usize = 0x510;
const GP_HANDLER: usize = 0x520;
const STACK: usize = 0x1000;

/// An instruction of the guest.
#[derive(Clone, Copy, Debug)]
pub enum Instruction {
    /// Reads the MSR to EDX:EAX.
    Rdmsr,
    /// Writes this value.
    Wrmsr(u64),
}

/// A VM with one vCPU.
pub struct Guest {
    // Fields are dropped in this order: the memory has to be the last.
    vcpu: VcpuFd,
    vm: VmFd,
    _memory: Memory,
}

impl Guest {
    /// Creates the VM, with or without the in-kernel irqchip.
    pub fn new(kvm: &Kvm, irqchip: bool) -> Result<Self> {
        let mut memory = Memory::new(1);

        memory.write(GP_VECTOR, &(GP_HANDLER as u32).to_le_bytes());
        memory.write(RDMSR, &[0x0f, 0x32, 0xe6, PORT_DONE as u8]); // RDMSR; OUT
        memory.write(WRMSR, &[0x0f, 0x30, 0xe6, PORT_DONE as u8]); // WRMSR; OUT
        memory.write(GP_HANDLER, &[0xe6, PORT_GP as u8]); // OUT

        let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
        // Intel CPUs without unrestricted guests need these pages to run real mode.
        vm.set_tss_address(0xfffb_d000)
            .context("KVM_SET_TSS_ADDR")?;
        if irqchip {
            vm.create_irq_chip().context("KVM_CREATE_IRQCHIP")?;
        }
        // SAFETY: The memory is dropped after `vm`: here as it was declared before it, and in
        // `Guest` as the last field.
        unsafe { memory.add_to(&vm) }?;

        let vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;
        vcpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;
        let mut sregs = vcpu.get_sregs().context("KVM_GET_SREGS")?;
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")?;
        Ok(Guest {
            vcpu,
            vm,
            _memory: memory,
        })
    }

    /// The VM.
    pub fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// The vCPU.
    pub fn vcpu(&self) -> &VcpuFd {
        &self.vcpu
    }

    /// Runs the vCPU until it exits to user space.
    pub fn run(&mut self) -> Result<VcpuExit<'_>> {
        self.vcpu.run().context("KVM_RUN")
    }

    /// Sets the registers so that the guest executes `instruction` next.
    pub fn start(&self, instruction: Instruction, index: u32) -> Result<()> {
        let (rip, value) = match instruction {
            Instruction::Rdmsr => (RDMSR, 0),
            Instruction::Wrmsr(value) => (WRMSR, value),
        };
        let regs = kvm_regs {
            rip: rip as u64,
            rsp: STACK as u64,
            rcx: index.into(),
            rax: value & 0xffff_ffff,
            rdx: value >> 32,
            rflags: 1 << 1,
            ..Default::default()
        };

        self.vcpu.set_regs(&regs).context("KVM_SET_REGS")
    }

    /// The value that RDMSR has read.
    pub fn value(&self) -> Result<u64> {
        let regs = self.vcpu.get_regs().context("KVM_GET_REGS")?;

        Ok(regs.rdx << 32 | regs.rax & 0xffff_ffff)
    }

    /// Executes WRMSR, which has to succeed.
    pub fn wrmsr(&mut self, index: u32, value: u64) -> Result<()> {
        self.start(Instruction::Wrmsr(value), index)?;
        match self.run()? {
            VcpuExit::IoOut(PORT_DONE, _) => Ok(()),
            exit => bail!("WRMSR of {index:#x} with {value:#x} failed: {exit:?}"),
        }
    }
}
