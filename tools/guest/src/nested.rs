// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A guest that is a hypervisor: L1, with a guest of its own, L2, which counts.
//!
//! L2 makes an OUT each time it has counted. L1 does not intercept it, so it exits to user space.
//! After some counts, L2 exits to L1, which resumes it. See [`code`] for the other exits to user
//! space.

pub mod code;
pub mod layout;
mod state;
mod svm;
mod vmx;

use std::ffi::c_int;
use std::ffi::c_void;
use std::fmt;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_CAP_MULTI_ADDRESS_SPACE;
use kvm_bindings::KVM_EXIT_IO;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_regs;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use libc::siginfo_t;
use vmm_sys_util::signal::register_signal_handler;

use self::code::Entry;
use self::layout::COUNTER;
use self::layout::MEMORY;
pub use self::state::State;
use crate::engine::Engine;
use crate::engine::VmFolder;
use crate::ioctl::Errno;
use crate::memory::Mapping;
use crate::vm::Cpuid;
use crate::vm::equip;

/// The host's kind of virtualisation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Vendor {
    /// Intel's.
    Vmx,
    /// AMD's.
    Svm,
}

impl Vendor {
    /// The kind that KVM offers to guests.
    pub fn of(kvm: &Kvm) -> Result<Self> {
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;
        let ecx = |function| {
            cpuid
                .as_slice()
                .iter()
                .find(|entry| entry.function == function)
                .map_or(0, |entry| entry.ecx)
        };

        if ecx(1) >> 5 & 1 != 0 {
            Ok(Vendor::Vmx)
        } else if ecx(0x8000_0001) >> 2 & 1 != 0 {
            Ok(Vendor::Svm)
        } else {
            bail!(
                "KVM offers neither VMX nor SVM to guests: is kvm_intel or kvm_amd loaded with nested=1?"
            )
        }
    }
}

/// How to set up a [`Nested`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// What serves the VM.
    pub engine: Engine,
    /// Whether to create the in-kernel irqchip, and local APIC.
    pub irqchip: bool,
    /// On VMX, vmcs12 links to a shadow vmcs12.
    pub shadow: bool,
    /// On SVM, L1 uses nested paging for L2.
    pub nested_paging: bool,
}

impl Options {
    /// Without any of these.
    pub fn new(engine: Engine) -> Self {
        Options {
            engine,
            irqchip: false,
            shadow: false,
            nested_paging: false,
        }
    }
}

/// The lists of MSRs in vmcs12: the indices, and the values to load.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MsrLists {
    /// Loaded on VM-entry.
    pub entry_load: Vec<(u32, u64)>,
    /// Stored on VM-exit, over the values here.
    pub exit_store: Vec<(u32, u64)>,
    /// Loaded on VM-exit.
    pub exit_load: Vec<(u32, u64)>,
}

/// Why the vCPU stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// L1 is in VMX operation, or has SVM enabled.
    Enabled,
    /// L1 is about to enter L2 for the first time.
    Loaded,
    /// L2 has counted.
    L2,
    /// L2 exited to L1, for this reason.
    L1(u64),
    /// The SMI handler runs.
    Smm,
    /// An instruction of L1 failed.
    Failed,
    /// A signal interrupted KVM_RUN.
    Interrupted,
    /// KVM_RUN failed.
    Error(Errno),
    /// KVM_RUN returned for another reason, `KVM_EXIT_*`.
    Exit(u32),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Enabled => f.write_str("L1 has virtualisation enabled"),
            Stop::Loaded => f.write_str("L1 is about to enter L2"),
            Stop::L2 => f.write_str("L2 has counted"),
            Stop::L1(reason) => write!(f, "L2 has exited to L1, reason {reason:#x}"),
            Stop::Smm => f.write_str("in the SMI handler"),
            Stop::Failed => f.write_str("an instruction of L1 failed"),
            Stop::Interrupted => f.write_str("a signal interrupted KVM_RUN"),
            Stop::Error(errno) => write!(f, "KVM_RUN: {errno}"),
            Stop::Exit(reason) => write!(f, "exit reason {reason}"),
        }
    }
}

/// A VM with one vCPU, on which L1 runs.
#[derive(Debug)]
pub struct Nested {
    // Fields are dropped in this order: the guest's memory has to be the last.
    vcpu: VcpuFd,
    vm: VmFd,
    folder: VmFolder,
    memory: Mapping,
    vendor: Vendor,
}

