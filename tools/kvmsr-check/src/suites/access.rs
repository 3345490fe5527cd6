// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Compares `list`, `get`, `set` and `probe` with plain ioctls and a plain guest: every listed
//! MSR, and many others.
//!
//! An MSR that differs is accessed once more by plain ioctls, on another VM. If the two plain VMs
//! differ as well, the MSR depends on time, and kvmsr's result can't be checked.

mod bits;
mod raw;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fmt::Write;
use std::fs;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Random;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::report::Report;
use crate::run::Kvmsr;
use bits::Found;
use bits::Masks;
use raw::By;
use raw::Raw;

const SEED: u64 = 0x6b76_6d73_7200;

/// Number of random MSRs, in addition to the listed ones.
const RANDOM: usize = 10_000;

/// Index ranges with MSRs.
const INHABITED: [(u32, u32); 5] = [
    (0, 0x2000),
    (0x4000_0000, 0x200),
    (0x4b56_4d00, 0x100),
    (0xc000_0000, 0x2000),
    (0xc001_0000, 0x2000),
];

/// Number of random MSRs, accessible or known to KVM, whose bits are all tried by plain accesses.
const BIT_BY_BIT: usize = 100;

/// The maximum number of MSRs per test that may depend on time.
const MOVING: usize = 24;

/// The number of differences that are printed.
const TOLD: usize = 5;

/// The parameter by which KVM logs accesses to unknown MSRs.
const LOGS: &str = "/sys/module/kvm/parameters/report_ignored_msrs";

/// The time in which an MSR that may change by itself has to do so.
const PATIENCE: Duration = Duration::from_millis(40);

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    let logs = fs::read_to_string(LOGS);
    let mut documents = Vec::new();

    // Without this, the kernel would spend most of the time logging. It is optional.
    let _ = fs::write(LOGS, "N");

    report.test("list", || list(kvmsr, &mut documents));
    for by in By::ALL {
        report.test(&format!("get by {}", by.name()), || get(kvmsr, by));
    }
    for by in By::ALL {
        report.test(&format!("set by {}", by.name()), || set(kvmsr, by));
    }
    report.test("probe", || probe(kvmsr));
    report.test("probe, bits of the first instruction", || first(kvmsr));
    report.test("documents", || few(kvmsr, &mut documents));
    for (schema, document) in documents {
        report.document(schema, &document);
    }
    if let Ok(logs) = logs {
        let _ = fs::write(LOGS, logs.trim());
    }
}

