// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The guest: a VM with a vCPU that makes one MSR access at a time.

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use kvm_bindings::CpuId;
use kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;

use crate::code::Stub;
use crate::engine::Engine;
use crate::engine::VmFolder;
use crate::ioctl;
use crate::layout;
use crate::layout::CODE;
use crate::memory::Mapping;
use crate::outcome::Access;
use crate::outcome::Outcome;
use crate::run::Place;

/// The vCPU's CPUID.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Cpuid {
    /// All that KVM_GET_SUPPORTED_CPUID offers.
    #[default]
    Full,
    /// Nothing: KVM_SET_CPUID2 is not called.
    Empty,
    /// All except the PMU.
    NoPmu,
    /// All, but with the other vendor's name: Intel on AMD, AMD on Intel.
    OtherVendor,
}

impl Cpuid {
    /// The entries for KVM_SET_CPUID2; none if it is not to be called.
    pub fn entries(self, kvm: &Kvm) -> Result<Option<CpuId>> {
        const FEATURES: u32 = 1;
        const PDCM: u32 = 1 << 15;
        const PERFMON: u32 = 0xa;
        const AMD_FEATURES: u32 = 0x8000_0001;
        const PERFCTR_CORE: u32 = 1 << 23;
        const AMD_PERFMON: u32 = 0x8000_0022;
        const VENDORS: [u32; 2] = [0, 0x8000_0000];

        if self == Cpuid::Empty {
            return Ok(None);
        }
        let mut cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;

        for entry in cpuid.as_mut_slice() {
            match (self, entry.function) {
                (Cpuid::NoPmu, FEATURES) => entry.ecx &= !PDCM,
                (Cpuid::NoPmu, AMD_FEATURES) => entry.ecx &= !PERFCTR_CORE,
                (Cpuid::NoPmu, PERFMON | AMD_PERFMON) => {
                    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
                }
                (Cpuid::OtherVendor, function) if VENDORS.contains(&function) => {
                    let vendor = if entry.ebx == u32::from_le_bytes(*b"Genu") {
                        b"AuthenticAMD"
                    } else {
                        b"GenuineIntel"
                    };
                    let word = |at: usize| {
                        u32::from_le_bytes([
                            vendor[at],
                            vendor[at + 1],
                            vendor[at + 2],
                            vendor[at + 3],
                        ])
                    };
                    (entry.ebx, entry.edx, entry.ecx) = (word(0), word(4), word(8));
                }
                _ => {}
            }
        }
        Ok(Some(cpuid))
    }
}

/// How to set up a [`Guest`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// What serves the VM's MSRs.
    pub engine: Engine,
    /// Whether to create the in-kernel irqchip.
    pub irqchip: bool,
    /// The vCPU's CPUID.
    pub cpuid: Cpuid,
}

impl Options {
    /// Full CPUID and no in-kernel irqchip.
    pub fn new(engine: Engine) -> Self {
        Options {
            engine,
            irqchip: false,
            cpuid: Cpuid::Full,
        }
    }
}

/// Prepares a new VM for its vCPU: adds memory from address 0 on, in some memory slots, and an
/// irqchip if requested.
///
/// # Safety
///
/// The memory must be dropped after the VM, and Rust code must not have a reference into it.
pub(crate) unsafe fn equip(
    vm: &VmFd,
    memory: &Mapping,
    slots: &[u32],
    irqchip: bool,
) -> Result<()> {
    // Needed on Intel only, for guests in real mode: three pages that are not guest memory.
    vm.set_tss_address(0xfffb_d000)
        .context("KVM_SET_TSS_ADDR")?;
    if irqchip {
        vm.create_irq_chip().context("KVM_CREATE_IRQCHIP")?;
    }
    for &slot in slots {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: memory.length() as u64,
            userspace_addr: memory.at(0).address(),
        };
        // SAFETY: The caller keeps the memory until the VM is closed.
        unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
    }
    Ok(())
}

