// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A VM with one vCPU to try MSRs on: by ioctl, and by RDMSR and WRMSR of a small guest.
//!
//! The guest runs in 32-bit protected mode without paging. RIP is set to an RDMSR or WRMSR, the
//! registers to the index and the value. An OUT reports the result.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::KVM_MSR_EXIT_REASON_INVAL;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_bindings::kvm_enable_cap;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::Kvm;
use kvm_ioctls::MsrExitReason;
use kvm_ioctls::VcpuExit;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion;

use crate::cpuid::Cpuid;
use crate::error::Error;
use crate::error::Result;
use crate::ioctl;

/// The path of KVM's device.
pub const DEVICE: &str = "/dev/kvm";

/// Opens KVM.
///
/// # Errors
///
/// [`Error::Missing`] with advice, if it does not exist or can't be opened.
pub fn open(device: &Path) -> Result<Kvm> {
    let path = CString::new(device.as_os_str().as_bytes())
        .map_err(|_| Error::Input(format!("{} is not a path", device.display())))?;
    let shown = device.display();
    let kvm = Kvm::new_with_path(path).map_err(|error| {
        let error = io::Error::from(error);

        Error::Missing(match error.kind() {
            io::ErrorKind::NotFound => format!(
                "{shown} does not exist: load kvm-amd or kvm-intel (modprobe), and enable \
                 virtualisation in the firmware; see 'kvmsr doctor'"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "you may not open {shown}: run this as root, or become a member of its group \
                 (usually kvm); see 'kvmsr doctor'"
            ),
            _ => format!("{shown} can't be opened: {error}; see 'kvmsr doctor'"),
        })
    })?;

    match kvm.get_api_version() {
        12 => Ok(kvm),
        _ => Err(Error::Missing(format!("{shown} is not KVM"))),
    }
}

/// The setup of a [`Scratch`].
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The vCPU's CPUID.
    pub cpuid: Cpuid,
    /// Whether to create the in-kernel interrupt controllers.
    pub irqchip: bool,
    /// Whether a guest's failed access exits to user space, see [`Outcome::Refused`].
    pub reasons: bool,
}

/// Why KVM refuses a guest's access (`KVM_MSR_EXIT_REASON_*`).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// It does not know the MSR.
    Unknown,
    /// It knows the MSR, but refuses this access or value.
    Invalid,
    /// The filter denies it.
    Filter,
    /// Unknown: such exits are not enabled, or not supported.
    Unsaid,
}

/// The result of a guest's access.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// RDMSR read a value.
    Value(u64),
    /// WRMSR succeeded.
    Done,
    /// The guest got #GP.
    Refused(Reason),
    /// The guest got another exception.
    Exception(u8),
    /// The vCPU can't continue: it shut down, or KVM_RUN failed.
    Dead(String),
}

/// Size of guest memory in bytes, from guest-physical address 0.
///
/// Nothing is at a power of two: KVM writes a clock to the address in some MSRs, and probing sets
/// each single bit.
const MEMORY: usize = 0x10000;
const GDT: u64 = 0x9000;
const IDT: u64 = 0xa000;
const TSS: u64 = 0xb000;
const STACK_TOP: u64 = 0x5000;

/// RDMSR; OUT 0xb0, AL.
const RDMSR: (u64, &[u8]) = (0x6000, &[0x0f, 0x32, 0xe6, PORT_DONE]);
/// WRMSR; OUT 0xb0, AL.
const WRMSR: (u64, &[u8]) = (0x6010, &[0x0f, 0x30, 0xe6, PORT_DONE]);
/// OUT 0xb0, AL.
const NOTHING: (u64, &[u8]) = (0x6020, &[0xe6, PORT_DONE]);
/// RDMSR, ESI times; OUT 0xb0, AL.
const RDMSR_LOOP: (u64, &[u8]) = (0x6030, &[0x0f, 0x32, 0x4e, 0x75, 0xfb, 0xe6, PORT_DONE]);
/// WRMSR, ESI times; OUT 0xb0, AL.
const WRMSR_LOOP: (u64, &[u8]) = (0x6040, &[0x0f, 0x30, 0x4e, 0x75, 0xfb, 0xe6, PORT_DONE]);
/// For each exception: OUT to its port, and a jump back.
const EXCEPTIONS: u64 = 0x7000;
const EXCEPTION_SIZE: u64 = 4;
const NR_EXCEPTIONS: u8 = 32;
const PORT_DONE: u8 = 0xb0;
/// The port of exception 0.
const PORT_EXCEPTION: u8 = 0xc0;
const GENERAL_PROTECTION: u8 = 13;

