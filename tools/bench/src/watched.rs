// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Accesses in a VM that a file of `/dev/kvm-msr` is attached to. On C, nothing is attached.

use std::os::fd::AsRawFd;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use kvm_msr_guest::Device;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::MAX_RULES;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::RIGHT_OBSERVE;
use kvm_msr_guest::device::uapi::RIGHT_POLICY;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::SetPolicy;
use kvm_msr_guest::device::uapi::Stats;
use kvm_msr_guest::device::uapi::UNTIL_CLOSE;
use kvm_msr_guest::device::uapi::WRITE;

use super::guest_rdmsr_exit;
use super::guest_wrmsr_exit;

/// A file that is attached to the guest's VM, unless C serves that.
fn attach(guest: &Guest) -> Result<Option<Device>> {
    if !kvm_msr_guest::engine::loaded() {
        return Ok(None);
    }
    let device = Device::open().context("open the device")?;

    match device.attach(guest.vm().as_raw_fd(), RIGHT_OBSERVE | RIGHT_POLICY) {
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

fn with_policy(guest: &Guest) -> Result<Option<Device>> {
    let device = attach(guest)?;

    if let Some(device) = &device {
        let rules = rules();
        let array = Array::new(&rules)?;
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
    let _device = with_policy(guest)?;

    guest_rdmsr_exit(guest, ranges)
}

/// The time per WRMSR under a policy that does not cover it.
pub(crate) fn guest_wrmsr_policy(guest: &mut Guest, ranges: usize) -> Result<f64> {
    let _device = with_policy(guest)?;

    guest_wrmsr_exit(guest, ranges)
}
