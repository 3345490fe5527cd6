// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The engine is loaded and unloaded beside VMs of C whose guests run, and in each order with the
//! vendor module and kvm.ko.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::msrs;

use super::setup::IN_USE;
use super::setup::Modules;
use super::setup::PAT;
use super::setup::guest;
use super::setup::unload;
use super::setup::works;
use crate::suites::filter_guest::NOBODY;

/// Between two rounds of a guest.
const PAUSE: Duration = Duration::from_millis(1);

/// How long a guest may take for a few accesses, on slow machines.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a guest until `stop`. Counts rounds, in each of which it reads an MSR in a loop, has
/// another one answered by user space, and user space writes an MSR and reads it.
fn run(mut guest: Guest, rounds: &AtomicU32, stop: &AtomicBool) -> Result<()> {
    const VALUES: [u64; 2] = [0x0007_0406_0007_0406, 0x0606_0606_0606_0606];

    guest.deflect(KVM_MSR_EXIT_REASON_FILTER)?;
    Filter::allow_by_default()
        .with(Range::deny(READ, NOBODY, 8))
        .set(guest.vm())?;
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.load(Ordering::Relaxed);
        let value = VALUES[round as usize % VALUES.len()];

        ensure!(msrs::set(guest.vcpu(), PAT, value)?, "PAT is refused");
        guest.start(Stub::RdmsrLoop, PAT, 0, 100)?;
        let outcome = guest.run()?;
        ensure!(
            outcome == Outcome::Value(value),
            "PAT is {value:#x}, the guest saw {outcome}"
        );
        let outcome = guest.rdmsr(NOBODY)?;
        ensure!(outcome.user_space().is_some(), "denied, but {outcome}");
        guest.answer(round.into(), 0);
        let outcome = guest.run()?;
        ensure!(
            outcome == Outcome::Value(round.into()),
            "answered with {round}, but {outcome}"
        );
        let now = msrs::get(guest.vcpu(), PAT)?;
        ensure!(now == Some(value), "PAT is {now:x?}, not {value:#x}");
        rounds.store(round.wrapping_add(1), Ordering::Relaxed);
        // Loading and unloading wait for tasks on all CPUs, for seconds if these never sleep.
        thread::sleep(PAUSE);
    }
    ensure!(
        guest.folder().engine().is_none(),
        "the engine serves a VM that is older"
    );
    Ok(())
}

/// Waits until each guest has completed a round that began after this call.
fn accesses(rounds: &[AtomicU32]) -> Result<()> {
    let start = Instant::now();

    for counter in rounds {
        let before = counter.load(Ordering::Relaxed);

        while counter.load(Ordering::Relaxed).wrapping_sub(before) < 2 {
            ensure!(start.elapsed() < LIMIT, "a guest of C's stands still");
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// Loads and unloads the engine many times, and has guests of C make accesses after each step.
pub fn vms_of_c(modules: &Modules) -> Result<String> {
    let (engine, vendor) = (&modules.engine, &modules.vendor);
    let rounds = [const { AtomicU32::new(0) }; 2];
    let stop = AtomicBool::new(false);
    let start = Instant::now();

    let cycle = |number: u32| -> Result<()> {
        engine.load().context("load the engine")?;
        accesses(&rounds)?;
        if number % 10 == 0 {
            let mut served = guest(Engine::Rust)?;

            works(&mut served)?;
            let refused = [engine.unload(), vendor.unload()];
            ensure!(
                refused == [Err(IN_USE); 2],
                "unloading the engine and the vendor module with VMs of both: {refused:?}"
            );
            accesses(&rounds)?;
        }
        unload(engine).context("unload the engine")?;
        let refused = vendor.unload();
        ensure!(
            refused == Err(IN_USE),
            "unloading the vendor module under C's VMs: {refused:?}"
        );
        accesses(&rounds)
    };

    // Created with the engine and without it.
    let before = guest(Engine::C)?;
    unload(engine)?;
    let guests = [before, guest(Engine::C)?];
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = guests
            .into_iter()
            .zip(&rounds)
            .map(|(guest, rounds)| scope.spawn(|| run(guest, rounds, &stop)))
            .collect();
        let result = (0..modules.loads).try_for_each(|i| {
            if threads.iter().any(|thread| thread.is_finished()) {
                bail!("a guest of C's ended in round {i}");
            }
            cycle(i).with_context(|| format!("round {i}"))
        });

        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            match thread.join() {
                Ok(end) => end?,
                Err(_) => bail!("a guest's thread panicked"),
            }
        }
        result
    })?;
    let rounds: u32 = rounds.into_iter().map(AtomicU32::into_inner).sum();
    Ok(format!(
        "{} times in {} s, {rounds} rounds of the guests",
        modules.loads,
        start.elapsed().as_secs()
    ))
}

/// The vendor module and the engine are independent, in each order. Both need kvm.ko.
pub fn orders(modules: &Modules) -> Result<String> {
    let (engine, vendor, kvm) = (&modules.engine, &modules.vendor, &modules.kvm);
    let orders = [[engine, vendor], [vendor, engine]];
    let rounds = (modules.loads / 10).max(3);

    for round in 0..rounds {
        for removal in orders {
            for insertion in orders {
                for module in removal {
                    let result = kvm.unload();
                    ensure!(
                        result == Err(IN_USE),
                        "unloading kvm.ko, which others need: {result:?}"
                    );
                    unload(module)?;
                }
                if round == 0 {
                    unload(kvm).context("kvm.ko")?;
                    for module in insertion {
                        let result = module.load();
                        ensure!(
                            result == Err(Errno::ENOENT),
                            "loading a module without kvm.ko: {result:?}"
                        );
                    }
                    kvm.load().context("load kvm.ko")?;
                    crate::enable_emulation_prefix();
                }
                for module in insertion {
                    module.load()?;
                }
                works(&mut guest(Engine::Rust)?)?;
                works(&mut guest(Engine::C)?)?;
            }
        }
    }
    Ok(format!("{} times", rounds * 4))
}
