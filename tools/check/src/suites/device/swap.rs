// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Policies that are replaced while two vCPUs run: when SET_POLICY has returned, no access is
//! judged by the old rules.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::Rule;

use super::setup::attached;
use super::setup::set_policy;
use crate::Arguments;
use crate::suites::filter_guest::NOBODY;

/// The time limit, for slow machines.
const LIMIT: Duration = Duration::from_secs(60);

/// The minimum number of policies.
const POLICIES: u64 = 30;

/// Found in the bitmap, found by a search, and an MSR that is passed through without a rule.
const INDICES: [u32; 3] = [0x1234, NOBODY, 0xc000_0082];

/// The MSR that is passed through has this value without a rule. No policy has this number.
const LSTAR: u64 = 1 << 40;

/// The state that the threads share.
#[derive(Default)]
struct Shared {
    /// The number of the policy that is being set.
    pending: AtomicU64,
    /// The number of the policy whose ioctl has returned.
    published: AtomicU64,
    /// Number of accesses that only one policy can have judged.
    judged: AtomicU64,
    stop: AtomicBool,
}

/// The policy with a number: reads return the number. Odd ones leave out the MSR that is passed
/// through.
fn rules(number: u64) -> Vec<Rule> {
    INDICES
        .into_iter()
        .take(if number % 2 == 0 { 3 } else { 2 })
        .map(|index| Rule::new(index, index, READ, uapi::ALWAYS, uapi::CONSTANT, number))
        .collect()
}

/// Replaces policies for some seconds, as the arguments say.
pub fn run(arguments: &Arguments) -> Result<String> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let (mut first, device) = attached()?;
    let mut second = first.another_vcpu(&kvm, 1)?;
    let duration = Duration::from_secs(arguments.load_seconds);
    let shared = Shared::default();

    for guest in [&mut first, &mut second] {
        let outcome = guest.wrmsr(INDICES[2], LSTAR)?;
        ensure!(outcome == Outcome::Done, "LSTAR: {outcome}");
    }
    set_policy(&device, &rules(0))?;
    let policies = thread::scope(|scope| -> Result<u64> {
        let vcpus = [first, second].map(|guest| scope.spawn(|| run_vcpu(guest, &shared)));
        let start = Instant::now();
        let ended = || vcpus.iter().any(|vcpu| vcpu.is_finished());
        let mut number = 0;
        let mut result = Ok(());

        while result.is_ok()
            && !ended()
            && (start.elapsed() < duration || number < POLICIES && start.elapsed() < LIMIT)
        {
            number += 1;
            shared.pending.store(number, Ordering::SeqCst);
            result = set_policy(&device, &rules(number)).map(|_| ());
            shared.published.store(number, Ordering::SeqCst);

            // Let each policy judge something.
            let judged = shared.judged.load(Ordering::SeqCst);
            while shared.judged.load(Ordering::SeqCst) < judged + 2 && !ended() {
                thread::yield_now();
            }
        }
        shared.stop.store(true, Ordering::SeqCst);
        for vcpu in vcpus {
            match vcpu.join() {
                Ok(result) => result?,
                Err(_) => bail!("a vCPU's thread panicked"),
            }
        }
        result.context("SET_POLICY")?;
        Ok(number)
    })?;

    ensure!(
        policies >= POLICIES,
        "only {policies} policies in {LIMIT:?}"
    );
    Ok(format!(
        "{policies} policies, {} accesses",
        shared.judged.into_inner()
    ))
}

/// The guest reads the MSRs repeatedly.
fn run_vcpu(mut guest: Guest, shared: &Shared) -> Result<()> {
    for index in INDICES.into_iter().cycle() {
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        let before = shared.published.load(Ordering::SeqCst);
        let outcome = guest.rdmsr(index)?;
        let after = shared.pending.load(Ordering::SeqCst);

        let right = match outcome {
            Outcome::Value(LSTAR) => index == INDICES[2] && (before % 2 == 1 || after != before),
            Outcome::Value(number) => {
                (before..=after).contains(&number) && (index != INDICES[2] || number % 2 == 0)
            }
            _ => false,
        };
        ensure!(
            right,
            "{index:#x}: {outcome}, policy {before} was in force before, and {after} after"
        );
        if before == after {
            shared.judged.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(())
}
