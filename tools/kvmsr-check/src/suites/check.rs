// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests `kvmsr check` with the other vendor's snapshot, to which faults are added: verdicts are
//! compared with a `KVM_SET_MSRS` for each entry, and reasons with the added faults.

mod faults;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::msrs;
use kvmsr::cpuid::Cpuid;
use kvmsr::cpuid::Vendor;
use kvmsr::ioctl;
use kvmsr::number::Hex;
use kvmsr::snapshot::Snapshot;
use kvmsr::snapshot::Value as Msr;
use serde_json::Value;

use crate::report::Report;
use crate::run::Kvmsr;

use self::faults::Fault;

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    report.test("this host accepts its own snapshot", || own(kvmsr));
    let mut document = String::new();

    report.test("the other vendor's snapshot with 20 faults", || {
        with_faults(kvmsr, &mut document)
    });
    report.document("check", &document);
    report.test("each bit of some MSRs", || reserved_bits(kvmsr));
    report.test("MSRs that come too late", || too_late(kvmsr));
    report.test("errors are sentences", || errors(kvmsr));
}

/// The snapshot of this machine's vendor, or of the other vendor.
fn snapshot(kvmsr: &Kvmsr, other: bool) -> Result<(Vendor, Snapshot)> {
    let vendor = Cpuid::supported(&Kvm::new()?)?
        .vendor()
        .context("the host has no vendor that KVM knows")?;
    let name = match (vendor, other) {
        (Vendor::Amd, false) | (Vendor::Intel, true) => "snapshot-amd.json",
        (Vendor::Intel, false) | (Vendor::Amd, true) => "snapshot-intel.json",
    };
    let json = fs::read(kvmsr.file(name)).with_context(|| name.to_owned())?;

    Ok((vendor, serde_json::from_slice(&json)?))
}

/// Writes a file for kvmsr.
fn file(name: &str, snapshot: &Snapshot) -> Result<PathBuf> {
    let path = std::env::temp_dir().join(name);

    fs::write(&path, serde_json::to_vec(snapshot)?)?;
    Ok(path)
}

