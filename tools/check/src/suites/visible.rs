// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The engine's files in a VM's debugfs folder.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Range;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::filter::WRITE;
use kvm_msr_guest::msrs;

use super::Named;
use super::filter_guest::NOBODY;
use crate::side::Side;

const PAT: u32 = 0x277;
const FILES: [&str; 5] = [
    "msr_engine",
    "msr_filter",
    "msr_counters",
    "msr_policy",
    "msr_stats",
];

/// The tests of this file. C and the engine differ in these files, so transcripts contain only
/// what the guest observes.
pub const SCENARIOS: &[Named] = &[
    ("only the engine's VMs have the files", files),
    ("compiled filter", filter_words),
    ("counters are exact", counters),
];

fn files(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    ensure!(guest.folder().exists(), "no debugfs folder of the VM");
    for file in FILES {
        let there = guest.folder().path(file).exists();
        let expected = side.engine == Engine::Rust;
        ensure!(there == expected, "{file} exists: {there}");
    }
    if let Some(line) = guest.folder().engine() {
        ensure!(
            line.starts_with("kvm-msr ") && line.lines().count() == 1,
            "msr_engine says \"{line}\""
        );
    }
    Ok(())
}

/// The words of each line.
fn words(guest: &Guest) -> Result<Vec<String>> {
    let lines = guest.folder().filter().context("read msr_filter")?;

    Ok(lines
        .iter()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect())
}

/// Whether a line has this kind of access, range and verdict.
fn says(words: &[String], access: &str, range: &str, verdict: &str) -> bool {
    words.iter().any(|line| {
        let line: Vec<_> = line.split(' ').collect();

        line.first() == Some(&access) && line.contains(&range) && line.contains(&verdict)
    })
}

fn filter_words(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    if side.engine != Engine::Rust {
        return Ok(());
    }
    let before = words(&guest)?;
    ensure!(before == ["no filter"], "without a filter: {before:?}");

    // The first range covers the middle of the second.
    Filter::deny_by_default()
        .with(Range::deny(READ, 0x110, 0x10))
        .with(Range::allow(READ | WRITE, 0x100, 0x40))
        .set(guest.vm())?;
    let set = words(&guest)?;
    for (access, range, verdict) in [
        ("read", "0x00000100-0x0000010f", "allow"),
        ("read", "0x00000110-0x0000011f", "deny"),
        ("read", "0x00000120-0x0000013f", "allow"),
        ("write", "0x00000100-0x0000013f", "allow"),
    ] {
        ensure!(
            says(&set, access, range, verdict),
            "no line \"{access} {range} {verdict}\" in {set:?}"
        );
    }

    Filter::allow_by_default().set(guest.vm())?;
    let after = words(&guest)?;
    ensure!(
        after != set && !after.is_empty(),
        "after an empty filter: {after:?}"
    );
    Ok(())
}

/// Compares the counters with their expected increments.
fn grown(guest: &Guest, step: &str, expected: &[(&str, u64)], total: &mut [u64]) -> Result<()> {
    const NAMES: [&str; 7] = [
        "reads",
        "writes",
        "filtered",
        "user_space",
        "gp",
        "host_reads",
        "host_writes",
    ];
    let counters = guest.folder().counters()?;

    for (name, total) in NAMES.iter().zip(total) {
        let by = expected.iter().find(|(n, _)| n == name).map_or(0, |e| e.1);
        let value = counters
            .get(*name)
            .with_context(|| format!("no counter {name}"))?;

        ensure!(
            *value == *total + by,
            "{step}: counter {name} went from {total} to {value}, not up by {by}"
        );
        *total = *value;
    }
    Ok(())
}

fn counters(side: &mut Side) -> Result<()> {
    let mut guest = side.guest()?;
    if side.engine != Engine::Rust {
        return Ok(());
    }
    let mut total = [0; 7];
    let total = &mut total[..];

    grown(&guest, "new VM", &[], total)?;
    guest.rdmsr(PAT)?;
    grown(&guest, "RDMSR", &[("reads", 1)], total)?;
    guest.wrmsr(0x8b, 0)?;
    grown(&guest, "WRMSR", &[("writes", 1)], total)?;
    guest.rdmsr_emulated(PAT)?;
    grown(&guest, "emulated RDMSR", &[("reads", 1)], total)?;
    guest.wrmsr_emulated(0x8b, 0)?;
    grown(&guest, "emulated WRMSR", &[("writes", 1)], total)?;
    guest.start(Stub::RdmsrLoop, PAT, 0, 1000)?;
    guest.run()?;
    grown(&guest, "1000 RDMSR", &[("reads", 1000)], total)?;

    guest.rdmsr(NOBODY)?;
    grown(&guest, "unknown", &[("reads", 1), ("gp", 1)], total)?;
    guest.wrmsr_emulated(NOBODY, 0)?;
    grown(&guest, "unknown", &[("writes", 1), ("gp", 1)], total)?;

    Filter::allow_by_default()
        .with(Range::deny(READ | WRITE, NOBODY, 8))
        .set(guest.vm())?;
    grown(&guest, "setting a filter", &[], total)?;
    guest.rdmsr(NOBODY)?;
    let denied = [("reads", 1), ("filtered", 1), ("gp", 1)];
    grown(&guest, "denied RDMSR", &denied, total)?;
    guest.wrmsr_emulated(NOBODY, 0)?;
    let denied = [("writes", 1), ("filtered", 1), ("gp", 1)];
    grown(&guest, "denied WRMSR", &denied, total)?;

    guest.deflect(KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN)?;
    for emulated in [false, true] {
        guest.access(kvm_msr_guest::Access::Read, emulated, NOBODY, 0)?;
        let deflected = [("reads", 1), ("filtered", 1), ("user_space", 1)];
        grown(&guest, "denied, to user space", &deflected, total)?;
        guest.answer(1, 0);
        guest.run()?;
        grown(&guest, "answered", &[], total)?;

        guest.access(kvm_msr_guest::Access::Write, emulated, NOBODY + 8, 0)?;
        let deflected = [("writes", 1), ("user_space", 1)];
        grown(&guest, "unknown, to user space", &deflected, total)?;
        guest.answer(0, 1);
        guest.run()?;
        grown(&guest, "answered with an error", &[("gp", 1)], total)?;
    }

    msrs::get(guest.vcpu(), PAT)?;
    grown(&guest, "KVM_GET_MSRS", &[("host_reads", 1)], total)?;
    msrs::set(guest.vcpu(), PAT, 0)?;
    grown(&guest, "KVM_SET_MSRS", &[("host_writes", 1)], total)?;
    msrs::get(guest.vcpu(), NOBODY)?;
    grown(&guest, "KVM_GET_MSRS of none", &[], total)
}
