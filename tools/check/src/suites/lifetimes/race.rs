// SPDX-License-Identifier: Apache-2.0 OR MIT

//! VMs, vCPUs and filters race with loading and unloading of the engine.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::engine;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::msrs;

use super::setup::IN_USE;
use super::setup::Modules;
use super::setup::PAT;
use super::setup::any_guest;
use super::setup::guest;
use super::setup::works;
use crate::suites::filter_guest::NOBODY;

/// The minimum duration of each race.
const RACE: Duration = Duration::from_secs(2);

/// The time limit, for slow machines.
const LIMIT: Duration = Duration::from_secs(120);

/// The minimum number of VMs.
const VMS: u32 = 12;

/// Runs threads that create VMs, while `other` is called repeatedly.
fn race_vms(other: impl Fn(u32) -> Result<()>) -> Result<String> {
    const THREADS: usize = 3;
    let stop = AtomicBool::new(false);
    let [vms, served] = [const { AtomicU32::new(0) }; 2];

    let create = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let mut guest = any_guest()?;
            let engine = guest.folder().engine();

            works(&mut guest)?;
            ensure!(
                guest.folder().engine() == engine,
                "the engine was {engine:?} and is {:?}",
                guest.folder().engine()
            );
            vms.fetch_add(1, Ordering::Relaxed);
            if engine.is_some() {
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    };

    let rounds = thread::scope(|scope| -> Result<u32> {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(create)).collect();
        let start = Instant::now();
        let mut rounds = 0;
        let mut result = Ok(());

        while result.is_ok()
            && (start.elapsed() < RACE
                || vms.load(Ordering::Relaxed) < VMS && start.elapsed() < LIMIT)
        {
            result = other(rounds);
            rounds += 1;
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            match thread.join() {
                Ok(end) => end?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        result.map(|()| rounds)
    })?;
    let (vms, served) = (vms.into_inner(), served.into_inner());
    ensure!(vms >= VMS, "{vms} VMs only");
    Ok(format!(
        "{vms} VMs, {served} on the engine, {rounds} changes"
    ))
}

/// Creates and closes VMs while the parameter `enable` changes.
pub fn vms_race(_: &Modules) -> Result<String> {
    race_vms(|round| {
        engine::set_enabled(round % 2 == 0)?;
        Ok(())
    })
}

/// Creates and closes VMs while the engine is loaded and unloaded.
pub fn loads_race(modules: &Modules) -> Result<String> {
    race_vms(|round| {
        // A VM may be using the engine at this moment.
        match if round % 2 == 0 {
            modules.engine.unload()
        } else if modules.engine.is_loaded() {
            Ok(())
        } else {
            modules.engine.load()
        } {
            Ok(()) | Err(IN_USE) => Ok(()),
            Err(errno) => bail!("loading or unloading: {errno}"),
        }
    })
}

/// Two vCPUs run while their filters are replaced.
pub fn filters_race(_: &Modules) -> Result<String> {
    const VMS: usize = 2;
    let stop = AtomicBool::new(false);
    let accesses = AtomicU32::new(0);
    let mut filters = Vec::new();

    for i in 0..8 {
        let mut filter = Filter::allow_by_default();
        for j in 0..=i * 2 {
            let base = NOBODY + 64 * j;
            filter = filter.with(Range::allow(READ, base, 128).with_flipped(i));
        }
        filters.push(filter.prepare(if i % 2 == 0 { Abi::Native } else { Abi::Compat })?);
    }

    // The filter does not deny PAT, so it always reads its value.
    let run = |mut guest: Guest| -> Result<()> {
        let pat = msrs::get(guest.vcpu(), PAT)?;

        while !stop.load(Ordering::Relaxed) {
            guest.start(Stub::RdmsrLoop, PAT, 0, 100)?;
            let outcome = guest.run()?;
            ensure!(
                pat.map(Outcome::Value) == Some(outcome),
                "PAT is {pat:x?}, the guest saw {outcome}"
            );
            let outcome = guest.rdmsr(NOBODY + 5)?;
            ensure!(
                outcome.is_gp() || outcome.user_space().is_some(),
                "the unknown MSR gave {outcome}"
            );
            guest.answer(0, 0);
            accesses.fetch_add(101, Ordering::Relaxed);
        }
        Ok(())
    };

    let swaps = thread::scope(|scope| -> Result<u32> {
        let mut vms = Vec::new();
        let mut threads = Vec::new();

        for _ in 0..VMS {
            let guest = guest(Engine::Rust)?;
            guest.deflect(KVM_MSR_EXIT_REASON_FILTER)?;
            vms.push(guest.vm_fd()?);
            threads.push(scope.spawn(|| run(guest)));
        }
        let start = Instant::now();
        let mut swaps = 0;
        let mut result = Ok(());
        while start.elapsed() < RACE && result.is_ok() {
            let filter = &filters[swaps as usize % filters.len()];
            result = vms.iter().try_for_each(|vm| filter.set(vm));
            swaps += 1;
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            match thread.join() {
                Ok(end) => end?,
                Err(_) => bail!("a vCPU's thread panicked"),
            }
        }
        result?;
        Ok(swaps)
    })?;
    Ok(format!(
        "{} accesses under {swaps} filters",
        accesses.into_inner()
    ))
}