fn hex(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

/// The result of each entry on its own.
struct Truth {
    /// Whether KVM accepts it.
    taken: Vec<bool>,
    /// The final value of each MSR; none if it changes by itself, or can't be read.
    reads: Vec<Option<u64>>,
}

/// Creates a vCPU like `kvmsr check`, with plain ioctls.
fn raw_guest(snapshot: &Snapshot, after_run: bool) -> Result<Guest> {
    let options = Options {
        irqchip: true,
        ..Options::new(Engine::Any)
    };
    let mut guest = Guest::new(&Kvm::new()?, options)?;

    guest
        .vcpu()
        .set_cpuid2(&snapshot.cpuid.to_kvm()?)
        .context("KVM_SET_CPUID2")?;
    if let Some(Hex(cap)) = snapshot.mcg_cap {
        ioctl::setup_mce(guest.vcpu(), cap).context("KVM_X86_SETUP_MCE")?;
    }
    if after_run {
        guest.rdmsr(0x277)?;
    }
    Ok(guest)
}

fn truth(snapshot: &Snapshot, after_run: bool) -> Result<Truth> {
    let guest = raw_guest(snapshot, after_run)?;
    let mut taken = Vec::new();

    for msr in &snapshot.msrs {
        taken.push(msrs::set(guest.vcpu(), msr.index.0, msr.value.0)?);
    }
    let read = || {
        snapshot
            .msrs
            .iter()
            .map(|msr| Ok(msrs::get(guest.vcpu(), msr.index.0)?))
            .collect::<Result<Vec<_>>>()
    };
    let (first, second) = (read()?, read()?);
    let reads = first
        .into_iter()
        .zip(second)
        .map(|(first, second)| first.filter(|_| first == second))
        .collect();

    Ok(Truth { taken, reads })
}

/// Compares verdicts with KVM's results; returns how many were refused and changed.
fn judge(snapshot: &Snapshot, truth: &Truth, said: &Value) -> Result<(usize, usize)> {
    let entries = said["msrs"].as_array().context("no msrs")?;
    let (mut refused, mut changed) = (0, 0);

    ensure!(
        entries.len() == snapshot.msrs.len(),
        "{} entries became {}",
        snapshot.msrs.len(),
        entries.len()
    );
    for (((msr, entry), &taken), &reads) in snapshot
        .msrs
        .iter()
        .zip(entries)
        .zip(&truth.taken)
        .zip(&truth.reads)
    {
        let verdict = entry["verdict"].as_str().unwrap_or_default();
        let is_kept = msr.moves || reads.is_none_or(|reads| reads == msr.value.0);
        let right = match (taken, is_kept) {
            (false, _) => "refused",
            (true, false) => "changed",
            (true, true) => "fine",
        };

        ensure!(
            hex(&entry["index"]) == Some(msr.index.0.into()),
            "{} became {}",
            msr.index,
            entry["index"]
        );
        // A slow clock may seem to stand still.
        let is_clock = matches!(msr.index.0, 0x10 | 0x4000_0010 | 0x4000_0020);

        ensure!(
            verdict == right || is_clock && taken && verdict != "refused",
            "{} = {} is {right} ({reads:x?}), and not {verdict}: {}",
            msr.index,
            msr.value,
            entry["reasons"]
        );
        refused += usize::from(verdict == "refused");
        changed += usize::from(verdict == "changed");
    }
    Ok((refused, changed))
}

/// A file of 500 MSRs: those of both vendors, filled up with unknown ones.
pub(super) fn five_hundred(kvmsr: &Kvmsr) -> Result<PathBuf> {
    let (_, mut own) = snapshot(kvmsr, false)?;
    let (_, other) = snapshot(kvmsr, true)?;
    let unknown = (0x1234_0000..0x1234_0200).map(|index| Msr::new(index, 1));

    for msr in other.msrs.into_iter().chain(unknown) {
        if own.msrs.len() < 500 && own.msrs.iter().all(|own| own.index != msr.index) {
            own.msrs.push(msr);
        }
    }
    file("five-hundred.json", &own)
}

fn own(kvmsr: &Kvmsr) -> Result<String> {
    let snapshot = kvmsr.json(&["snapshot"], "", &[0])?;
    let text = snapshot.to_string();

    for arguments in [
        &["check", "-"][..],
        &["check", "-", "--after-run"],
        &["check", "-", "--cpu", "host"],
    ] {
        let said = kvmsr.json(arguments, &text, &[0])?;

        ensure!(said["refused"] == 0 && said["changed"] == 0);
    }
    Ok(format!(
        "{} MSRs",
        snapshot["msrs"].as_array().map_or(0, Vec::len)
    ))
}

fn with_faults(kvmsr: &Kvmsr, document: &mut String) -> Result<String> {
    let (vendor, mut snapshot) = snapshot(kvmsr, true)?;
    let faults = faults::plant(vendor, &mut snapshot);
    let path = file("faults.json", &snapshot)?;
    let path = path.to_str().context("a path")?;
    let truth = truth(&snapshot, true)?;
    let said = kvmsr.json(&["check", path, "--after-run"], "", &[1])?;

    *document = said.to_string();
    let (refused, changed) = judge(&snapshot, &truth, &said)?;

    ensure!(faults.len() == 20, "{} faults", faults.len());
    let wrong: Vec<_> = faults
        .iter()
        .filter_map(|fault| wrong_reason(fault, &snapshot, &said))
        .collect();

    ensure!(wrong.len() <= 1, "{}", wrong.join("; "));
    ensure!(
        said["order"].is_array(),
        "there is no working order: {}",
        said["vcpu"]
    );
    Ok(format!(
        "{refused} of {} refused and {changed} changed, as in KVM; {} of 20 reasons right{}",
        snapshot.msrs.len(),
        20 - wrong.len(),
        wrong
            .first()
            .map_or_else(String::new, |wrong| format!("; wrong: {wrong}"))
    ))
}

/// The difference between the reason and the fault, if any.
fn wrong_reason(fault: &Fault, snapshot: &Snapshot, said: &Value) -> Option<String> {
    let at = snapshot
        .msrs
        .iter()
        .position(|msr| msr.index.0 == fault.index)?;
    let entry = &said["msrs"][at];

    (entry["verdict"] != fault.verdict || !fault.reason.is(&entry["reasons"][0])).then(|| {
        format!(
            "{:#x} is {} for {:?}, and not {entry}",
            fault.index, fault.verdict, fault.reason
        )
    })
}

/// Sets each bit of some MSRs: it must be named as reserved exactly if KVM refuses it.
fn reserved_bits(kvmsr: &Kvmsr) -> Result<String> {
    let (_, mut snapshot) = snapshot(kvmsr, false)?;
    let mut bits = 0;
    // IA32_CR_PAT, MTRRs, HWCR, STEAL_TIME, POLL_CONTROL, MISC_FEATURES_ENABLES.
    let indices = [
        0x277,
        0x250,
        0x2ff,
        0x200,
        0x201,
        0xc001_0015,
        0x4b56_4d03,
        0x4b56_4d05,
        0x140,
    ];
    let values: Vec<_> = snapshot.msrs.drain(..).collect();

    for index in indices {
        let Some(msr) = values.iter().find(|msr| msr.index.0 == index) else {
            continue;
        };
        // Tests all bits that KVM refuses together with one that it accepts.
        let guest = raw_guest(&snapshot, false)?;
        let mut value = msr.value.0;

        for bit in (0..64).map(|bit| 1u64 << bit) {
            if value & bit == 0 && !msrs::set(guest.vcpu(), index, msr.value.0 | bit)? {
                value |= bit;
            }
        }
        snapshot.msrs = vec![Msr {
            value: Hex(value),
            ..msr.clone()
        }];
        let path = file("bits.json", &snapshot)?;
        let said = kvmsr.json(&["check", path.to_str().context("a path")?], "", &[0, 1])?;
        let reason = &said["msrs"][0]["reasons"][0];

        if value == msr.value.0 {
            ensure!(said["refused"] == 0, "{index:#x} = {value:#x}: {said}");
            continue;
        }
        ensure!(
            reason["kind"] == "reserved-bits",
            "{index:#x} = {value:#x}: {said}"
        );
        let clear = hex(&reason["clear"]).context("clear")?;
        let takes = hex(&reason["takes"]).context("takes")?;
        let fresh = raw_guest(&snapshot, false)?;

        // The bits must be right, and none of them superfluous.
        ensure!(takes == value & !clear && msrs::set(fresh.vcpu(), index, takes)?);
        for bit in (0..64)
            .map(|bit| 1u64 << bit)
            .filter(|bit| clear & bit != 0)
        {
            ensure!(
                !msrs::set(fresh.vcpu(), index, takes | bit)?,
                "{index:#x}: {bit:#x} need not be clear in {value:#x}"
            );
        }
        bits += clear.count_ones();
    }
    ensure!(bits > 100, "{bits} bits");
    Ok(format!("{bits} reserved bits, none too many"))
}

/// Once EFER enables SVM, AMD's VM_CR can't disable it.
fn too_late(kvmsr: &Kvmsr) -> Result<String> {
    let (vendor, mut snapshot) = snapshot(kvmsr, false)?;

    if vendor != Vendor::Amd {
        return Ok("Intel has no such MSRs".to_owned());
    }
    let vm_cr = Msr::new(0xc001_0114, 0x10);

    for msr in &mut snapshot.msrs {
        if msr.index.0 == 0xc000_0080 {
            msr.value = Hex(0x1000);
        }
    }
    snapshot.msrs.retain(|msr| msr.index != vm_cr.index);
    snapshot.msrs.push(vm_cr);
    let path = file("too-late.json", &snapshot)?;
    let truth = truth(&snapshot, false)?;
    let said = kvmsr.json(&["check", path.to_str().context("a path")?], "", &[1])?;
    let last = snapshot.msrs.len() - 1;
    let reason = &said["msrs"][last]["reasons"][0];

    judge(&snapshot, &truth, &said)?;
    ensure!(
        said["refused"] == 1
            && reason["kind"] == "too-late"
            && hex(&reason["before"]) == Some(0xc000_0080),
        "{}",
        said["msrs"][last]
    );
    // In the printed order, KVM accepts all entries. The file's clocks may be another machine's.
    let order = said["order"].as_array().context("no order is named")?;

    snapshot.msrs = order
        .iter()
        .filter_map(|at| snapshot.msrs.get(usize::try_from(at.as_u64()?).ok()?))
        .cloned()
        .collect();
    let path = file("in-time.json", &snapshot)?;

    let said = kvmsr.json(&["check", path.to_str().context("a path")?], "", &[0, 1])?;

    ensure!(said["refused"] == 0, "{}", said["order"]);
    Ok(String::new())
}

fn errors(kvmsr: &Kvmsr) -> Result<String> {
    for (input, says) in [
        ("", "empty"),
        ("{\"schema\": 1, \"kind\": \"snap", "incomplete"),
        (
            "{\"schema\": 1, \"kind\": \"snapshot\", \"msrs\": [], \"x\": 1}",
            "unknown field",
        ),
        ("{\"schema\": 2}", "schema 2"),
        ("\u{7f}ELF", "not JSON"),
    ] {
        let said = kvmsr.run(&["check", "-"], input)?;

        ensure!(
            said.code == 2 && said.stderr.contains(says) && said.stdout.is_empty(),
            "{input}: {} {}",
            said.code,
            said.stderr
        );
    }
    let said = kvmsr.run(&["check", "/nonexistent.json"], "")?;

    ensure!(said.code == 2 && said.stderr.contains("/nonexistent.json"));
    // No incomplete file is written.
    let said = kvmsr.run(&["snapshot", "-o", "/nonexistent/snapshot.json"], "")?;

    ensure!(said.code == 2 && said.stderr.contains("/nonexistent/snapshot.json"));
    Ok(String::new())
}
