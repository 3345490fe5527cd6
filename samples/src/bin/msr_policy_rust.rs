// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A VMM that sets a policy for the MSRs of its guest, by `/dev/kvm-msr`.
//!
//! The policy has a constant, a write of which only some bits take effect, a write that gets #GP,
//! MSRs that KVM lacks and that are ignored, and an MSR for which user space answers. The guest then
//! executes one RDMSR or WRMSR at a time, and the program prints what the guest saw.
//!
//! kvmsr's library has the ioctls and their structures. `msr_policy.c` does and prints the same in C
//! with the header `kvm-msr.h`.

use std::os::fd::AsRawFd;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use clap::Parser;
use kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR;
use kvm_bindings::kvm_enable_cap;
use kvm_ioctls::Kvm;
use kvm_ioctls::MsrExitReason;
use kvm_ioctls::VcpuExit;
use kvm_msr_samples::guest::Guest;
use kvm_msr_samples::guest::Instruction;
use kvm_msr_samples::guest::PORT_DONE;
use kvm_msr_samples::guest::PORT_GP;
use kvmsr::device::Device;
use kvmsr::device::Rights;
use kvmsr::device::VmFd;
use kvmsr::policy::Policy;

/// Shows what a policy does.
#[derive(Parser)]
#[command(version)]
struct Arguments {}

const POLICY: &str = "
# The guest sees the same microcode on all hosts.
constant=0x2600000000 read IA32_BIOS_SIGN_ID
# The guest may choose the first of the eight memory types only.
mask=0xff write IA32_PAT
# KVM passes this MSR through to the guest if no rule covers it.
gp write IA32_SYSENTER_CS
exit 0x4b560001
# kvm.ignore_msrs for one VM. The x2APIC's MSRs between these ranges can't have rules.
ignore when unsupported 0x0-0x7ff 0x900-0xffffffff
";

/// What this VMM answers to a read of 0x4b560001.
const VMM_VALUE: u64 = 0x1122_3344_5566_7788;

/// What the guest does.
const ACCESSES: &[(u32, Instruction)] = &[
    (0x8b, Instruction::Rdmsr),
    (0x277, Instruction::Rdmsr),
    (0x277, Instruction::Wrmsr(0x0101_0101_0101_0101)),
    (0x277, Instruction::Rdmsr),
    (0x174, Instruction::Wrmsr(0x10)),
    (0x174, Instruction::Rdmsr),
    (0x4b56_0000, Instruction::Rdmsr),
    (0x4b56_0000, Instruction::Wrmsr(0x1)),
    (0x4b56_0001, Instruction::Rdmsr),
    (0x4b56_0001, Instruction::Wrmsr(0x99)),
];

fn main() -> Result<()> {
    Arguments::parse();
    // Before the VM is created, so that the module is loaded by then.
    let device = Device::open()?;
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut guest = Guest::new(&kvm, false)?;

    set_policy(device, &guest)?;
    enable_exits(&guest)?;
    for &(index, instruction) in ACCESSES {
        access(&mut guest, index, instruction)?;
    }
    Ok(())
}

/// Sets the policy. It lasts until the VM ends, longer than the file is open.
fn set_policy(device: Device, guest: &Guest) -> Result<()> {
    let policy = Policy::parse(POLICY)?;
    // A second descriptor of the VM, as `VmFd` of kvm-ioctls is no `AsFd`. It is closed below, so
    // that it does not keep the VM.
    let vm = VmFd::inherited(guest.vm().as_raw_fd())?;

    device
        .attach(&vm, Rights::POLICY)?
        .set_policy(&policy.rules(), false)?;
    Ok(())
}

/// Has `exit` exit to user space: it counts as the filter if the rule applies always.
fn enable_exits(guest: &Guest) -> Result<()> {
    guest
        .vm()
        .enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_X86_USER_SPACE_MSR,
            args: [MsrExitReason::Filter.bits().into(), 0, 0, 0],
            ..Default::default()
        })
        .context("KVM_CAP_X86_USER_SPACE_MSR")
}

/// Executes one access, and prints what the guest saw.
fn access(guest: &mut Guest, index: u32, instruction: Instruction) -> Result<()> {
    let mut by = "";

    guest.start(instruction, index)?;
    let succeeded = loop {
        match guest.run()? {
            VcpuExit::X86Rdmsr(exit) => *exit.data = VMM_VALUE,
            // With an error other than 0, KVM would inject #GP.
            VcpuExit::X86Wrmsr(exit) => *exit.error = 0,
            VcpuExit::IoOut(PORT_DONE, _) => break true,
            VcpuExit::IoOut(PORT_GP, _) => break false,
            exit => bail!("the access of {index:#x} ended with {exit:?}"),
        }
        by = ", by user space";
    };

    let title = match instruction {
        Instruction::Rdmsr => format!("RDMSR {index:#x}"),
        Instruction::Wrmsr(value) => format!("WRMSR {index:#x} with {value:#x}"),
    };
    let result = match (succeeded, instruction) {
        (false, _) => "#GP".to_owned(),
        (true, Instruction::Rdmsr) => format!("{:#x}", guest.value()?),
        (true, Instruction::Wrmsr(_)) => "done".to_owned(),
    };

    println!("{title}: {result}{by}");
    Ok(())
}