/// A VM with a vCPU that runs the code of [`crate::code`].
#[derive(Debug)]
pub struct Guest {
    // Fields are dropped in this order: the guest's memory has to be the last.
    vcpu: VcpuFd,
    vm: Arc<VmFd>,
    folder: VmFolder,
    memory: Arc<Mapping>,
    vcpu_id: u64,
    cpuid: Cpuid,
    stub: Stub,
    // Whether an exit to user space waits for its completion.
    unanswered: bool,
}

impl Guest {
    /// Creates the VM and its vCPU, and sets them up.
    pub fn new(kvm: &Kvm, options: Options) -> Result<Self> {
        let (vm, folder) = options.engine.create_vm(kvm)?;

        Self::in_vm(kvm, vm, folder, options)
    }

    /// Sets up an existing VM. Ignores `options.engine`.
    pub fn in_vm(kvm: &Kvm, vm: VmFd, folder: VmFolder, options: Options) -> Result<Self> {
        let memory = layout::load().context("map guest memory")?;
        // Moved here, so that it is dropped before the memory if an error occurs.
        let vm = vm;

        // SAFETY: The VM is dropped before the memory: `Guest` owns both, in this order.
        unsafe { equip(&vm, &memory, &[0], options.irqchip) }?;
        Self::with_vcpu(kvm, vm.into(), folder, memory.into(), 0, options.cpuid)
    }

    /// Creates another vCPU of the VM.
    ///
    /// Like this one it keeps the VM, and the memory.
    pub fn another_vcpu(&self, kvm: &Kvm, vcpu_id: u64) -> Result<Self> {
        Self::with_vcpu(
            kvm,
            self.vm.clone(),
            self.folder.clone(),
            self.memory.clone(),
            vcpu_id,
            self.cpuid,
        )
    }

    fn with_vcpu(
        kvm: &Kvm,
        vm: Arc<VmFd>,
        folder: VmFolder,
        memory: Arc<Mapping>,
        vcpu_id: u64,
        cpuid: Cpuid,
    ) -> Result<Self> {
        // Moved here, so that it is dropped before the memory if an error occurs.
        let vm = vm;
        let vcpu = vm.create_vcpu(vcpu_id).context("KVM_CREATE_VCPU")?;

        if let Some(cpuid) = cpuid.entries(kvm)? {
            vcpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;
        }
        layout::set_protected_mode(&vcpu)?;
        Ok(Guest {
            vcpu,
            vm,
            folder,
            memory,
            vcpu_id,
            cpuid,
            stub: Stub::Nop,
            unanswered: false,
        })
    }

    /// The VM.
    pub fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// A second file descriptor of the VM, e.g. for another thread.
    pub fn vm_fd(&self) -> io::Result<OwnedFd> {
        // SAFETY: The descriptor is open as long as the VM is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.vm.as_raw_fd()) }.try_clone_to_owned()
    }

    /// The vCPU.
    pub fn vcpu(&self) -> &VcpuFd {
        &self.vcpu
    }

    /// The vCPU, e.g. for its `struct kvm_run`.
    pub fn vcpu_mut(&mut self) -> &mut VcpuFd {
        &mut self.vcpu
    }

    /// The VM's folder in debugfs.
    pub fn folder(&self) -> &VmFolder {
        &self.folder
    }

    /// Turns PAE paging on, which maps the memory to the same addresses.
    pub fn enable_paging(&self) -> Result<()> {
        layout::enable_paging(&self.vcpu)
    }

    /// Enables KVM_CAP_X86_USER_SPACE_MSR for some `KVM_MSR_EXIT_REASON_*`.
    pub fn deflect(&self, reasons: u32) -> Result<()> {
        ioctl::enable_cap(&self.vm, KVM_CAP_X86_USER_SPACE_MSR, 0, reasons.into())
            .map(|_| ())
            .with_context(|| format!("KVM_ENABLE_CAP of KVM_CAP_X86_USER_SPACE_MSR {reasons:#x}"))
    }

    /// Executes RDMSR.
    pub fn rdmsr(&mut self, index: u32) -> Result<Outcome> {
        self.start(Stub::Rdmsr, index, 0, 1)?;
        self.run()
    }

