// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Saves a VM while L2 runs, and resumes it in another process.
//!
//! The guest, L1, is a small hypervisor on VMX or SVM; its guest, L2, counts. `save` stops the vCPU
//! while it runs L2, and writes the whole state to a file: registers, MSRs, events, FPU, local APIC,
//! guest memory, and nested state, which KVM_GET_NESTED_STATE returns. `restore` creates a new VM
//! from the file and runs it. See `state.rs` for the order of the ioctls.
//!
//! Without a command, the program saves a VM, and starts itself again to restore it.

mod l1;
mod state;
mod svm;
mod vmx;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use clap::Parser;
use clap::Subcommand;
use kvm_ioctls::Kvm;
use kvm_ioctls::KvmNestedStateBuffer;
use kvm_msr_samples::debugfs;
use kvm_msr_samples::memory::PAGE;
use serde::Deserialize;
use serde::Serialize;

use crate::l1::Exit;
use crate::l1::L1;
use crate::state::State;

/// `KVM_STATE_NESTED_FORMAT_VMX`
const FORMAT_VMX: u16 = 0;

/// `KVM_STATE_NESTED_*`
const FLAGS: [(u16, &str); 5] = [
    (1 << 0, "L2 runs"),
    (1 << 1, "L2 is about to run"),
    (1 << 2, "enlightened VMCS"),
    (1 << 3, "monitor trap pending"),
    (1 << 8, "GIF set"),
];

/// Saves a VM while L2 runs, and resumes it in another process.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Runs a VM for a while, and writes it to a file
    Save {
        /// The file to write
        file: PathBuf,
        /// The value of L2's counter at which to stop
        #[arg(long, default_value_t = 20)]
        counts: u64,
    },
    /// Resumes the VM in a file
    Restore {
        /// The file to read
        file: PathBuf,
        /// By how much L2 counts further
        #[arg(long, default_value_t = 20)]
        counts: u64,
    },
    /// Prints the header of the nested state in a file
    Show {
        /// The file to read
        file: PathBuf,
    },
}

/// A VM, as the file has it.
#[derive(Deserialize, Serialize)]
struct Saved {
    state: State,
    /// Page number and content of each page that is not all zeroes.
    memory: Vec<(usize, Vec<u8>)>,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Some(Task::Save { file, counts }) => save(&file, counts),
        Some(Task::Restore { file, counts }) => restore(&file, counts),
        Some(Task::Show { file }) => {
            show(&read(&file)?.state.nested);
            Ok(())
        }
        None => {
            let file = std::env::temp_dir().join(format!("nested-{}.json", std::process::id()));
            let result = save(&file, 20).and_then(|()| restore_in_another_process(&file));

            fs::remove_file(&file).ok();
            result
        }
    }
}

fn restore_in_another_process(file: &Path) -> Result<()> {
    let status = Command::new(std::env::current_exe()?)
        .arg("restore")
        .arg(file)
        .status()
        .context("start another process")?;

    ensure!(status.success(), "the other process failed: {status}");
    Ok(())
}

fn read(file: &Path) -> Result<Saved> {
    let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;

    serde_json::from_slice(&text)
        .with_context(|| format!("{} was not written by `save`", file.display()))
}

/// What serves the VM's MSRs and nested state.
fn served_by(l1: &L1) -> String {
    debugfs::engine(l1.vm()).unwrap_or_else(|| "C".to_owned())
}

fn save(file: &Path, counts: u64) -> Result<()> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut l1 = L1::new(&kvm)?;

    println!(
        "process {}: a new VM, served by {}",
        std::process::id(),
        served_by(&l1)
    );
    count_to(&mut l1, counts)?;
    l1.complete_exit()?;

    let state = State::save(&kvm, l1.vcpu())?;
    let memory = (0..l1.memory().length() / PAGE)
        .map(|page| (page, l1.memory().read(page * PAGE, PAGE)))
        .filter(|(_, bytes)| bytes.iter().any(|&byte| byte != 0))
        .collect();
    show(&state.nested);
    let saved = Saved { state, memory };
    fs::write(file, serde_json::to_vec(&saved)?)
        .with_context(|| format!("write {}", file.display()))?;
    println!(
        "saved to {}: {} MSRs, {} pages of memory",
        file.display(),
        saved.state.msrs.len(),
        saved.memory.len()
    );
    Ok(())
}

fn restore(file: &Path, counts: u64) -> Result<()> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let saved = read(file)?;
    let mut l1 = L1::empty(&kvm)?;

    for (page, bytes) in &saved.memory {
        ensure!(
            *page < l1.memory().length() / PAGE && bytes.len() <= PAGE,
            "{} has a page {page} of {} bytes, which the VM lacks",
            file.display(),
            bytes.len()
        );
        l1.memory_mut().write(page * PAGE, bytes);
    }
    let refused = saved.state.restore(l1.vcpu())?;
    println!(
        "process {}: the VM of {}, served by {}, with L2's counter at {}",
        std::process::id(),
        file.display(),
        served_by(&l1),
        l1.counter()
    );
    for msr in refused {
        println!("  KVM refused MSR {:#x}", msr.index);
    }
    let from = l1.counter();
    count_to(&mut l1, from + counts)
}

/// Runs the VM until L2's counter has this value.
fn count_to(l1: &mut L1, counts: u64) -> Result<()> {
    let mut calls = 0;
    let from = l1.counter();
    let mut last = from;

    while l1.counter() < counts {
        match l1.run()? {
            Exit::L2Counted => {
                let counter = l1.counter();
                ensure!(counter == last + 1, "L2 went from {last} to {counter}");
                last = counter;
            }
            Exit::L2CalledL1 => calls += 1,
        }
    }
    println!("  L2 counted from {from} to {last}, and called L1 {calls} times");
    Ok(())
}

/// Prints the header of a nested state.
fn show(state: &KvmNestedStateBuffer) {
    let flags: Vec<&str> = FLAGS
        .iter()
        .filter(|(flag, _)| state.flags & flag != 0)
        .map(|&(_, name)| name)
        .collect();
    let vmx = state.format == FORMAT_VMX;

    println!(
        "nested state of {}, {} bytes",
        if vmx { "VMX" } else { "SVM" },
        state.size
    );
    println!("  flags     {:#x} ({})", state.flags, flags.join(", "));
    if vmx {
        // SAFETY: All bit patterns are valid, and the format is VMX.
        let header = unsafe { state.hdr.vmx };

        println!("  VMXON at  {:#x}", header.vmxon_pa);
        println!("  VMCS at   {:#x}", header.vmcs12_pa);
        println!("  SMM flags {:#x}", header.smm.flags);
    } else {
        // SAFETY: All bit patterns are valid, and the format is SVM.
        let header = unsafe { state.hdr.svm };

        println!("  VMCB at   {:#x}", header.vmcb_pa);
    }
}
