// SPDX-License-Identifier: Apache-2.0 OR MIT

//! For an operator: watches the MSRs of a VM whose VMM runs and knows nothing of it.
//!
//! The program takes the VM's file descriptor from the VMM, and attaches `/dev/kvm-msr` to the VM. It
//! learns for some seconds which MSRs the guest accesses, reads an MSR of a vCPU, and summarises which
//! MSRs a migration has to save.
//!
//! The device does not keep the VM alive: if the VMM ends meanwhile, the program says so.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use kvmsr::catalogue::name;
use kvmsr::catalogue::parse_index;
use kvmsr::device::Attached;
use kvmsr::device::Attribute;
use kvmsr::device::Device;
use kvmsr::device::Error;
use kvmsr::device::Id;
use kvmsr::device::Learned;
use kvmsr::device::Owner;
use kvmsr::device::Rights;
use kvmsr::device::SaveEntry;
use kvmsr::device::VmFd;

/// Shows the MSRs of a running VM.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The process of the VMM
    #[arg(long, short)]
    pid: u32,

    /// The number of the VM's file descriptor in that process, if it has several VMs
    #[arg(long)]
    fd: Option<i32>,

    /// How long to learn
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// The MSR to read, by index or name
    #[arg(long, default_value = "IA32_PAT", value_parser = parse_index)]
    msr: u32,
}

/// The vCPU to read: the argument of `KVM_CREATE_VCPU`, not an index.
const VCPU: u32 = 0;

/// How long to wait for the vCPU. It is in use while it runs, until it exits to user space.
const TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();

    match watch(&arguments) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.downcast_ref().is_some_and(Error::is_vm_gone) => {
            eprintln!(
                "The VM of process {} has ended, and with it what was learned.",
                arguments.pid
            );
            Ok(ExitCode::FAILURE)
        }
        // The library's errors say what to do, e.g. if C's code handles the VM's MSRs.
        Err(error) => Err(error),
    }
}

fn watch(arguments: &Arguments) -> Result<()> {
    let vm = attach(arguments)?;

    learn(&vm, Duration::from_secs(arguments.seconds))?;
    read(&vm, arguments.msr)?;
    summarise_state(&vm)?;
    // Closes the device. Learning has ended with it, so the guest is as fast as before.
    drop(vm);
    println!("detached");
    Ok(())
}

/// Attaches to the VM. Its descriptor is closed at the end, as it would keep the VM.
fn attach(arguments: &Arguments) -> Result<Attached> {
    let vm = VmFd::of_process(arguments.pid, arguments.fd)?;

    Ok(Device::open()?.attach(&vm, Rights::OBSERVE.and(Rights::STATE))?)
}

/// Prints which MSRs the guest accesses, and how often.
fn learn(vm: &Attached, time: Duration) -> Result<()> {
    let start = Instant::now();

    vm.start_learning()?;
    eprintln!("learning for {} s", time.as_secs());
    thread::sleep(time);
    let mut learning = vm.learned()?;
    let seconds = start.elapsed().as_secs_f64();

    vm.stop_learning()?;
    learning
        .msrs
        .sort_by_key(|msr| (u64::MAX - msr.reads.saturating_add(msr.writes), msr.index));
    println!("{} MSRs in {seconds:.3} s", learning.msrs.len());
    println!(
        "  {:<10} {:<28} {:>10} {:>10} {:>10} {:>10}",
        "index", "name", "reads", "per s", "writes", "per s"
    );
    for msr in &learning.msrs {
        let rate = |count: u64| count as f64 / seconds;

        println!(
            "  {:#010x} {:<28} {:>10} {:>10.1} {:>10} {:>10.1}{}",
            msr.index,
            name_of(msr.index),
            msr.reads,
            rate(msr.reads),
            msr.writes,
            rate(msr.writes),
            note(msr)
        );
    }
    if learning.lost > 0 {
        println!("  {} accesses to other MSRs", learning.lost);
    }
    Ok(())
}

fn name_of(index: u32) -> String {
    name(index, None).unwrap_or_else(|| "-".to_owned())
}

fn note(msr: &Learned) -> &'static str {
    match (msr.unsupported, msr.denied) {
        (true, _) => "  KVM lacks it",
        (false, true) => "  denied",
        (false, false) => "",
    }
}

/// Prints the value of an MSR.
fn read(vm: &Attached, index: u32) -> Result<()> {
    let values = match vm.get(VCPU, TIMEOUT, &[Id::Msr(index)]) {
        Ok(values) => values,
        Err(error) => return not_now("the MSR was not read", error),
    };

    for value in values {
        let value = match value {
            Ok(value) => format!("{value:#x}"),
            // This entry failed. Others of the same batch would have been read.
            Err(status) => status.to_string(),
        };

        println!("vCPU {VCPU}, {index:#x} {}: {value}", name_of(index));
    }
    Ok(())
}

/// Prints how many MSRs a migration has to save, and by which ioctls.
fn summarise_state(vm: &Attached) -> Result<()> {
    let list = match vm.save_list(VCPU, TIMEOUT) {
        Ok(list) => list,
        Err(error) => return not_now("the save list was not read", error),
    };
    let count = |is: &dyn Fn(&SaveEntry) -> bool| list.iter().filter(|entry| is(entry)).count();
    let unlisted = |entry: &SaveEntry| !entry.attributes.contains(&Attribute::Listed);

    println!(
        "{} MSRs to save, {} of which KVM_GET_MSR_INDEX_LIST lacks:",
        list.len(),
        count(&unlisted)
    );
    for owner in [Owner::Msrs, Owner::Sregs, Owner::Lapic] {
        println!("  {:>4} by {owner}", count(&|entry| entry.owner == owner));
    }
    Ok(())
}

/// Goes on if the vCPU only was in use all the time.
fn not_now(what: &str, error: Error) -> Result<()> {
    match &error {
        Error::Ioctl { error: source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
            println!("{what}: {error}");
            Ok(())
        }
        _ => Err(error.into()),
    }
}
