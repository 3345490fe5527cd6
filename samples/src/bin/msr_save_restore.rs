// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Saves the MSRs of one vCPU and restores them into a fresh one, as a live
//! migration does, and says which MSR did not make it.
//!
//! KVM_GET_MSRS and KVM_SET_MSRS stop at the first MSR that fails and return how
//! many went well before. That is how a VMM finds the culprit: skip it, and go
//! on behind it, as `get_all` and `set_all` in tools/guest/src/msrs.rs do.

use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::msrs;

/// MSRs that count time, and so differ after whatever time: the TSC, Hyper-V's
/// VP runtime and time reference count.
const COUNT_TIME: [u32; 3] = [0x10, 0x4000_0010, 0x4000_0020];

/// Saves a vCPU's MSRs, restores them into another, and compares.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Leave out the in-kernel irqchip, to see an MSR that depends on it
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

    let options = Options {
        irqchip: !arguments.no_irqchip,
        ..Options::new(Engine::Any)
    };

    // The source has run, and its guest has changed an MSR: IA32_CR_PAT.
    let mut source = Guest::new(&kvm, options)?;
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

    let destination = Guest::new(&kvm, options)?;
    let refused = msrs::set_all(destination.vcpu(), &saved)?;
    println!("restored {} of them", saved.len() - refused.len());
    for msr in &refused {
        println!("  {:#010x} refuses {:#x}", msr.index, msr.data);
    }

    let indices: Vec<u32> = saved.iter().map(|msr| msr.index).collect();
    let (restored, _) = msrs::get_all(destination.vcpu(), &indices)?;
    let mut lost = 0;
    for saved in &saved {
        // What was refused is counted below.
        let Some(restored) = restored.iter().find(|msr| msr.index == saved.index) else {
            continue;
        };
        if saved.data != restored.data && !COUNT_TIME.contains(&saved.index) {
            lost += 1;
            println!(
                "  {:#010x} was {:#x} and became {:#x}",
                saved.index, saved.data, restored.data
            );
        } else if arguments.verbose {
            println!("  {:#010x} {:#x}", saved.index, restored.data);
        }
    }

    let lost = lost + refused.len() + unreadable.len();
    if lost > 0 {
        println!("MSRs unreadable, refused or changed: {lost}");
        return Ok(ExitCode::FAILURE);
    }
    println!("no MSR was lost (those that count time are not compared)");
    Ok(ExitCode::SUCCESS)
}
