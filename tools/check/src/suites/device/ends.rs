// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Lifetimes of VMs, files, policies and records.

use std::fs;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::Batch;
use kvm_msr_guest::device::uapi::GetPolicy;
use kvm_msr_guest::device::uapi::Info;
use kvm_msr_guest::device::uapi::Learn;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::RIGHT_OBSERVE;
use kvm_msr_guest::device::uapi::RIGHT_POLICY;
use kvm_msr_guest::device::uapi::RIGHTS;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::UNTIL_CLOSE;

use super::Test;
use super::setup::attached;
use super::setup::fails;
use super::setup::guest;
use super::setup::learn;
use super::setup::learned;
use super::setup::policy;
use super::setup::set_policy;
use super::setup::set_policy_with_flags;
use crate::suites::filter_guest::NOBODY;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("a file does not keep its VM alive", vm_ends),
    ("a policy outlives its file", policy_stays),
    ("a policy ends with its file", policy_ends),
    ("learning ends with its file", learning_ends),
];

/// SYSENTER_CS: guests access it without VM-exits.
const PASSED_THROUGH: u32 = 0x174;

fn references() -> Result<u32> {
    let text = fs::read_to_string("/sys/module/kvm_msr/refcnt").context("refcnt")?;

    text.trim().parse().context("reference count")
}