impl Nested {
    /// The stop after a VM-entry on VMX that failed because an MSR of its list could not be loaded.
    pub const FAILED_MSR_LOAD: Stop = Stop::L1(vmx::EXIT_MSR_LOAD_FAILED);

    /// Creates the VM, with L1 at its start.
    pub fn new(kvm: &Kvm, options: Options) -> Result<Self> {
        Self::with_lists(kvm, options, &MsrLists::default())
    }

    /// Creates the VM, with L1 at its start. SVM has no lists of MSRs.
    pub fn with_lists(kvm: &Kvm, options: Options, lists: &MsrLists) -> Result<Self> {
        let mut nested = Self::empty(kvm, options.engine, options.irqchip)?;

        nested.start(options, lists)?;
        Ok(nested)
    }

    /// Loads the code, and puts L1 at its start. SVM has no lists of MSRs.
    ///
    /// # Errors
    ///
    /// Fails if the vCPU's CPUID lacks VMX.
    pub fn start(&mut self, options: Options, lists: &MsrLists) -> Result<()> {
        let mut sregs = self.vcpu.get_sregs().context("KVM_GET_SREGS")?;
        let mut regs = kvm_regs {
            rsp: layout::L1_STACK,
            rflags: 2,
            // RDI is L2's: L1 does not change it before it enters L2.
            rdi: COUNTER,
            ..Default::default()
        };

        layout::load(&mut self.memory);
        layout::set_long_mode(&mut sregs);
        match self.vendor {
            Vendor::Vmx => {
                let revision = vmx::enable(&self.vcpu)?;

                for region in [layout::HOST_AREA, layout::CONTROL] {
                    self.write(region, &revision.to_le_bytes());
                }
                self.write(
                    layout::SHADOW,
                    &vmx::shadow_revision(revision).to_le_bytes(),
                );
                sregs.cr4 |= layout::CR4_VMXE;
                let words = vmx::parameters(&self.vcpu, sregs.cr4, options.shadow, lists)?;
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                self.write(layout::PARAMETERS, &bytes);
                for (at, list) in [
                    (layout::ENTRY_LOAD_LIST, &lists.entry_load),
                    (layout::EXIT_STORE_LIST, &lists.exit_store),
                    (layout::EXIT_LOAD_LIST, &lists.exit_load),
                ] {
                    self.write(at, &vmx::list_bytes(list));
                }
                regs.rip = layout::CODE + Entry::Vmx.offset() as u64;
                regs.rsi = layout::PARAMETERS;
            }
            Vendor::Svm => {
                ensure!(*lists == MsrLists::default(), "SVM has no lists of MSRs");
                svm::load(&mut self.memory, options.nested_paging);
                sregs.efer |= layout::EFER_SVME;
                regs.rip = layout::CODE + Entry::Svm.offset() as u64;
                regs.rax = layout::CONTROL;
            }
        }
        self.vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")?;
        self.vcpu.set_regs(&regs).context("KVM_SET_REGS")?;
        if self.vendor == Vendor::Svm {
            svm::enable(&self.vcpu)?;
        }
        Ok(())
    }

    /// Creates the VM with empty memory, and the vCPU in its reset state.
    pub fn empty(kvm: &Kvm, engine: Engine, irqchip: bool) -> Result<Self> {
        let nested = Self::without_cpuid(kvm, engine, irqchip, |_| Ok(()))?;

        if let Some(cpuid) = Cpuid::Full.entries(kvm)? {
            nested.vcpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;
        }
        Ok(nested)
    }

    /// Like [`Nested::empty`], without CPUID, and with a call before the vCPU is created.
    pub fn without_cpuid(
        kvm: &Kvm,
        engine: Engine,
        irqchip: bool,
        prepare: impl FnOnce(&VmFd) -> Result<()>,
    ) -> Result<Self> {
        let vendor = Vendor::of(kvm)?;
        // Declared before the VM, so that it is dropped after it if an error occurs.
        let memory = Mapping::new(MEMORY).context("map guest memory")?;
        let (vm, folder) = engine.create_vm(kvm)?;

        // SMM, unless KVM is built without it, has an address space of its own.
        let has_smm = vm.check_extension_raw(KVM_CAP_MULTI_ADDRESS_SPACE.into()) > 1;
        let slots: &[u32] = if has_smm { &[0, 1 << 16] } else { &[0] };
        // SAFETY: The VM is closed first, by the guest that owns both as well.
        unsafe { equip(&vm, &memory, slots, irqchip) }?;

        prepare(&vm)?;
        let vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
        Ok(Nested {
            vcpu,
            vm,
            folder,
            memory,
            vendor,
        })
    }

