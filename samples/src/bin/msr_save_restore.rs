// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Saves the MSRs of one vCPU and restores them on a new one, as live migration does. It prints
//! the MSRs that could not be restored.

use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use kvm_ioctls::Kvm;
use kvm_msr_samples::guest::Guest;
use kvm_msr_samples::msrs;

/// MSRs that count time, so that their values differ later: IA32_TSC, Hyper-V's VP runtime and
/// time reference count.
const COUNT_TIME: [u32; 3] = [0x10, 0x4000_0010, 0x4000_0020];

/// Saves a vCPU's MSRs, restores them on another vCPU, and compares.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Do not create the in-kernel irqchip, to see an MSR that depends on it
    #[arg(long)]
    no_irqchip: bool,

    /// Print every MSR
    #[arg(long, short)]
    verbose: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let list = kvm.get_msr_index_list().context("KVM_GET_MSR_INDEX_LIST")?;

    // The source's vCPU has run, and its guest has changed IA32_CR_PAT.
    let mut source = Guest::new(&kvm, !arguments.no_irqchip)?;
    source.wrmsr(0x277, 0x0606_0606_0606_0606)?;
    let (saved, unreadable) = msrs::get_all(source.vcpu(), list.as_slice())?;
    println!(
        "saved {} of the {} MSRs that KVM lists",
        saved.len(),
        list.as_slice().len()
    );
    for index in &unreadable {
        println!("  {index:#010x} could not be read");
    }

    let destination = Guest::new(&kvm, !arguments.no_irqchip)?;
    let refused = msrs::set_all(destination.vcpu(), &saved)?;
    println!("restored {} of them", saved.len() - refused.len());
    for msr in &refused {
        println!("  {:#010x}: KVM refused {:#x}", msr.index, msr.data);
    }

    let indices: Vec<u32> = saved.iter().map(|msr| msr.index).collect();
    let (restored, _) = msrs::get_all(destination.vcpu(), &indices)?;
    let mut changed = 0;
    for restored in &restored {
        let saved = saved.iter().find(|msr| msr.index == restored.index);
        let saved = saved.context("KVM returned another MSR")?.data;
        let was_refused = refused.iter().any(|msr| msr.index == restored.index);

        if saved != restored.data && !was_refused && !COUNT_TIME.contains(&restored.index) {
            changed += 1;
            println!(
                "  {:#010x}: was {saved:#x}, is {:#x}",
                restored.index, restored.data
            );
        } else if arguments.verbose {
            println!("  {:#010x}: {:#x}", restored.index, restored.data);
        }
    }

    let failed = changed + refused.len() + unreadable.len();
    if failed > 0 {
        println!("{failed} MSRs could not be read, were refused, or changed");
        return Ok(ExitCode::FAILURE);
    }
    println!("all MSRs were restored (those that count time are not compared)");
    Ok(ExitCode::SUCCESS)
}
