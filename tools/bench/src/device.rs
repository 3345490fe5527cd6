// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What `/dev/kvm-msr` costs, and accesses in a VM that it is attached to. On C, nothing is attached.

use std::os::fd::AsRawFd;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_msr_guest::Device;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::ignoring_unsupported;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::Batch;
use kvm_msr_guest::device::uapi::ENTRY_MSR;
use kvm_msr_guest::device::uapi::Entry;
use kvm_msr_guest::device::uapi::MAX_RULES;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::RIGHT_OBSERVE;
use kvm_msr_guest::device::uapi::RIGHT_POLICY;
use kvm_msr_guest::device::uapi::RIGHT_STATE;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::SetPolicy;
use kvm_msr_guest::device::uapi::Stats;
use kvm_msr_guest::device::uapi::UNTIL_CLOSE;
use kvm_msr_guest::device::uapi::WRITE;

use super::STORED_MSR;
use super::guest_rdmsr_exit;
use super::guest_wrmsr_exit;
use super::per_call;
use super::wait_for_srcu;

/// Entries per BATCH.
const BATCH_ENTRIES: usize = 4096;

/// A file that is attached to the guest's VM, unless C serves that.
fn attach(guest: &Guest) -> Result<Option<Device>> {
    if !kvm_msr_guest::engine::loaded() {
        return Ok(None);
    }
    let device = Device::open().context("open the device")?;
    let rights = RIGHT_OBSERVE | RIGHT_POLICY | RIGHT_STATE;

    match device.attach(guest.vm().as_raw_fd(), rights) {
        Ok(_) => Ok(Some(device)),
        Err(Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => bail!("ATTACH: {errno}"),
    }
}

fn with_stats(guest: &Guest) -> Result<Option<Device>> {
    let device = attach(guest)?;

    if let Some(device) = &device {
        device
            .call(&mut Stats::new(uapi::START))
            .context("STATS: start")?;
    }
    Ok(device)
}

/// As many rules as possible, none of which covers the MSRs of the benchmark. Some are for MSRs of
/// the same page.
fn rules() -> Vec<Rule> {
    const SAME_PAGE: u32 = 0x700;

    (0..MAX_RULES)
        .map(|number| {
            let index = if number < SAME_PAGE {
                0x900 + number
            } else {
                0x2000_0000 + 2 * number
            };
            Rule::new(index, index, READ | WRITE, uapi::ALWAYS, uapi::GP, 0)
        })
        .collect()
}

fn with_policy(guest: &Guest, rules: &[Rule]) -> Result<Option<Device>> {
    let device = attach(guest)?;

    if let Some(device) = &device {
        let array = Array::new(rules)?;
        let mut policy = SetPolicy::new(&array, rules.len());

        policy.flags = UNTIL_CLOSE;
        device.call(&mut policy).context("SET_POLICY")?;
    }
    Ok(device)
}

/// The time per RDMSR that is counted.
pub(crate) fn guest_rdmsr_stats(guest: &mut Guest, ranges: usize) -> Result<f64> {
    let _device = with_stats(guest)?;

    guest_rdmsr_exit(guest, ranges)
}

/// The time per WRMSR that is counted.
pub(crate) fn guest_wrmsr_stats(guest: &mut Guest, ranges: usize) -> Result<f64> {
    let _device = with_stats(guest)?;

    guest_wrmsr_exit(guest, ranges)
}

/// The time per RDMSR under a policy that does not cover it.
pub(crate) fn guest_rdmsr_policy(guest: &mut Guest, ranges: usize) -> Result<f64> {
    let _device = with_policy(guest, &rules())?;

    guest_rdmsr_exit(guest, ranges)
}

/// The time per WRMSR under a policy that does not cover it.
pub(crate) fn guest_wrmsr_policy(guest: &mut Guest, ranges: usize) -> Result<f64> {
    let _device = with_policy(guest, &rules())?;

    guest_wrmsr_exit(guest, ranges)
}

/// The time per RDMSR of an MSR that KVM has, under a policy that ignores those that it lacks.
pub(crate) fn guest_rdmsr_ignoring(guest: &mut Guest, ranges: usize) -> Result<f64> {
    let _device = with_policy(guest, &ignoring_unsupported())?;

    guest_rdmsr_exit(guest, ranges)
}

/// The time per WRMSR of an MSR that KVM has, under a policy that ignores those that it lacks.
pub(crate) fn guest_wrmsr_ignoring(guest: &mut Guest, ranges: usize) -> Result<f64> {
    let _device = with_policy(guest, &ignoring_unsupported())?;

    guest_wrmsr_exit(guest, ranges)
}

/// The time per SET_POLICY with as many rules as possible.
pub(crate) fn set_largest_policy(guest: &mut Guest) -> Result<f64> {
    let device = attach(guest)?.context("no VM of the engine's")?;
    let mut rules = rules();

    // The slower order: in the opposite one, no rule has to be moved.
    rules.reverse();
    let array = Array::new(&rules)?;
    let mut call = device.prepare(SetPolicy::new(&array, rules.len()))?;

    // So that there is a policy to replace and free.
    call.call()?;
    wait_for_srcu();
    per_call(1, || Ok(call.call().map(|_| ())?))
}

/// The time per entry of a long BATCH that reads a stored MSR.
pub(crate) fn batch_get_entry_stored(guest: &mut Guest) -> Result<f64> {
    batch(guest, uapi::BATCH_GET)
}

/// The time per entry of a long BATCH that writes a stored MSR.
pub(crate) fn batch_set_entry_stored(guest: &mut Guest) -> Result<f64> {
    batch(guest, uapi::BATCH_SET)
}

fn batch(guest: &Guest, op: u32) -> Result<f64> {
    let device = attach(guest)?.context("no VM of the engine's")?;
    let entry = Entry {
        kind: ENTRY_MSR,
        id: STORED_MSR.into(),
        ..Entry::default()
    };
    let entries = Array::new(&vec![entry; BATCH_ENTRIES])?;
    let mut call = device.prepare(Batch::new(op, &entries, BATCH_ENTRIES))?;
    let time = per_call(10, || {
        let batch = call.call().context("BATCH")?;

        ensure!(
            batch.nr_done as usize == BATCH_ENTRIES,
            "{} done",
            batch.nr_done
        );
        Ok(())
    })?;
    let done = entries.read(BATCH_ENTRIES);

    ensure!(done.iter().all(|entry| entry.status == 0), "not all done");
    Ok(time / BATCH_ENTRIES as f64)
}