    /// The host's kind of virtualisation.
    pub fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// The VM.
    pub fn vm(&self) -> &VmFd {
        &self.vm
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

    /// The vCPU, and the guest's memory.
    pub fn vcpu_and_memory(&mut self) -> (&mut VcpuFd, &Mapping) {
        (&mut self.vcpu, &self.memory)
    }

    /// Loads the code.
    pub fn load(&mut self) {
        layout::load(&mut self.memory);
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// Writes to the guest's memory.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.memory.write(at as usize, bytes);
    }

    /// L2's counter.
    pub fn counter(&self) -> u64 {
        self.word(COUNTER)
    }

    fn word(&self, at: u64) -> u64 {
        let bytes = self.memory.read(at as usize, 8);

        u64::from_le_bytes(bytes.try_into().expect("8 bytes were read"))
    }

    /// The value of the first MSR that was stored on VM-exit.
    pub fn stored(&self) -> u64 {
        self.word(layout::EXIT_STORE_LIST + vmx::VALUE_OFFSET)
    }

    /// Runs the vCPU until it stops.
    pub fn run(&mut self) -> Result<Stop> {
        // `struct kvm_run` has the exit, see below.
        match self.vcpu.run().map(|_| ()).map_err(Errno::from) {
            Err(Errno::EINTR) => return Ok(Stop::Interrupted),
            Err(errno) => return Ok(Stop::Error(errno)),
            Ok(()) => {}
        }
        let run = self.vcpu.get_kvm_run();
        if run.exit_reason != KVM_EXIT_IO {
            return Ok(Stop::Exit(run.exit_reason));
        }
        // SAFETY: For this exit reason, KVM has filled in `io`.
        let port = unsafe { run.__bindgen_anon_1.io.port };

        Ok(match port {
            code::PORT_ENABLED => Stop::Enabled,
            code::PORT_LOADED => Stop::Loaded,
            code::PORT_L2 => Stop::L2,
            code::PORT_L1 => Stop::L1(self.vcpu.get_regs().context("KVM_GET_REGS")?.rbx),
            code::PORT_SMM => Stop::Smm,
            code::PORT_FAILED => Stop::Failed,
            port => bail!("the guest wrote to port {port:#x}"),
        })
    }

    /// Completes the OUT that stopped the vCPU. KVM requires this before its state is saved.
    pub fn complete(&mut self) -> Result<()> {
        self.vcpu.set_kvm_immediate_exit(1);
        let stop = self.run();
        self.vcpu.set_kvm_immediate_exit(0);

        match stop? {
            Stop::Interrupted => Ok(()),
            stop => bail!("{stop} in spite of immediate_exit"),
        }
    }

    /// Like [`Nested::run`], but a signal interrupts it after some seconds.
    pub fn run_for(&mut self, seconds: u32) -> Result<Stop> {
        extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

        register_signal_handler(libc::SIGALRM, ignore).context("SIGALRM")?;
        // SAFETY: The signal has a handler.
        unsafe { libc::alarm(seconds) };
        let stop = self.run();
        // SAFETY: As above.
        unsafe { libc::alarm(0) };
        stop
    }

    /// Runs the vCPU to this stop, past other stops.
    pub fn run_to(&mut self, stop: Stop) -> Result<()> {
        const STOPS: usize = 100;

        for _ in 0..STOPS {
            let reached = self.run()?;

            if reached == stop {
                return Ok(());
            }
            ensure!(
                matches!(
                    reached,
                    Stop::Enabled | Stop::Loaded | Stop::L2 | Stop::L1(_) | Stop::Smm
                ),
                "{reached} before: {stop}"
            );
        }
        bail!("not reached within {STOPS} stops: {stop}")
    }

    /// The stop when L2 exits to L1.
    pub fn exit_to_l1(&self) -> Stop {
        Stop::L1(match self.vendor {
            Vendor::Vmx => vmx::EXIT_VMCALL,
            Vendor::Svm => svm::EXIT_VMMCALL,
        })
    }

    /// Injects an SMI, and runs the vCPU to its handler.
    pub fn enter_smm(&mut self) -> Result<()> {
        self.vcpu.smi().context("KVM_SMI")?;
        self.run_to(Stop::Smm)
    }
}
