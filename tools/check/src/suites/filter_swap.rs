// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Filters that are replaced while the vCPU runs: after the ioctl has returned, the old filter
//! decides no access.

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
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Range;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::filter::READ;

use super::Named;
use super::filter_guest::NOBODY;
use super::filter_guest::deflecting_guest;
use crate::side::Side;

/// The tests of this file.
pub const SCENARIOS: &[Named] = &[("replaced under a running vCPU", replaced)];

/// The minimum duration.
const DURATION: Duration = Duration::from_secs(1);

/// The time limit, for slow machines.
const LIMIT: Duration = Duration::from_secs(60);

/// The minimum number of filters.
const FILTERS: u32 = 12;

/// The minimum number of accesses that each filter decides before the next one is set.
const ACCESSES: u32 = 2;

/// The state that the two threads share.
#[derive(Default)]
struct Shared {
    /// The number of the filter that is being set.
    pending: AtomicU32,
    /// The number of the filter whose ioctl has returned.
    published: AtomicU32,
    /// Number of accesses that only one filter can have decided.
    judged: AtomicU32,
    stop: AtomicBool,
}

fn replaced(side: &mut Side) -> Result<()> {
    let guest = deflecting_guest(side)?;
    let vm = guest.vm_fd()?;
    // Filters 1 and 2 deny, filters 3 and 0 allow.
    let filters = [
        Filter::allow_by_default().prepare(Abi::Native)?,
        Filter::allow_by_default()
            .with(Range::deny(READ, NOBODY, 1))
            .prepare(Abi::Native)?,
        Filter::deny_by_default()
            .with(Range::deny(READ, NOBODY, 8))
            .with(Range::allow(READ, NOBODY - 64, 128))
            .prepare(Abi::Compat)?,
        Filter::deny_by_default()
            .with(Range::allow(READ, NOBODY, 8))
            .with(Range::deny(READ, NOBODY - 8, 16))
            .prepare(Abi::Native)?,
    ];
    let shared = Shared::default();

    let swaps = thread::scope(|scope| -> Result<u32> {
        let vcpu = scope.spawn(|| run_vcpu(guest, &shared));
        let start = Instant::now();
        let mut number = 0;

        while !vcpu.is_finished()
            && (start.elapsed() < DURATION || number < FILTERS && start.elapsed() < LIMIT)
        {
            number += 1;
            shared.pending.store(number, Ordering::SeqCst);
            filters[number as usize % filters.len()].set(&vm)?;
            shared.published.store(number, Ordering::SeqCst);

            let judged = shared.judged.load(Ordering::SeqCst);
            while shared.judged.load(Ordering::SeqCst).wrapping_sub(judged) < ACCESSES
                && !vcpu.is_finished()
            {
                thread::yield_now();
            }
        }
        shared.stop.store(true, Ordering::SeqCst);
        match vcpu.join() {
            Ok(result) => result.map(|()| number),
            Err(_) => bail!("the vCPU's thread panicked"),
        }
    })?;
    ensure!(swaps >= FILTERS, "only {swaps} filters in {LIMIT:?}");
    side.note("accesses that the wrong filter decided", 0);
    Ok(())
}

/// The guest reads one MSR repeatedly. Both verdicts exit to user space.
fn run_vcpu(mut guest: Guest, shared: &Shared) -> Result<()> {
    guest.start(Stub::RdmsrLoop, NOBODY, 0, 0)?;
    while !shared.stop.load(Ordering::SeqCst) {
        let before = shared.published.load(Ordering::SeqCst);
        let outcome = guest.run()?;
        let after = shared.pending.load(Ordering::SeqCst);
        let reason = outcome.user_space().map_or(0, |exit| exit.reason);

        let expected = match before % 4 {
            1 | 2 => KVM_MSR_EXIT_REASON_FILTER,
            _ => KVM_MSR_EXIT_REASON_UNKNOWN,
        };
        if before == after {
            ensure!(
                reason == expected,
                "filter {before} is in force, but the guest's RDMSR gave {outcome}"
            );
            shared.judged.fetch_add(1, Ordering::SeqCst);
        } else {
            ensure!(
                reason == KVM_MSR_EXIT_REASON_FILTER || reason == KVM_MSR_EXIT_REASON_UNKNOWN,
                "filter {after} is being set, and the guest's RDMSR gave {outcome}"
            );
        }
        guest.answer(0, 0);
    }
    Ok(())
}
