// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Sets and clears policies of QEMU's VM, and checks each time that the guest sees it.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvmsr::device::Device;
use kvmsr::device::Rights;
use kvmsr::device::VmFd;
use kvmsr::policy::Policy;

use super::kill;
use super::qemu::Qemu;
use super::rom;
use super::usage::Usage;
use crate::report::Report;
use crate::run::Kvmsr;

const ROM: &str = "/tmp/rom";

/// Rounds with the program, each of which starts three processes.
const BY_PROGRAM: usize = 5;
/// Rounds until the kernel has filled its caches.
const FIRST: usize = 100;
/// Rounds that must not leak anything.
const ROUNDS: usize = 1_000;
/// How long to wait until the guest has seen a policy.
const PATIENCE: Duration = Duration::from_secs(120);
/// Until memory is free that was used until a moment ago.
const GRACE: Duration = Duration::from_secs(1);

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    report.test("policies by kvmsr", || by_program(kvmsr));
    report.test("a thousand policies, no leak", thousand);
    report.test("kill -9 while a policy is set", || kill::run(true));
    report.test("kill -9 while a file is attached", || kill::run(false));
}

/// Starts QEMU, and waits until its guest has read the MSR.
pub(super) fn start() -> Result<Qemu> {
    fs::write(ROM, rom::image())?;
    let mut qemu = Qemu::start(&["-bios", ROM, "-debugcon", "stdio"])?;

    expect(&mut qemu, rom::GP)?;
    Ok(qemu)
}

/// The guest writes only changes, so the next one has to be this.
fn expect(qemu: &mut Qemu, expected: u8) -> Result<()> {
    let byte = qemu.byte(PATIENCE)?;

    ensure!(
        byte == expected,
        "the guest saw {byte:#x}, not {expected:#x}"
    );
    Ok(())
}

/// What the guest has to see in a round, and the policy that does this. Neighbours differ.
fn policy(round: usize) -> (u8, String) {
    let value = (round % usize::from(rom::GP)) as u8;
    let action = match value {
        0 => "ignore".to_owned(),
        value => format!("constant={value:#x}"),
    };

    (
        value,
        format!("{action} when unsupported {:#x}", rom::UNKNOWN),
    )
}

fn by_program(kvmsr: &Kvmsr) -> Result<String> {
    let mut qemu = start()?;
    let pid = qemu.pid().to_string();

    for round in 0..BY_PROGRAM {
        let (value, policy) = policy(round);
        let set = kvmsr.json(&["policy", "set", "-", "--pid", &pid], &policy, &[0])?;

        ensure!(set["rules"] == 1, "set: {set}");
        expect(&mut qemu, value)?;
        kvmsr.json(&["policy", "get", "--pid", &pid], "", &[0])?;
        kvmsr.json(&["policy", "clear", "--pid", &pid], "", &[0])?;
        expect(&mut qemu, rom::GP)?;
        // It exits with 1 if there is none.
        kvmsr.json(&["policy", "get", "--pid", &pid], "", &[1])?;
    }
    Ok(format!("{BY_PROGRAM} rounds"))
}

/// Opens the device, attaches by the process, sets a policy, and clears it, in odd rounds by
/// closing the file.
fn round(qemu: &mut Qemu, number: usize) -> Result<()> {
    let (value, policy) = policy(number);
    let rules = Policy::parse(&policy)?.rules();
    let until_close = number % 2 == 1;
    let fd = VmFd::of_process(qemu.pid(), None)?;
    let vm = Device::open()?.attach(&fd, Rights::POLICY)?;

    drop(fd);
    vm.set_policy(&rules, until_close)?;
    expect(qemu, value).context("after a policy was set")?;
    if !until_close {
        vm.set_policy(&[], false)?;
    }
    drop(vm);
    expect(qemu, rom::GP).context("after it was cleared")
}

fn thousand() -> Result<String> {
    let mut qemu = start()?;

    for number in 0..FIRST {
        round(&mut qemu, number).with_context(|| format!("round {number}"))?;
    }
    std::thread::sleep(GRACE);
    let before = Usage::now(qemu.pid())?;

    for number in FIRST..FIRST + ROUNDS {
        round(&mut qemu, number).with_context(|| format!("round {number}"))?;
    }
    std::thread::sleep(GRACE);
    let after = Usage::now(qemu.pid())?;

    after.ensure_no_leak_since(&before)?;
    Ok(format!("{before}; then {after}"))
}
