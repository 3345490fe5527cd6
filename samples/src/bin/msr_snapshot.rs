// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Writes the MSRs of a running guest to a file that `kvmsr` reads.
//!
//! KVM lets only a VMM access the MSRs of its VMs. So a VMM has to write the file that answers
//! "would this guest be restored on that host?". It stops the vCPU, and calls kvmsr's library.
//! Copy the file to the other host, and check it there:
//!
//! ```text
//! msr_snapshot guest.json
//! kvmsr check guest.json
//! kvmsr snapshot -o fresh.json && kvmsr diff fresh.json guest.json
//! ```

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use kvm_ioctls::Kvm;
use kvm_msr_samples::guest::Guest;
use kvmsr::formats;
use kvmsr::formats::Format;
use kvmsr::snapshot::Snapshot;

/// Runs a guest, and writes its MSRs to a file.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The file to write
    #[arg(default_value = "guest.json")]
    file: PathBuf,
}

/// The guest sets these MSRs, as an operating system would.
const GUEST_WRITES: &[(u32, u64)] = &[
    (0x277, 0x0007_0105_0007_0406),       // IA32_PAT
    (0x200, 0x8000_0000),                 // IA32_MTRR_PHYSBASE0
    (0x201, 0xff_8000_0800),              // IA32_MTRR_PHYSMASK0
    (0x2ff, 0xc06),                       // IA32_MTRR_DEF_TYPE
    (0x174, 0x10),                        // IA32_SYSENTER_CS
    (0xc000_0081, 0x0023_0010_0000_0000), // STAR
    (0xc000_0102, 0x7fff_1234_5000),      // KERNEL_GS_BASE
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut guest = Guest::new(&kvm, true)?;

    for &(index, value) in GUEST_WRITES {
        guest.wrmsr(index, value)?;
    }

    // The vCPU is stopped, so its state does not change meanwhile.
    let snapshot = Snapshot::of_vcpu(&kvm, guest.vcpu())?;

    fs::write(&arguments.file, formats::write(Format::Kvmsr, &snapshot)?)
        .with_context(|| format!("write {}", arguments.file.display()))?;
    println!(
        "wrote {} MSRs of the guest to {}",
        snapshot.msrs.len(),
        arguments.file.display()
    );
    Ok(())
}
