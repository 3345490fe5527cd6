// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The policy and the statistics in the VM's debugfs folder.

use std::fs;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::Guest;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::MAX_RULES;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::Stats;
use kvm_msr_guest::device::uapi::WRITE;

use super::Test;
use super::setup::attached;
use super::setup::set_policy;
use crate::suites::filter_guest::NOBODY;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("debugfs shows the policy", policy),
    ("debugfs shows statistics", statistics),
];

fn lines(guest: &Guest, file: &str) -> Result<Vec<String>> {
    let path = guest.folder().path(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;

    Ok(text.lines().map(str::to_owned).collect())
}

fn shows(guest: &Guest, file: &str, expected: &[&str]) -> Result<()> {
    let lines = lines(guest, file)?;

    ensure!(
        lines == expected,
        "{file}: {lines:?} instead of {expected:?}"
    );
    Ok(())
}

fn policy() -> Result<String> {
    const LAST: u32 = 0x5000_000f;
    let (guest, device) = attached()?;
    let (both, always) = (READ | WRITE, uapi::ALWAYS);

    shows(&guest, "msr_policy", &["# no policy"])?;
    set_policy(
        &device,
        &[
            Rule::new(0, 0x7ff, READ, uapi::UNSUPPORTED, uapi::IGNORE, 0),
            Rule::new(0x1a0, 0x1a0, WRITE, always, uapi::MASK, 1),
            Rule::new(0x17, 0x17, both, always, uapi::CONSTANT, 0x300_0000),
            Rule::new(0x5000_0000, LAST, both, always, uapi::GP, 0),
            Rule::new(0x5000_0010, 0x5000_0010, READ, always, uapi::EXIT, 0),
            Rule::new(0x10, 0x10, READ, always, uapi::ALLOW, 0),
            Rule::new(0x8b, 0x8b, WRITE, always, uapi::MATCH, u64::MAX),
        ],
    )
    .context("SET_POLICY")?;
    shows(
        &guest,
        "msr_policy",
        &[
            "allow read when always 0x00000010-0x00000010",
            "constant=0x3000000 rw when always 0x00000017-0x00000017",
            "match=0xffffffffffffffff write when always 0x0000008b-0x0000008b",
            "mask=0x1 write when always 0x000001a0-0x000001a0",
            "gp rw when always 0x50000000-0x5000000f",
            "exit read when always 0x50000010-0x50000010",
            "ignore read when unsupported 0x00000000-0x000007ff",
        ],
    )?;

    // More than fits in a page.
    let many: Vec<_> = (0..MAX_RULES)
        .map(|rule| 0x1000 + 2 * rule)
        .map(|index| Rule::new(index, index, both, always, uapi::GP, 0))
        .collect();

    set_policy(&device, &many).context("SET_POLICY of many rules")?;
    let shown = lines(&guest, "msr_policy")?;
    ensure!(shown.len() == many.len(), "{} rules are shown", shown.len());
    set_policy(&device, &[]).context("SET_POLICY of no rules")?;
    shows(&guest, "msr_policy", &["# no policy"])?;
    Ok(String::new())
}

fn statistics() -> Result<String> {
    const HEADER: &str = "msr access count denied unsupported user_exits gp bucket:count";
    let (mut guest, device) = attached()?;

    shows(&guest, "msr_stats", &["no statistics"])?;
    device.call(&mut Stats::new(uapi::START))?;
    shows(&guest, "msr_stats", &[HEADER])?;
    for _ in 0..3 {
        guest.rdmsr(0x17)?;
    }
    guest.wrmsr(NOBODY, 1)?;
    let mut shown = lines(&guest, "msr_stats")?;

    shown.sort();
    for (line, expected) in shown.iter().zip([
        "0x00000017 read 3 0 0 0 0 ".to_owned(),
        format!("{NOBODY:#010x} write 1 0 1 0 1 "),
        HEADER.to_owned(),
    ]) {
        ensure!(line.starts_with(&expected), "{line:?}, not {expected:?}");
    }
    ensure!(shown.len() == 3, "{shown:?}");
    // The histogram has all accesses.
    let sum: u64 = shown[0]
        .split(' ')
        .filter_map(|word| word.split_once(':')?.1.parse::<u64>().ok())
        .sum();
    ensure!(sum == 3, "{sum} accesses in the histogram: {:?}", shown[0]);
    device.call(&mut Stats::new(uapi::STOP))?;
    shows(&guest, "msr_stats", &["no statistics"])?;
    Ok(String::new())
}