    /// Executes WRMSR.
    pub fn wrmsr(&mut self, index: u32, value: u64) -> Result<Outcome> {
        self.start(Stub::Wrmsr, index, value, 1)?;
        self.run()
    }

    /// Executes RDMSR behind the forced-emulation prefix, i.e. in KVM's emulator.
    ///
    /// Without the parameter `force_emulation_prefix` of kvm.ko the guest gets
    /// `#UD`.
    pub fn rdmsr_emulated(&mut self, index: u32) -> Result<Outcome> {
        self.start(Stub::RdmsrEmulated, index, 0, 1)?;
        self.run()
    }

    /// Executes WRMSR in KVM's emulator, see [`Guest::rdmsr_emulated`].
    pub fn wrmsr_emulated(&mut self, index: u32, value: u64) -> Result<Outcome> {
        self.start(Stub::WrmsrEmulated, index, value, 1)?;
        self.run()
    }

    /// Executes an access, natively or in KVM's emulator.
    pub fn access(
        &mut self,
        access: Access,
        emulated: bool,
        index: u32,
        value: u64,
    ) -> Result<Outcome> {
        match (access, emulated) {
            (Access::Read, false) => self.rdmsr(index),
            (Access::Read, true) => self.rdmsr_emulated(index),
            (Access::Write, false) => self.wrmsr(index, value),
            (Access::Write, true) => self.wrmsr_emulated(index, value),
        }
    }

    /// Puts the vCPU at the start of a stub, without running it.
    ///
    /// `value` goes to EDX:EAX and `count` to ESI. If an exit to user space waits for its
    /// completion, it is completed first, with its answer.
    pub fn start(&mut self, stub: Stub, index: u32, value: u64, count: u32) -> Result<()> {
        if self.unanswered {
            self.set_immediate_exit(1);
            let outcome = self.run()?;
            self.set_immediate_exit(0);
            if outcome != Outcome::Interrupted {
                bail!("completing an exit to user space: {outcome}");
            }
        }

        self.stub = stub;
        self.place().start(&self.vcpu, stub, index, value, count)
    }

    fn place(&self) -> Place {
        Place {
            code: CODE,
            stack_top: layout::stack_top(self.vcpu_id),
            long_mode: false,
        }
    }

    /// Answers an exit to user space. Takes effect in the next run.
    ///
    /// RDMSR returns `data`. An `error` other than 0 injects #GP.
    pub fn answer(&mut self, data: u64, error: u8) {
        let run = self.vcpu.get_kvm_run();

        run.__bindgen_anon_1.msr.data = data;
        run.__bindgen_anon_1.msr.error = error;
    }

    /// Fills `msr` in `struct kvm_run` with `byte`, to find out what KVM overwrites.
    pub fn fill_msr(&mut self, byte: u8) {
        self.vcpu.get_kvm_run().__bindgen_anon_1.padding = [byte as _; 256];
    }

    /// Makes KVM_RUN return at once (1), or run the guest (0).
    pub fn set_immediate_exit(&mut self, value: u8) {
        self.vcpu.set_kvm_immediate_exit(value);
    }

    /// The general-purpose registers.
    pub fn regs(&self) -> Result<kvm_regs> {
        self.vcpu.get_regs().context("KVM_GET_REGS")
    }

    /// The distance of RIP from the start of the stub, in bytes.
    pub fn progress(&self) -> Result<i64> {
        let start = CODE + self.stub.offset() as u64;

        Ok(self.regs()?.rip.wrapping_sub(start) as i64)
    }

    /// Runs the vCPU until it exits to user space.
    pub fn run(&mut self) -> Result<Outcome> {
        self.unanswered = false;
        let outcome = self.place().run(&mut self.vcpu, &self.memory, self.stub)?;

        if let Outcome::Port(port) = outcome {
            bail!("the guest wrote to port {port:#x}");
        }
        self.unanswered = outcome.user_space().is_some();
        Ok(outcome)
    }
}