const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
const TSS_SELECTOR: u16 = 0x18;
const RFLAGS_FIXED: u64 = 1 << 1;

/// A VM with one vCPU.
#[derive(Debug)]
pub struct Scratch {
    // Dropped in this order: KVM uses the memory until VM and vCPU are closed.
    vcpu: VcpuFd,
    vm: VmFd,
    memory: Vec<GuestMemoryMmap>,
    has_run: bool,
}

impl Scratch {
    /// Creates the VM and its vCPU.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`] with the ioctl that failed.
    pub fn new(kvm: &Kvm, setup: &Setup) -> Result<Self> {
        let memory = guest_memory()?;
        let vm = kvm.create_vm().map_err(Error::kvm("KVM_CREATE_VM"))?;

        // Three pages that are not guest memory, for VMX without unrestricted guests.
        vm.set_tss_address(0xfffb_d000)
            .map_err(Error::kvm("KVM_SET_TSS_ADDR"))?;
        if setup.irqchip {
            vm.create_irq_chip()
                .map_err(Error::kvm("KVM_CREATE_IRQCHIP"))?;
        }
        if setup.reasons {
            let mut reasons = kvm_enable_cap {
                cap: KVM_CAP_X86_USER_SPACE_MSR,
                ..Default::default()
            };

            reasons.args[0] = u64::from(
                KVM_MSR_EXIT_REASON_UNKNOWN
                    | KVM_MSR_EXIT_REASON_INVAL
                    | KVM_MSR_EXIT_REASON_FILTER,
            );
            vm.enable_cap(&reasons).map_err(|error| {
                Error::Missing(format!(
                    "this kernel does not report why it refuses an access \
                     (KVM_CAP_X86_USER_SPACE_MSR, Linux 5.10): {error}"
                ))
            })?;
        }
        give_memory(&vm, 0, &memory)?;
        let vcpu = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;

        if !setup.cpuid.0.is_empty() {
            vcpu.set_cpuid2(&setup.cpuid.to_kvm()?)
                .map_err(Error::kvm("KVM_SET_CPUID2"))?;
        }
        set_protected_mode(&vcpu)?;
        Ok(Scratch {
            vcpu,
            vm,
            memory: vec![memory],
            has_run: false,
        })
    }

    /// Adds a page to the guest's memory, which contains a guest-physical address.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`] if KVM can't add memory there, or there is some.
    pub fn add_page(&mut self, address: u64) -> Result<()> {
        const PAGE: u64 = 0x1000;
        let page = GuestMemoryMmap::<()>::from_ranges(&[(
            GuestAddress(address & !(PAGE - 1)),
            PAGE as usize,
        )])
        .map_err(|error| Error::Io {
            what: "guest memory".to_owned(),
            source: io::Error::other(error.to_string()),
        })?;

        give_memory(&self.vm, self.memory.len() as u32, &page)?;
        self.memory.push(page);
        Ok(())
    }

    /// The VM, for other ioctls.
    pub fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// The vCPU, for other ioctls.
    pub fn vcpu(&self) -> &VcpuFd {
        &self.vcpu
    }

    /// Whether the vCPU has run, so that feature MSRs can't change.
    pub fn has_run(&self) -> bool {
        self.has_run
    }

    /// `KVM_GET_MSRS` of one MSR; none if KVM refuses it.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`] if the ioctl as a whole fails.
    pub fn get(&self, index: u32) -> Result<Option<u64>> {
        ioctl::get_msr(&self.vcpu, index).map_err(Error::kvm("KVM_GET_MSRS"))
    }

    /// `KVM_SET_MSRS` of one MSR; false if KVM refuses it.
    ///
    /// # Errors
    ///
    /// As [`Scratch::get`].
    pub fn set(&self, index: u32, value: u64) -> Result<bool> {
        ioctl::set_msr(&self.vcpu, index, value).map_err(Error::kvm("KVM_SET_MSRS"))
    }

    /// `KVM_GET_ONE_REG` of one MSR; none if KVM refuses it.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] on kernels before Linux 6.18; [`Error::Kvm`] if it fails otherwise.
    pub fn get_one_reg(&self, index: u32) -> Result<Option<u64>> {
        match ioctl::get_one_reg(&self.vcpu, index) {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.one_reg_refusal(error).map(|()| None),
        }
    }

    /// `KVM_SET_ONE_REG` of one MSR; false if KVM refuses it.
    ///
    /// # Errors
    ///
    /// As [`Scratch::get_one_reg`].
    pub fn set_one_reg(&self, index: u32, value: u64) -> Result<bool> {
        match ioctl::set_one_reg(&self.vcpu, index, value) {
            Ok(()) => Ok(true),
            Err(error) => self.one_reg_refusal(error).map(|()| false),
        }
    }