/// An MSR in kvmsr's JSON.
#[derive(Debug, Deserialize)]
struct Said<T> {
    msrs: Vec<T>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Got {
    index: String,
    value: Option<String>,
    refused: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Written {
    index: String,
    before: Option<String>,
    value: String,
    refused: Option<Refusal>,
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Probed {
    index: String,
    user: Stages,
    guest: Stages,
}

#[derive(Debug, Deserialize)]
struct Stages {
    before_run: Option<Access>,
    after_run: Access,
}

#[derive(Debug, Deserialize)]
struct Access {
    readable: bool,
    writable: bool,
    #[serde(default)]
    moves: bool,
    bits: Option<Bits>,
    write_refused: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Bits {
    sticks: String,
    ignored: String,
    refused: String,
    unclear: String,
    left: String,
}

fn hex(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").context("a number without 0x")?;

    u64::from_str_radix(digits, 16).with_context(|| format!("the number {text}"))
}

fn value(text: Option<&String>) -> Result<Option<u64>> {
    text.map(|text| hex(text)).transpose()
}

fn ask<T: DeserializeOwned>(kvmsr: &Kvmsr, arguments: &[&str], input: &str) -> Result<Vec<T>> {
    let mut all = vec!["--json"];

    all.extend(arguments);
    let said = kvmsr.run(&all, input)?;

    ensure!(
        said.code == 0 || said.code == 1,
        "kvmsr {} exited with {}: {}",
        all.join(" "),
        said.code,
        said.stderr
    );
    let said: Said<T> = serde_json::from_str(&said.stdout).context("its output")?;

    Ok(said.msrs)
}

fn listed() -> Result<Vec<u32>> {
    let kvm = Kvm::new()?;
    let saved = kvm.get_msr_index_list()?;
    let features = kvm.get_msr_feature_index_list()?;
    let all: BTreeSet<u32> = saved
        .as_slice()
        .iter()
        .chain(features.as_slice())
        .copied()
        .collect();

    Ok(all.into_iter().collect())
}

/// Random MSRs: half of them in ranges with MSRs, half anywhere.
fn random(seed: u64) -> Vec<u32> {
    let mut random = Random::new(SEED ^ seed);

    (0..RANDOM)
        .map(|number| {
            if number % 2 == 0 {
                inhabited(random.below(INHABITED.iter().map(|range| range.1).sum()))
            } else {
                random.next() as u32
            }
        })
        .collect()
}

/// An MSR in `INHABITED`.
fn inhabited(mut number: u32) -> u32 {
    for (base, count) in INHABITED {
        if number < count {
            return base + number;
        }
        number -= count;
    }
    u32::MAX
}

fn lines(indices: &[u32]) -> String {
    indices.iter().fold(String::new(), |mut lines, index| {
        let _ = writeln!(lines, "{index:#x}");
        lines
    })
}

/// Whether a value changes by itself: some only do so with the kernel's clock tick.
fn moves<T: PartialEq>(is: &T, mut read: impl FnMut() -> Result<T>) -> Result<bool> {
    let start = Instant::now();

    while start.elapsed() < PATIENCE {
        if read()? != *is {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fails if there are differences, and prints the first ones.
fn judge(differences: &[String], excused: &BTreeSet<u32>) -> Result<()> {
    ensure!(
        excused.len() <= MOVING,
        "{} MSRs depend on time: {excused:x?}",
        excused.len()
    );
    if differences.is_empty() {
        return Ok(());
    }
    bail!(
        "{} differences, as {}",
        differences.len(),
        differences[..differences.len().min(TOLD)].join("; ")
    )
}

fn differs(index: u32, kvmsr: &impl Debug, raw: &impl Debug) -> String {
    format!("{index:#x}: kvmsr {kvmsr:x?}, raw {raw:x?}")
}

fn list(kvmsr: &Kvmsr, documents: &mut Vec<(&'static str, String)>) -> Result<String> {
    #[derive(Deserialize)]
    struct Lists {
        saved: Vec<Got>,
        features: Vec<Got>,
    }
    let said = kvmsr.run(&["--json", "list"], "")?;

    ensure!(said.code == 0, "exit code {}: {}", said.code, said.stderr);
    let lists: Lists = serde_json::from_str(&said.stdout)?;
    let kvm = Kvm::new()?;
    let raw = Raw::new(false)?;
    let mut count = 0;
    let mut moving = 0;

    for (what, list, indices) in [
        ("saved", &lists.saved, kvm.get_msr_index_list()?.as_slice()),
        (
            "features",
            &lists.features,
            kvm.get_msr_feature_index_list()?.as_slice(),
        ),
    ] {
        let said: Vec<u64> = list
            .iter()
            .map(|msr| hex(&msr.index))
            .collect::<Result<_>>()?;

        ensure!(
            said.iter()
                .copied()
                .eq(indices.iter().map(|&index| u64::from(index))),
            "the list of {what} MSRs differs"
        );
        for (msr, &index) in list.iter().zip(indices) {
            let said = value(msr.value.as_ref())?;
            let read = || -> Result<Option<u64>> {
                if what == "saved" {
                    return raw.get(index);
                }
                let mut msrs = kvm_bindings::Msrs::from_entries(&[kvm_bindings::kvm_msr_entry {
                    index,
                    ..Default::default()
                }])?;
                let done = kvm.get_msrs(&mut msrs)?;

                Ok((done == 1).then(|| msrs.as_slice()[0].data))
            };
            let is = read()?;

            count += 1;
            if said != is {
                let moves = moves(&is, read)?;

                ensure!(moves, "{}", differs(index, &said, &is));
                moving += 1;
            }
        }
    }
    documents.push(("list", said.stdout));
    Ok(format!("{count} listed MSRs are equal, {moving} move"))
}

fn get(kvmsr: &Kvmsr, by: By) -> Result<String> {
    let listed = listed()?;
    let indices = [listed.clone(), random(1)].concat();
    let said: Vec<Got> = ask(
        kvmsr,
        &["get", "--from", "-", "--by", by.name()],
        &lines(&indices),
    )?;
    let mut raw = Raw::new(false)?;
    let mut differences = Vec::new();
    let mut moving = BTreeSet::new();
    let mut readable = 0;

    ensure!(said.len() == indices.len(), "{} answers", said.len());
    for (said, &index) in said.iter().zip(&indices) {
        ensure!(hex(&said.index)? == u64::from(index), "the order differs");
        let got = match &said.refused {
            Some(refusal) => Err(refusal.kind.as_str()),
            None => Ok(value(said.value.as_ref())?.context("neither value nor refusal")?),
        };
        let is = raw.read(by, index)?;

        readable += usize::from(is.is_ok());
        if got == is {
            continue;
        }
        if got.is_ok() && is.is_ok() && moves(&is, || raw.read(by, index))? {
            moving.insert(index);
        } else {
            differences.push(differs(index, &got, &is));
        }
    }
    judge(&differences, &moving)?;
    Ok(format!(
        "{} MSRs are equal, {} of them listed; {readable} can be read; {} move",
        indices.len(),
        listed.len(),
        moving.len()
    ))
}

/// The result of a write: the value before, the refusal if any, and the value after.
type Write3 = (Option<u64>, Result<(), String>, Option<u64>);

/// Makes the writes by plain accesses; for some MSRs with a delay before and after.
fn raw_writes(by: By, writes: &[(u32, u64)], delayed: &BTreeSet<u32>) -> Result<Vec<Write3>> {
    const DELAY: Duration = Duration::from_micros(50);
    let mut raw = Raw::new(false)?;
    let delay = |index: u32| {
        if delayed.contains(&index) {
            thread::sleep(DELAY);
        }
    };

    writes
        .iter()
        .map(|&(index, value)| {
            delay(index);
            let before = raw.read(by, index)?.ok();
            let wrote = raw.write(by, index, value)?;
            delay(index);
            let after = raw.read(by, index)?.ok();

            Ok((before, wrote.map_err(str::to_owned), after))
        })
        .collect()
}

fn set(kvmsr: &Kvmsr, by: By) -> Result<String> {
    let listed = listed()?;
    let writes = writes(&listed)?;
    let input = writes
        .iter()
        .fold(String::new(), |mut lines, (index, value)| {
            let _ = writeln!(lines, "{index:#x} {value:#x}");
            lines
        });
    let said: Vec<Written> = ask(kvmsr, &["set", "--from", "-", "--by", by.name()], &input)?;
    let raw = raw_writes(by, &writes, &BTreeSet::new())?;
    let mut suspects = Vec::new();
    let mut taken = 0;

    ensure!(said.len() == writes.len(), "{} answers", said.len());
    for (number, (said, &(index, written))) in said.iter().zip(&writes).enumerate() {
        ensure!(
            hex(&said.index)? == u64::from(index) && hex(&said.value)? == written,
            "the order differs"
        );
        let wrote = (
            value(said.before.as_ref())?,
            match &said.refused {
                Some(refusal) => Err(refusal.kind.clone()),
                None => Ok(()),
            },
            value(said.after.as_ref())?,
        );

        taken += usize::from(raw[number].1.is_ok());
        if wrote != raw[number] {
            suspects.push((number, wrote));
        }
    }
    let (differences, moving) = suspected(by, &writes, &raw, &suspects)?;

    judge(&differences, &moving)?;
    Ok(format!(
        "{} writes to {} listed MSRs and {RANDOM} others are equal; {taken} were accepted; {} move",
        writes.len(),
        listed.len(),
        moving.len()
    ))
}

/// Distinguishes differences from dependence on time, which a delayed plain VM shows.
fn suspected(
    by: By,
    writes: &[(u32, u64)],
    raw: &[Write3],
    suspects: &[(usize, Write3)],
) -> Result<(Vec<String>, BTreeSet<u32>)> {
    let mut differences = Vec::new();
    let mut moving = BTreeSet::new();

    if suspects.is_empty() {
        return Ok((differences, moving));
    }
    let delayed = suspects
        .iter()
        .map(|(number, _)| writes[*number].0)
        .collect();
    let again = raw_writes(by, writes, &delayed)?;

    for (number, wrote) in suspects {
        let (index, value) = writes[*number];
        let is = &raw[*number];

        // Whether a write is accepted can always be compared.
        if wrote.1 == is.1 && again[*number] != *is {
            moving.insert(index);
        } else {
            differences.push(format!("{} = {value:#x}", differs(index, wrote, is)));
        }
    }
    Ok((differences, moving))
}

/// Values for every listed MSR, and one for each of the others.
fn writes(listed: &[u32]) -> Result<Vec<(u32, u64)>> {
    let raw = Raw::new(false)?;
    let mut random_values = Random::new(SEED ^ 2);
    let mut writes = Vec::new();

    for &index in listed {
        let reset = raw.get(index)?.unwrap_or(0);
        // Leaves out bits that would make KVM write to the page with the plain guest's tables.
        let values = [
            0,
            reset,
            u64::MAX,
            1 << 0,
            1 << 5,
            1 << 31,
            1 << 47,
            1 << 63,
            reset ^ 1 << 11,
            random_values.next() << 16,
            reset,
        ];

        writes.extend(values.map(|value| (index, value)));
    }
    writes.extend(random(3).into_iter().map(|index| {
        let value = match random_values.below(4) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (16 + random_values.below(48)),
            _ => random_values.next() << 16,
        };

        (index, value)
    }));
    Ok(writes)
}

/// The plain VMs: for user space, before and after a run; for the guest.
struct Judges([Raw; 3]);

impl Judges {
    fn new() -> Result<Self> {
        Ok(Judges([Raw::new(false)?, Raw::new(true)?, Raw::new(true)?]))
    }

    fn find(&mut self, index: u32, each_bit: bool) -> Result<[Found; 3]> {
        let [never_ran, has_run, guest] = &mut self.0;

        Ok([
            bits::find(never_ran, By::Ioctl, index, each_bit)?,
            bits::find(has_run, By::Ioctl, index, each_bit)?,
            bits::find(guest, By::Guest, index, each_bit)?,
        ])
    }
}

impl Access {
    /// Selects what is compared. Bits are left out if they were not tried on either side.
    fn found(&self, each_bit: bool) -> Result<Found> {
        let masks = match &self.bits {
            Some(bits) if each_bit => Some(Masks {
                sticks: hex(&bits.sticks)?,
                ignored: hex(&bits.ignored)?,
                refused: hex(&bits.refused)?,
                unclear: hex(&bits.unclear)?,
                left: hex(&bits.left)?,
            }),
            // KVM does not know the MSR, so it is not tried.
            None if each_bit => Some(Masks {
                refused: u64::MAX,
                ..Default::default()
            }),
            _ => None,
        };

        Ok(Found {
            readable: self.readable,
            moves: self.moves,
            // Without bits, only the current value is compared.
            writable: if each_bit {
                self.writable
            } else {
                self.write_refused.is_none()
            },
            masks,
        })
    }
}

/// Whether kvmsr's result is right. The stored bits of an MSR that changes by itself are unknown.
fn agrees(said: &Found, is: &Found) -> bool {
    let taken = |found: &Found| found.masks.map(|masks| (masks.refused, masks.left));

    if is.moves || said.moves {
        said.readable == is.readable && said.writable == is.writable && taken(said) == taken(is)
    } else {
        said == is
    }
}

fn probe(kvmsr: &Kvmsr) -> Result<String> {
    let listed = listed()?;
    let indices = [listed.clone(), random(4)].concat();
    let said: Vec<Probed> = ask(kvmsr, &["probe", "--from", "-"], &lines(&indices))?;
    let mut judges = Judges::new()?;
    let mut differences = Vec::new();
    let mut in_the_open = 0;
    let mut refused = 0;
    let mut bit_by_bit = 0;
    let mut moving = BTreeSet::new();

    ensure!(said.len() == indices.len(), "{} answers", said.len());
    for (number, (said, &index)) in said.iter().zip(&indices).enumerate() {
        ensure!(hex(&said.index)? == u64::from(index), "the order differs");
        let stages = [
            said.user.before_run.as_ref().context("never ran")?,
            &said.user.after_run,
            &said.guest.after_run,
        ];
        let is_open = stages
            .iter()
            .any(|access| access.readable || access.writable);
        let each_bit = if number < listed.len() {
            true
        } else if is_open {
            in_the_open += 1;
            in_the_open <= BIT_BY_BIT
        } else if said.guest.after_run.bits.is_some() {
            refused += 1;
            refused <= BIT_BY_BIT / 4
        } else {
            false
        };
        let said = [
            stages[0].found(each_bit)?,
            stages[1].found(each_bit)?,
            stages[2].found(each_bit)?,
        ];
        let agree = |is: &[Found; 3]| said.iter().zip(is).all(|(said, is)| agrees(said, is));
        let mut is = judges.find(index, each_bit)?;

        bit_by_bit += usize::from(each_bit);
        if !agree(&is) {
            // The plain VMs are reused for all MSRs, so earlier ones may have had side effects.
            is = Judges::new()?.find(index, each_bit)?;
        }
        if is.iter().any(|found| found.moves) {
            moving.insert(index);
        }
        if !agree(&is) {
            differences.push(differs(index, &said, &is));
        }
    }
    judge(&differences, &moving)?;
    Ok(format!(
        "{} MSRs are equal, {} of them listed; {bit_by_bit} bit by bit, for user space before and \
         after a run, and for the guest; {} move",
        indices.len(),
        listed.len(),
        moving.len()
    ))
}

/// Tests the guest's first instruction, which needs a VM for each bit.
fn first(kvmsr: &Kvmsr) -> Result<String> {
    const PAT: u32 = 0x277;
    const FEW: usize = 8;
    let mut differences = Vec::new();
    let listed: Vec<u32> = listed()?.into_iter().step_by(9).take(FEW).collect();
    let said: Vec<Probed> = ask(kvmsr, &["probe", "--from", "-"], &lines(&listed))?;

    // Reads, and writes of the current value.
    for (said, &index) in said.iter().zip(&listed) {
        let value = Raw::new(false)?.get(index)?.unwrap_or(0);
        let readable = Raw::new(false)?.read(By::Guest, index)?.is_ok();
        let writable = Raw::new(false)?.write(By::Guest, index, value)?.is_ok();
        let said = said
            .guest
            .before_run
            .as_ref()
            .map_or((false, false), |access| (access.readable, access.writable));

        if said != (readable, writable) {
            differences.push(differs(index, &said, &(readable, writable)));
        }
    }
    // Every third bit, because each needs a VM.
    let said: Vec<Probed> = ask(kvmsr, &["probe", &format!("{PAT:#x}")], "")?;
    let said = said
        .first()
        .and_then(|msr| msr.guest.before_run.as_ref())
        .context("the guest's first instruction was not tried")?
        .found(true)?
        .masks
        .context("its bits were not tried")?;

    for bit in (0..64).step_by(3).map(|bit| 1 << bit) {
        let mut raw = Raw::new(false)?;
        let base = raw.get(PAT)?.context("IA32_PAT can't be read")?;
        let mut is = Masks::default();

        match raw.write(By::Guest, PAT, base ^ bit)? {
            Err(_) => is.refused = bit,
            Ok(()) if raw.read(By::Guest, PAT)? == Ok(base ^ bit) => is.sticks = bit,
            Ok(()) => is.ignored = bit,
        }
        if said.of(bit) != is {
            differences.push(differs(PAT, &said.of(bit), &is));
        }
    }
    judge(&differences, &BTreeSet::new())?;
    Ok(format!(
        "{} MSRs and every third bit of IA32_PAT are equal",
        listed.len()
    ))
}

/// Some MSRs of each kind, for the schemas.
fn few(kvmsr: &Kvmsr, documents: &mut Vec<(&'static str, String)>) -> Result<String> {
    let msrs = [
        "0x40000020",
        "0x1b",
        "0x277",
        "0x345",
        "0x40000003",
        "0xdeadbeef",
    ];
    let mut count = 0;

    for (verb, more) in [
        ("get", &["--by", "guest"][..]),
        ("get", &["-f", "15:8"]),
        ("probe", &[]),
    ] {
        let arguments = [&["--json", verb][..], &msrs, more].concat();
        let said = kvmsr.run(&arguments, "")?;

        ensure!(said.code == 1, "exit code {}: {}", said.code, said.stderr);
        documents.push((verb, said.stdout));
        count += 1;
    }
    let said = kvmsr.run(&["--json", "set", "0x277=0x406", "0x10=1", "0xdead=1"], "")?;

    ensure!(said.code == 1, "exit code {}: {}", said.code, said.stderr);
    documents.push(("set", said.stdout));
    Ok(format!("{} documents for validation", count + 2))
}
