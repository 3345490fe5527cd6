// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Writes the MSRs of a guest that runs to a file that `kvmsr` takes.
//!
//! KVM gives a VM's MSRs to nobody but its VMM. So this is what a VMM does that is to answer
//! "would my guest be restored over there?": it stops the vCPU, and has kvmsr's library take the
//! snapshot. Copy the file to the other host, and ask there:
//!
//! ```text
//! msr_snapshot guest.json
//! kvmsr check guest.json
//! kvmsr snapshot -o fresh.json && kvmsr diff fresh.json guest.json
//! ```
//!
//! The guest is real-mode code of a few bytes. It sets up what an operating system would.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use clap::Parser;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuExit;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use kvmsr::formats;
use kvmsr::formats::Format;
use kvmsr::snapshot::Snapshot;

/// Runs a guest, and writes its MSRs to a file.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to
    #[arg(default_value = "guest.json")]
    file: PathBuf,
}

/// What the guest writes: IA32_CR_PAT, a variable MTRR and the default type, SYSENTER's, STAR,
/// KERNEL_GS_BASE.
const GUEST_WRITES: &[(u32, u64)] = &[
    (0x277, 0x0007_0105_0007_0406),
    (0x200, 0x8000_0000),
    (0x201, 0xff_8000_0800),
    (0x2ff, 0xc06),
    (0x174, 0x10),
    (0xc000_0081, 0x0023_0010_0000_0000),
    (0xc000_0102, 0x7fff_1234_5000),
];

/// The port by which the guest says that it is done.
const PORT: u8 = 0x80;

/// All of the guest's memory.
#[repr(align(4096))]
struct Page([u8; 4096]);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kvm = Kvm::new().context("open /dev/kvm")?;
    // The vCPU and the VM are closed before the memory goes.
    let mut page = Box::new(Page([0; 4096]));
    let (_vm, mut vcpu) = boot(&kvm, &mut page)?;

    run(&mut vcpu)?;

    // The vCPU is stopped, so nothing changes meanwhile. This is all that there is to it.
    let snapshot = Snapshot::of_vcpu(&kvm, &vcpu)?;

    fs::write(&arguments.file, formats::write(Format::Kvmsr, &snapshot)?)
        .with_context(|| format!("write {}", arguments.file.display()))?;
    println!(
        "{} MSRs of the guest are in {}",
        snapshot.msrs.len(),
        arguments.file.display()
    );
    Ok(())
}

/// A VM of one vCPU, which is about to execute the first byte of its memory.
fn boot(kvm: &Kvm, page: &mut Page) -> Result<(VmFd, VcpuFd)> {
    let code = guest_code();

    page.0[..code.len()].copy_from_slice(&code);
    let vm = kvm.create_vm().context("KVM_CREATE_VM")?;

    vm.set_tss_address(0xfffb_d000)
        .context("KVM_SET_TSS_ADDR")?;
    vm.create_irq_chip().context("KVM_CREATE_IRQCHIP")?;
    let memory = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: page.0.len() as u64,
        userspace_addr: page.0.as_mut_ptr().expose_provenance() as u64,
    };

    // SAFETY: main() has the page for as long as the VM, and does not look into it.
    unsafe { vm.set_user_memory_region(memory) }.context("KVM_SET_USER_MEMORY_REGION")?;
    let vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .context("KVM_GET_SUPPORTED_CPUID")?;

    vcpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;
    let mut sregs = vcpu.get_sregs().context("KVM_GET_SREGS")?;
    let mut regs = vcpu.get_regs().context("KVM_GET_REGS")?;

    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    regs.rip = 0;
    vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")?;
    vcpu.set_regs(&regs).context("KVM_SET_REGS")?;
    Ok((vm, vcpu))
}

/// The WRMSRs, and an OUT.
fn guest_code() -> Vec<u8> {
    let mut code = Vec::new();
    // MOV of 32 bits to a register, in 16-bit code.
    let load = |code: &mut Vec<u8>, opcode, value: u32| {
        code.extend([0x66, opcode]);
        code.extend(value.to_le_bytes());
    };

    for &(index, value) in GUEST_WRITES {
        load(&mut code, 0xb9, index); // ECX
        load(&mut code, 0xb8, value as u32); // EAX
        load(&mut code, 0xba, (value >> 32) as u32); // EDX
        code.extend([0x0f, 0x30]); // WRMSR
    }
    code.extend([0xe6, PORT]); // OUT
    code
}

/// Runs the guest until it is done.
fn run(vcpu: &mut VcpuFd) -> Result<()> {
    match vcpu.run().context("KVM_RUN")? {
        VcpuExit::IoOut(port, _) if port == u16::from(PORT) => Ok(()),
        exit => bail!("the guest did not come to its end: {exit:?}"),
    }
}