    /// Distinguishes a refused MSR from a kernel without the ioctl: both fail with `EINVAL`.
    fn one_reg_refusal(&self, error: io::Error) -> Result<()> {
        if error.raw_os_error() == Some(EINVAL) && ioctl::one_reg_list(&self.vcpu).is_ok() {
            return Ok(());
        }
        if ioctl::one_reg_list(&self.vcpu).is_err() {
            return Err(Error::Missing(
                "this kernel lacks KVM_GET_ONE_REG for MSRs, which needs Linux 6.18".to_owned(),
            ));
        }
        Err(Error::kvm("KVM_GET_ONE_REG")(error))
    }

    /// Has the guest execute RDMSR.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`] with the ioctl that failed.
    pub fn rdmsr(&mut self, index: u32) -> Result<Outcome> {
        let outcome = self.execute(RDMSR.0, index, 0, 1)?;

        if outcome != Outcome::Done {
            return Ok(outcome);
        }
        let regs = self.vcpu.get_regs().map_err(Error::kvm("KVM_GET_REGS"))?;

        Ok(Outcome::Value(regs.rdx << 32 | regs.rax & 0xffff_ffff))
    }

    /// Has the guest execute WRMSR.
    ///
    /// # Errors
    ///
    /// As [`Scratch::rdmsr`].
    pub fn wrmsr(&mut self, index: u32, value: u64) -> Result<Outcome> {
        self.execute(WRMSR.0, index, value, 1)
    }

    /// Has the guest execute RDMSR in a loop.
    ///
    /// # Errors
    ///
    /// As [`Scratch::rdmsr`].
    pub fn rdmsr_loop(&mut self, index: u32, count: u32) -> Result<Outcome> {
        self.execute(RDMSR_LOOP.0, index, 0, count)
    }

    /// Has the guest execute WRMSR in a loop.
    ///
    /// # Errors
    ///
    /// As [`Scratch::rdmsr`].
    pub fn wrmsr_loop(&mut self, index: u32, value: u64, count: u32) -> Result<Outcome> {
        self.execute(WRMSR_LOOP.0, index, value, count)
    }

    /// Runs the vCPU without an access to an MSR.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`] if it fails.
    pub fn run_once(&mut self) -> Result<()> {
        match self.execute(NOTHING.0, 0, 0, 1)? {
            Outcome::Done => Ok(()),
            outcome => Err(Error::Kvm {
                ioctl: "KVM_RUN",
                source: io::Error::other(format!("the guest ended unexpectedly: {outcome:?}")),
            }),
        }
    }

    fn execute(&mut self, rip: u64, index: u32, value: u64, count: u32) -> Result<Outcome> {
        let regs = kvm_regs {
            rip,
            rsp: STACK_TOP,
            rflags: RFLAGS_FIXED,
            rax: value & 0xffff_ffff,
            rdx: value >> 32,
            rcx: index.into(),
            rsi: count.into(),
            ..Default::default()
        };

        self.vcpu
            .set_regs(&regs)
            .map_err(Error::kvm("KVM_SET_REGS"))?;
        self.has_run = true;
        loop {
            let (error, said) = match self.vcpu.run() {
                Ok(VcpuExit::IoOut(port, _)) => return Ok(reported(port)),
                Ok(VcpuExit::X86Rdmsr(exit)) => (exit.error, exit.reason),
                Ok(VcpuExit::X86Wrmsr(exit)) => (exit.error, exit.reason),
                Ok(exit) => return Ok(Outcome::Dead(format!("{exit:?}"))),
                Err(error) if error.errno() == EINTR => continue,
                Err(error) => return Ok(Outcome::Dead(format!("KVM_RUN: {error}"))),
            };
            let reason = if said.contains(MsrExitReason::Filter) {
                Reason::Filter
            } else if said.contains(MsrExitReason::Inval) {
                Reason::Invalid
            } else {
                Reason::Unknown
            };

            // The access ends with #GP, as without exits to user space.
            *error = 1;
            self.complete()?;
            return Ok(Outcome::Refused(reason));
        }
    }

