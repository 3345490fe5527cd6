// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A guest that is a hypervisor: L1, with a guest of its own, L2, that counts.
//!
//! L2 says so by an OUT each time it has counted on, which its L1 does not
//! intercept and so is for user space; after some it exits to L1, which lets it
//! go on. See [`code`] for where else user space gets to know.

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
    /// What KVM lets guests have.
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
    /// On VMX, vmcs12 has a shadow.
    pub shadow: bool,
    /// On SVM, L1 has L2 use nested paging.
    pub nested_paging: bool,
}

impl Options {
    /// None of these.
    pub fn new(engine: Engine) -> Self {
        Options {
            engine,
            irqchip: false,
            shadow: false,
            nested_paging: false,
        }
    }
}

/// Where the guest is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// L1 is in VMX operation, or has SVM enabled.
    Enabled,
    /// L1 is about to enter L2 for the first time.
    Loaded,
    /// L2 has counted on.
    L2,
    /// L1 has got an exit of L2's, for this reason.
    L1(u64),
    /// The SMI handler.
    Smm,
    /// An instruction of L1's failed.
    Failed,
    /// A signal came in.
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
            Stop::L2 => f.write_str("L2 has counted on"),
            Stop::L1(reason) => write!(f, "L2 has exited to L1, reason {reason:#x}"),
            Stop::Smm => f.write_str("in the SMI handler"),
            Stop::Failed => f.write_str("an instruction of L1's failed"),
            Stop::Interrupted => f.write_str("a signal came in"),
            Stop::Error(errno) => write!(f, "KVM_RUN: {errno}"),
            Stop::Exit(reason) => write!(f, "exit reason {reason}"),
        }
    }
}

/// A VM with one vCPU, on which L1 runs.
#[derive(Debug)]
pub struct Nested {
    // Closed in this order: the guest's memory has to be the last to go.
    vcpu: VcpuFd,
    vm: VmFd,
    folder: VmFolder,
    memory: Mapping,
    vendor: Vendor,
}

impl Nested {
    /// Creates the VM, with L1 at its start.
    pub fn new(kvm: &Kvm, options: Options) -> Result<Self> {
        let mut nested = Self::empty(kvm, options.engine, options.irqchip)?;
        let mut sregs = nested.vcpu.get_sregs().context("KVM_GET_SREGS")?;
        let mut regs = kvm_regs {
            rsp: layout::L1_STACK,
            rflags: 2,
            // L2's, which has no other way to know.
            rdi: COUNTER,
            ..Default::default()
        };

        layout::load(&mut nested.memory);
        layout::set_long_mode(&mut sregs);
        match nested.vendor {
            Vendor::Vmx => {
                let revision = vmx::enable(&nested.vcpu)?;

                for region in [layout::HOST_AREA, layout::CONTROL] {
                    nested.write(region, &revision.to_le_bytes());
                }
                nested.write(
                    layout::SHADOW,
                    &vmx::shadow_revision(revision).to_le_bytes(),
                );
                sregs.cr4 |= layout::CR4_VMXE;
                let words = vmx::parameters(&nested.vcpu, sregs.cr4, options.shadow)?;
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                nested.write(layout::PARAMETERS, &bytes);
                regs.rip = layout::CODE + Entry::Vmx.offset() as u64;
                regs.rsi = layout::PARAMETERS;
            }
            Vendor::Svm => {
                svm::load(&mut nested.memory, options.nested_paging);
                sregs.efer |= layout::EFER_SVME;
                regs.rip = layout::CODE + Entry::Svm.offset() as u64;
                regs.rax = layout::CONTROL;
            }
        }
        nested.vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")?;
        nested.vcpu.set_regs(&regs).context("KVM_SET_REGS")?;
        if nested.vendor == Vendor::Svm {
            svm::enable(&nested.vcpu)?;
        }
        Ok(nested)
    }

    /// Creates the VM with nothing in its memory, and the vCPU as after reset.
    pub fn empty(kvm: &Kvm, engine: Engine, irqchip: bool) -> Result<Self> {
        let vendor = Vendor::of(kvm)?;
        // Before the VM, so that it is dropped after it, whatever fails.
        let memory = Mapping::new(MEMORY).context("map guest memory")?;
        let (vm, folder) = engine.create_vm(kvm)?;

        // SMM has an address space of its own.
        // SAFETY: The VM is closed first, by the guest that owns both as well.
        unsafe { equip(&vm, &memory, &[0, 1 << 16], irqchip) }?;

        let vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;
        vcpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;
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

    /// The VM's folder in debugfs.
    pub fn folder(&self) -> &VmFolder {
        &self.folder
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// Writes to the guest's memory.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.memory.write(at as usize, bytes);
    }

    /// How far L2 has counted.
    pub fn counter(&self) -> u64 {
        let bytes = self.memory.read(COUNTER as usize, 8);

        u64::from_le_bytes(bytes.try_into().expect("8 bytes were read"))
    }

    /// Runs the vCPU until something happens.
    pub fn run(&mut self) -> Result<Stop> {
        // The exit is looked up in `struct kvm_run` below.
        match self.vcpu.run().map(|_| ()).map_err(Errno::from) {
            Err(Errno::EINTR) => return Ok(Stop::Interrupted),
            Err(errno) => return Ok(Stop::Error(errno)),
            Ok(()) => {}
        }
        let run = self.vcpu.get_kvm_run();
        if run.exit_reason != KVM_EXIT_IO {
            return Ok(Stop::Exit(run.exit_reason));
        }
        // SAFETY: KVM has filled in `io` for this exit reason.
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

    /// Does what [`Nested::run`] does, but not forever: after some seconds, a
    /// signal comes in.
    pub fn run_for(&mut self, seconds: u32) -> Result<Stop> {
        extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

        register_signal_handler(libc::SIGALRM, ignore).context("SIGALRM")?;
        // SAFETY: The signal is handled.
        unsafe { libc::alarm(seconds) };
        let stop = self.run();
        // SAFETY: As above.
        unsafe { libc::alarm(0) };
        stop
    }

    /// Completes the last stop, as what is left of it, e.g. the way past the
    /// instruction, is in no state that could be saved.
    pub fn complete(&mut self) -> Result<()> {
        self.vcpu.set_kvm_immediate_exit(1);
        let stop = self.run();
        self.vcpu.set_kvm_immediate_exit(0);

        ensure!(
            stop? == Stop::Interrupted,
            "the last stop could not be completed"
        );
        Ok(())
    }

    /// Runs the vCPU to a stop, by way of others.
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
                "{reached} on the way to: {stop}"
            );
        }
        bail!("not reached within {STOPS} stops: {stop}")
    }

    /// The reason for which L2 exits to L1 in time.
    pub fn exit_to_l1(&self) -> Stop {
        Stop::L1(match self.vendor {
            Vendor::Vmx => vmx::EXIT_VMCALL,
            Vendor::Svm => svm::EXIT_VMMCALL,
        })
    }

    /// Lets an SMI come in, and runs the vCPU to its handler.
    pub fn enter_smm(&mut self) -> Result<()> {
        self.vcpu.smi().context("KVM_SMI")?;
        self.run_to(Stop::Smm)
    }
}
