// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the tests of this suite have in common.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::uapi::GetPolicy;
use kvm_msr_guest::device::uapi::Learn;
use kvm_msr_guest::device::uapi::Learned;
use kvm_msr_guest::device::uapi::MAX_LEARNED;
use kvm_msr_guest::device::uapi::MAX_RULES;
use kvm_msr_guest::device::uapi::RIGHTS;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::SetPolicy;
use kvm_msr_guest::ioctl;

use crate::side::show;

/// A guest that this engine serves.
pub fn guest(engine: Engine) -> Result<Guest> {
    let kvm = Kvm::new().context("open /dev/kvm")?;

    Guest::new(&kvm, Options::new(engine))
}

/// A guest of the engine's, and a file that is attached to it with all rights.
pub fn attached() -> Result<(Guest, Device)> {
    let guest = guest(Engine::Rust)?;
    let device = Device::attached(guest.vm(), RIGHTS)?;

    Ok((guest, device))
}

/// An ioctl has to fail with this errno.
pub fn fails(step: &str, result: ioctl::Result, errno: Errno) -> Result<()> {
    ensure!(
        result == Err(errno),
        "{step}: {} instead of {errno}",
        show(result)
    );
    Ok(())
}

/// Sets a policy.
pub fn set_policy(device: &Device, rules: &[Rule]) -> ioctl::Result {
    set_policy_with_flags(device, rules, 0)
}

/// Sets a policy, with `KMSR_POLICY_*`.
pub fn set_policy_with_flags(device: &Device, rules: &[Rule], flags: u32) -> ioctl::Result {
    let array = Array::new(rules)?;
    let mut policy = SetPolicy::new(&array, rules.len());

    policy.flags = flags;
    device.call(&mut policy)
}

/// Reads the policy's rules.
pub fn policy(device: &Device) -> Result<Vec<Rule>> {
    let array = Array::room(MAX_RULES as usize)?;
    let mut policy = GetPolicy::new(&array, MAX_RULES as usize);

    device.call(&mut policy).context("GET_POLICY")?;
    Ok(array.read(policy.nr_rules as usize))
}

/// Starts or stops learning.
pub fn learn(device: &Device, op: u32) -> ioctl::Result {
    device.call(&mut Learn::new(op))
}

/// Reads what was learned, sorted by index.
pub fn learned(device: &Device) -> Result<Vec<Learned>> {
    let array = Array::<Learned>::room(MAX_LEARNED as usize)?;
    let mut learn = Learn::read(&array, MAX_LEARNED as usize);

    device.call(&mut learn).context("LEARN: read")?;
    if learn.lost != 0 {
        bail!("{} accesses are lost", learn.lost);
    }
    let mut records = array.read(learn.nr_records as usize);
    records.sort_by_key(|record| record.index);
    Ok(records)
}