/// KVM drops the reference shortly after the VM's last file descriptor was closed.
fn references_become(expected: u32) -> Result<()> {
    let start = Instant::now();

    while references()? != expected {
        ensure!(
            start.elapsed() < Duration::from_secs(5),
            "{} references instead of {expected}",
            references()?
        );
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn constant(value: u64) -> Rule {
    Rule::new(NOBODY, NOBODY, READ, uapi::ALWAYS, uapi::CONSTANT, value)
}

fn reads(guest: &mut Guest, value: u64) -> Result<()> {
    let outcome = guest.rdmsr(NOBODY)?;

    ensure!(
        outcome == Outcome::Value(value),
        "{outcome} instead of {value:#x}"
    );
    Ok(())
}

/// Whether the guest's RDMSR of [`PASSED_THROUGH`] is a VM-exit.
fn is_intercepted(guest: &mut Guest) -> Result<bool> {
    let reads = |guest: &Guest| {
        let counters = guest.folder().counters()?;

        counters
            .get("reads")
            .copied()
            .context("no counter of reads")
    };
    let before = reads(guest)?;

    guest.rdmsr(PASSED_THROUGH)?;
    Ok(reads(guest)? != before)
}

fn vm_ends() -> Result<String> {
    let before = references()?;
    let rules = Array::new(&[])?;
    let records = Array::new(&[])?;
    let entries = Array::new(&[])?;

    for learns in [false, true] {
        let (guest, device) = attached()?;
        let observer = Device::attached(guest.vm(), RIGHT_OBSERVE)?;

        ensure!(references()? == before + 3, "a VM and two files");
        set_policy_with_flags(&device, &[constant(1)], UNTIL_CLOSE)?;
        if learns {
            learn(&device, uapi::START)?;
        }
        let second = guest.vm_fd()?;
        drop(guest);
        // The VM lives as long as its last file descriptor.
        ensure!(policy(&device)?.len() == 1, "the policy is gone");
        drop(second);
        references_become(before + 2)?;

        for device in [&device, &observer] {
            let step = "the VM has ended";

            fails(
                step,
                device.call(&mut GetPolicy::new(&rules, 0)),
                Errno::ENODEV,
            )?;
            for op in [uapi::START, uapi::STOP] {
                fails(step, learn(device, op), Errno::ENODEV)?;
            }
            let mut read = Learn::read(&records, 0);
            fails(step, device.call(&mut read), Errno::ENODEV)?;
            device.call(&mut Info::new()).context("INFO")?;
        }
        fails("policy", set_policy(&device, &[]), Errno::ENODEV)?;
        fails("policy", set_policy(&device, &[constant(2)]), Errno::ENODEV)?;
        fails(
            "batch",
            device.call(&mut Batch::new(uapi::BATCH_GET, &entries, 0)),
            Errno::ENODEV,
        )?;
        // The file stays attached.
        let other = self::guest(Engine::Rust)?;
        let fd = other.vm().as_raw_fd();
        fails("attached", device.attach(fd, RIGHTS), Errno::EALREADY)?;
        drop((device, observer, other));
        references_become(before)?;
    }
    Ok(String::new())
}

fn policy_stays() -> Result<String> {
    let (mut guest, device) = attached()?;

    set_policy(&device, &[constant(0x11)])?;
    drop(device);
    reads(&mut guest, 0x11)?;
    // Another file sees it and replaces it.
    let device = Device::attached(guest.vm(), RIGHT_OBSERVE | RIGHT_POLICY)?;
    ensure!(policy(&device)? == [constant(0x11)], "another policy");
    set_policy(&device, &[constant(0x12)])?;
    reads(&mut guest, 0x12)?;
    // Closing a file that observes changes nothing.
    drop(Device::attached(guest.vm(), RIGHT_OBSERVE)?);
    reads(&mut guest, 0x12)?;
    set_policy(&device, &[])?;
    ensure!(guest.rdmsr(NOBODY)?.is_gp(), "the policy was cleared");
    Ok(String::new())
}

fn policy_ends() -> Result<String> {
    let (mut guest, device) = attached()?;
    let deny = Rule::new(
        PASSED_THROUGH,
        PASSED_THROUGH,
        READ,
        uapi::ALWAYS,
        uapi::CONSTANT,
        0x99,
    );

    ensure!(!is_intercepted(&mut guest)?, "SYSENTER_CS is intercepted");
    set_policy_with_flags(&device, &[constant(0x11), deny], UNTIL_CLOSE)?;
    ensure!(is_intercepted(&mut guest)?, "the rule is not in force");
    reads(&mut guest, 0x11)?;
    // Not before the file's last descriptor is closed.
    let observer = Device::attached(guest.vm(), RIGHT_OBSERVE)?;
    reads(&mut guest, 0x11)?;
    drop(device);
    ensure!(guest.rdmsr(NOBODY)?.is_gp(), "the policy is still in force");
    ensure!(!is_intercepted(&mut guest)?, "SYSENTER_CS is intercepted");
    ensure!(policy(&observer)?.is_empty(), "there are rules");

    // The last call's flag counts.
    let device = Device::attached(guest.vm(), RIGHTS)?;
    set_policy_with_flags(&device, &[constant(0x11)], UNTIL_CLOSE)?;
    set_policy(&device, &[constant(0x12)])?;
    drop(device);
    reads(&mut guest, 0x12)?;
    let device = Device::attached(guest.vm(), RIGHTS)?;
    // A file that did not set a policy leaves it.
    drop(device);
    reads(&mut guest, 0x12)?;
    Ok(String::new())
}

fn learning_ends() -> Result<String> {
    let mut guest = guest(Engine::Rust)?;
    let first = Device::attached(guest.vm(), RIGHTS)?;
    let second = Device::attached(guest.vm(), RIGHT_OBSERVE)?;

    ensure!(!is_intercepted(&mut guest)?, "intercepted without reason");
    learn(&first, uapi::START)?;
    ensure!(is_intercepted(&mut guest)?, "not learned");
    fails("two learn", learn(&second, uapi::START), Errno::EBUSY)?;
    for op in [uapi::STOP, uapi::OP_READ] {
        fails("not its own", learn(&second, op), Errno::EINVAL)?;
    }
    ensure!(is_intercepted(&mut guest)?, "no longer learned");
    ensure!(learned(&first)?.len() == 1, "other MSRs are learned");
    // Until the file is closed, the records are the file's, though it has stopped.
    learn(&first, uapi::STOP)?;
    ensure!(!is_intercepted(&mut guest)?, "intercepted without reason");
    fails("two learn", learn(&second, uapi::START), Errno::EBUSY)?;
    learn(&first, uapi::START)?;
    ensure!(learned(&first)?.is_empty(), "there are old records");

    set_policy(&first, &[constant(0x11)])?;
    drop(first);
    ensure!(!is_intercepted(&mut guest)?, "intercepted without reason");
    reads(&mut guest, 0x11)?;
    learn(&second, uapi::START)?;
    reads(&mut guest, 0x11)?;
    ensure!(learned(&second)?.len() == 1, "other MSRs are learned");
    Ok(String::new())
}