    /// Completes an exit without running the guest. The next `KVM_SET_REGS` drops the #GP that KVM
    /// injects.
    fn complete(&mut self) -> Result<()> {
        self.vcpu.set_kvm_immediate_exit(1);
        let run = self.vcpu.run().map(|exit| format!("{exit:?}"));

        self.vcpu.set_kvm_immediate_exit(0);
        match run {
            Err(error) if error.errno() == EINTR => Ok(()),
            Err(error) => Err(Error::kvm("KVM_RUN")(error)),
            Ok(exit) => Err(Error::Kvm {
                ioctl: "KVM_RUN",
                source: io::Error::other(format!("the guest continued to {exit}")),
            }),
        }
    }
}

const EINTR: i32 = 4;
const EINVAL: i32 = 22;

/// The result that the guest reports by an OUT to a port.
fn reported(port: u16) -> Outcome {
    match u8::try_from(port) {
        Ok(PORT_DONE) => Outcome::Done,
        Ok(port @ PORT_EXCEPTION..) if port - PORT_EXCEPTION < NR_EXCEPTIONS => {
            match port - PORT_EXCEPTION {
                GENERAL_PROTECTION => Outcome::Refused(Reason::Unsaid),
                vector => Outcome::Exception(vector),
            }
        }
        _ => Outcome::Dead(format!("the guest wrote to port {port:#x}")),
    }
}

/// Memory with descriptor tables and code.
fn guest_memory() -> Result<GuestMemoryMmap> {
    // Base, limit and type of the descriptors. All are flat except the task state.
    const FLAT_CODE: u64 = 0x00cf_9b00_0000_ffff;
    const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;
    const BUSY_TSS: u64 = 0x0000_8b00_0000_0067 | TSS << 16;
    // A present 32-bit interrupt gate for ring 0.
    const GATE: u64 = 0x8e00 << 32 | (CODE_SELECTOR as u64) << 16;
    let failed = |what: &dyn std::fmt::Display| Error::Io {
        what: "guest memory".to_owned(),
        source: io::Error::other(what.to_string()),
    };
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)])
        .map_err(|error| failed(&error))?;
    let write = |at: u64, bytes: &[u8]| {
        memory
            .write_slice(bytes, GuestAddress(at))
            .map_err(|error| failed(&error))
    };

    for (at, descriptor) in (GDT..).step_by(8).zip([0, FLAT_CODE, FLAT_DATA, BUSY_TSS]) {
        write(at, &descriptor.to_le_bytes())?;
    }
    for vector in 0..NR_EXCEPTIONS {
        let code = EXCEPTIONS + EXCEPTION_SIZE * u64::from(vector);

        write(
            IDT + 8 * u64::from(vector),
            &(GATE | code & 0xffff).to_le_bytes(),
        )?;
        write(code, &[0xe6, PORT_EXCEPTION + vector, 0xeb, 0xfc])?;
    }
    for (at, code) in [RDMSR, WRMSR, NOTHING, RDMSR_LOOP, WRMSR_LOOP] {
        write(at, code)?;
    }
    Ok(memory)
}

#[allow(unsafe_code)]
fn give_memory(vm: &VmFd, slot: u32, memory: &GuestMemoryMmap) -> Result<()> {
    let failed = |what: String| Error::Io {
        what: "guest memory".to_owned(),
        source: io::Error::other(what),
    };
    let given = memory
        .iter()
        .next()
        .ok_or_else(|| failed("it is empty".to_owned()))?;
    let address = memory
        .get_host_address(given.start_addr())
        .map_err(|error| failed(error.to_string()))?;
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: given.start_addr().0,
        memory_size: given.len(),
        userspace_addr: address.expose_provenance() as u64,
    };

    // SAFETY: The memory is mapped as long as the VM is open, because `Scratch` drops it last. It
    // is only accessed by volatile operations of vm-memory.
    unsafe { vm.set_user_memory_region(region) }.map_err(Error::kvm("KVM_SET_USER_MEMORY_REGION"))
}

/// Protected mode without paging, in flat segments.
fn set_protected_mode(vcpu: &VcpuFd) -> Result<()> {
    const CR0_PE: u64 = 1 << 0;
    const CR0_ET: u64 = 1 << 4;
    const CR0_NE: u64 = 1 << 5;
    const CR4_PAE: u64 = 1 << 5;
    let segment = |selector, type_| kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let mut sregs = vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
    let data = segment(DATA_SELECTOR, 3);

    sregs.cs = segment(CODE_SELECTOR, 11);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
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
    sregs.idt.limit = u16::from(NR_EXCEPTIONS) * 8 - 1;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_NE;
    // It has no effect without paging. Without it, a guest that sets EFER.LME brings emulators of
    // SVM into an inconsistent state.
    sregs.cr4 |= CR4_PAE;
    vcpu.set_sregs(&sregs).map_err(Error::kvm("KVM_SET_SREGS"))
}
