// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests the verbs for a running VM: `kvmsr` attaches to a plain guest of this process, which knows
//! nothing of it, and the results are compared with what the guest did and with plain ioctls.

use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::msrs;
use rustix::process::Signal;
use serde_json::Value;

use crate::report::Report;
use crate::run::Kvmsr;
use crate::run::Said;
use crate::suites::live::Watch;
use crate::suites::live::repeat;
use crate::suites::live::with_guest;

/// An MSR that no CPU has.
pub(super) const UNKNOWN: u32 = 0xc000_1fff;
/// IA32_PLATFORM_ID: KVM reads it as 0 and never passes it through.
pub(super) const PLATFORM_ID: u32 = 0x17;
/// IA32_CR_PAT, which keeps the written value.
pub(super) const PAT: u32 = 0x277;
pub(super) const PAT_VALUE: u64 = 0x0007_0406_0007_0401;
/// FS_BASE, which KVM passes through to the guest.
pub(super) const FS_BASE: u32 = 0xc000_0100;
/// An MTRR, which KVM_GET_MSR_INDEX_LIST lacks.
const MTRR: &str = "0x200";

const POLICY: &str = "ignore when unsupported 0xc0001f00-0xc0001fff\nconstant=0x5 read 0x17\n";

pub(super) const READS: u64 = 1_000;
pub(super) const WRITES: u64 = 500;

/// Longer than the interval at which the program looks whether it shall end.
const MOMENT: Duration = Duration::from_millis(300);

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    let mut documents = Vec::new();

    report.test("a guest sees its policy", || policy(kvmsr, &mut documents));
    report.test("a held policy ends with kvmsr", || hold(kvmsr));
    report.test("a held policy ends with the VM", || outlive(kvmsr));
    report.test("learned is what the guest accessed", || {
        learn(kvmsr, &mut documents)
    });
    report.test("statistics are exact", || stats(kvmsr, &mut documents));
    report.test("top counts by the engine's statistics", || top(kvmsr));
    report.test("registers are as of plain ioctls", || {
        registers(kvmsr, &mut documents)
    });
    report.test("the save list has the MTRRs", || {
        save_list(kvmsr, &mut documents)
    });
    report.test("doctor reports the device", || doctor(kvmsr));
    report.test("errors say what to do", || errors(kvmsr));
    for (schema, document) in documents {
        report.document(schema, &document);
    }
}

type Documents = Vec<(&'static str, String)>;

pub(super) fn pid() -> String {
    std::process::id().to_string()
}

/// Runs a verb on this process's VM, and expects success.
fn on_vm(kvmsr: &Kvmsr, arguments: &[&str], input: &str) -> Result<Value> {
    let pid = pid();
    let choice = match arguments.first() {
        Some(&("get" | "set")) => "--vm",
        _ => "--pid",
    };
    let mut all = arguments.to_vec();

    all.extend([choice, &pid]);
    kvmsr.json(&all, input, &[0])
}

fn expect(guest: &mut Guest, index: u32, outcome: Option<u64>) -> Result<()> {
    let got = guest.rdmsr(index)?;
    let as_expected = match outcome {
        Some(value) => got == Outcome::Value(value),
        None => got.is_gp(),
    };

    ensure!(as_expected, "a read of {index:#x} is {got}");
    Ok(())
}

fn policy(kvmsr: &Kvmsr, documents: &mut Documents) -> Result<String> {
    with_guest(Engine::Rust, |guest| {
        expect(guest, UNKNOWN, None)?;
        expect(guest, PLATFORM_ID, Some(0))?;
        let set = on_vm(kvmsr, &["policy", "set", "-"], POLICY)?;

        ensure!(set["rules"] == 2, "set: {set}");
        documents.push(("policy-set", set.to_string()));
        expect(guest, UNKNOWN, Some(0))?;
        expect(guest, PLATFORM_ID, Some(5))?;
        let pid = pid();
        let got = kvmsr.run(&["policy", "get", "--pid", &pid], "")?;
        let mut lines: Vec<&str> = got.stdout.lines().collect();

        lines.sort_unstable();
        ensure!(
            lines
                == [
                    "constant=0x5 read 0x17",
                    "ignore rw when unsupported 0xc0001f00-0xc0001fff"
                ],
            "get: {}",
            got.stdout
        );
        let json = on_vm(kvmsr, &["policy", "get"], "")?;
        let again = on_vm(kvmsr, &["policy", "set", "-"], &json.to_string())?;

        ensure!(again["rules"] == 2, "set again: {again}");
        // A wrong policy changes nothing.
        let wrong = kvmsr.run(
            &["policy", "set", "-", "--pid", &pid],
            "gp 0x17\nexit 0x17\n",
        )?;

        ensure!(
            wrong.code == 2 && wrong.stderr.contains("line 2"),
            "{}",
            wrong.stderr
        );
        expect(guest, PLATFORM_ID, Some(5))?;
        on_vm(kvmsr, &["policy", "clear"], "")?;
        expect(guest, UNKNOWN, None)?;
        expect(guest, PLATFORM_ID, Some(0))?;
        Ok(String::new())
    })
}

/// Starts `policy set --hold` with rules from a file, as `Watch` has no input.
fn held(kvmsr: &Kvmsr) -> Result<Watch> {
    let file = "/tmp/held.txt";

    std::fs::write(file, POLICY)?;
    Watch::start(kvmsr, &["policy", "set", file, "--hold", "--pid", &pid()])
}

fn hold(kvmsr: &Kvmsr) -> Result<String> {
    with_guest(Engine::Rust, |guest| {
        let watch = held(kvmsr)?;

        expect(guest, PLATFORM_ID, Some(5))?;
        watch.signal(Signal::TERM)?;
        watch.end()?;
        expect(guest, PLATFORM_ID, Some(0))?;
        Ok(String::new())
    })
}

fn outlive(kvmsr: &Kvmsr) -> Result<String> {
    let watch = with_guest(Engine::Rust, |_| held(kvmsr))?;

    // The VM has ended with its guest, and so ends the program, without a signal.
    watch.end()?;
    Ok(String::new())
}

/// The entry of an MSR, and of a kind of access if one is given.
fn row<'a>(rows: &'a Value, index: u32, access: Option<&str>) -> Result<&'a Value> {
    let name = format!("{index:#x}");

    rows.as_array()
        .context("a list")?
        .iter()
        .find(|row| {
            row["index"] == name.as_str() && access.is_none_or(|access| row["access"] == access)
        })
        .with_context(|| format!("no entry of {name}: {rows}"))
}

/// Makes the guest access MSRs; among them one that is passed through, and one that KVM lacks.
pub(super) fn work(guest: &mut Guest) -> Result<()> {
    repeat(guest, Stub::RdmsrLoop, PLATFORM_ID, READS)?;
    repeat(guest, Stub::WrmsrLoop, FS_BASE, WRITES)?;
    guest.wrmsr(PAT, PAT_VALUE)?;
    expect(guest, PAT, Some(PAT_VALUE))?;
    expect(guest, UNKNOWN, None)
}

fn learn(kvmsr: &Kvmsr, documents: &mut Documents) -> Result<String> {
    let said = with_guest(Engine::Rust, |guest| {
        let watch = Watch::start(kvmsr, &["--json", "learn", "--pid", &pid()])?;

        work(guest)?;
        watch.signal(Signal::TERM)?;
        watch.end()
    })?;
    let file: Value = serde_json::from_str(&said)?;
    let msrs = &file["learned"];

    ensure!(
        msrs.as_array().map(Vec::len) == Some(4),
        "not four MSRs: {msrs}"
    );
    for (index, reads, writes, unsupported) in [
        (PLATFORM_ID, READS, 0, false),
        (FS_BASE, 0, WRITES, false),
        (PAT, 1, 1, false),
        (UNKNOWN, 1, 0, true),
    ] {
        let msr = row(msrs, index, None)?;

        ensure!(
            msr["reads"] == reads && msr["writes"] == writes && msr["unsupported"] == unsupported,
            "{msr}"
        );
    }
    ensure!(
        row(msrs, PAT, None)?["last"] == format!("{PAT_VALUE:#x}").as_str(),
        "{msrs}"
    );
    // A filter allows just these accesses.
    for (expected, access) in [
        ("allow", "read:0x17"),
        ("deny", "write:0x17"),
        ("allow", "write:0xc0000100"),
        ("deny", "read:0x10"),
    ] {
        kvmsr.json(
            &["filter", "test", "--expect", expected, "-", access],
            &said,
            &[0],
        )?;
    }
    documents.push(("learn", said));
    Ok(String::new())
}

fn stats(kvmsr: &Kvmsr, documents: &mut Documents) -> Result<String> {
    let said = with_guest(Engine::Rust, |guest| {
        let watch = Watch::start(kvmsr, &["--json", "stats", "--pid", &pid()])?;

        work(guest)?;
        watch.signal(Signal::TERM)?;
        watch.end()
    })?;
    let report: Value = serde_json::from_str(&said)?;
    let reads = row(&report["msrs"], PLATFORM_ID, Some("read"))?;
    let unknown = row(&report["msrs"], UNKNOWN, Some("read"))?;
    let histogram: u64 = reads["buckets"]
        .as_array()
        .context("buckets")?
        .iter()
        .filter_map(Value::as_u64)
        .sum();

    ensure!(reads["count"] == READS && histogram == READS, "{reads}");
    ensure!(reads["gp"] == 0 && reads["denied"] == 0, "{reads}");
    ensure!(
        unknown["count"] == 1 && unknown["unsupported"] == 1 && unknown["gp"] == 1,
        "{unknown}"
    );
    documents.push(("stats", said));
    Ok(String::new())
}

fn top(kvmsr: &Kvmsr) -> Result<String> {
    let said = with_guest(Engine::Rust, |guest| {
        let pid = pid();
        let watch = Watch::start(kvmsr, &["--json", "top", "--for", "1000", "--pid", &pid])?;

        repeat(guest, Stub::RdmsrLoop, PLATFORM_ID, READS)?;
        watch.signal(Signal::TERM)?;
        watch.end()
    })?;
    let top: Value = serde_json::from_str(&said)?;

    ensure!(top["counted_by"] == "engine", "{}", top["counted_by"]);
    ensure!(
        row(&top["msrs"], PLATFORM_ID, None)?["reads"] == READS,
        "{top}"
    );
    Ok(String::new())
}

fn registers(kvmsr: &Kvmsr, documents: &mut Documents) -> Result<String> {
    with_guest(Engine::Rust, |guest| {
        let value = format!("{PAT_VALUE:#x}");
        let assignment = format!("{PAT:#x}={value}");
        let set = on_vm(kvmsr, &["set", &assignment], "")?;

        ensure!(set["msrs"][0]["after"] == value.as_str(), "{set}");
        ensure!(
            msrs::get(guest.vcpu(), PAT)? == Some(PAT_VALUE),
            "KVM_GET_MSRS has another value"
        );
        let pid = pid();
        let got = kvmsr.json(
            &[
                "get",
                "0x277",
                &format!("{UNKNOWN:#x}"),
                "0x277",
                "--vm",
                &pid,
            ],
            "",
            &[1],
        )?;

        ensure!(got["msrs"][0]["value"] == value.as_str(), "{got}");
        ensure!(got["msrs"][1]["refused"] == "no-such-register", "{got}");
        ensure!(got["msrs"][2]["value"] == value.as_str(), "{got}");
        documents.push(("get-vm", got.to_string()));
        documents.push(("set-vm", set.to_string()));
        Ok(String::new())
    })
}

fn save_list(kvmsr: &Kvmsr, documents: &mut Documents) -> Result<String> {
    let list = with_guest(Engine::Rust, |_| on_vm(kvmsr, &["save-list"], ""))?;
    let msrs = list["msrs"].as_array().context("msrs")?;
    let mtrr = msrs
        .iter()
        .find(|msr| msr["index"] == MTRR)
        .context("no MTRR")?;
    let orders: Vec<u64> = msrs
        .iter()
        .filter_map(|msr| msr["order"].as_u64())
        .collect();

    ensure!(mtrr["owner"] == "msrs", "{mtrr}");
    ensure!(orders.is_sorted(), "not in order: {orders:?}");
    documents.push(("save-list", list.to_string()));
    Ok(format!("{} MSRs", msrs.len()))
}

fn doctor(kvmsr: &Kvmsr) -> Result<String> {
    let findings = kvmsr.json(&["doctor"], "", &[0])?;
    let device = findings["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["name"] == "/dev/kvm-msr"))
        .with_context(|| format!("no check: {findings}"))?;

    ensure!(
        device["verdict"] == "good"
            && device["found"]
                == "root:root 0600, version 1: policy, learn, stats, batch, save-list",
        "{device}"
    );
    Ok(String::new())
}

fn errors(kvmsr: &Kvmsr) -> Result<String> {
    let pid = pid();
    let refused = |arguments: &[&str], what: &str| -> Result<()> {
        let Said { code, stderr, .. } = kvmsr.run(arguments, "")?;

        ensure!(
            code == 2 && stderr.contains(what),
            "kvmsr {} exited with {code}: {stderr}",
            arguments.join(" ")
        );
        Ok(())
    };
    let get = ["policy", "get", "--pid", &pid];

    refused(&get, "has no VM")?;
    with_guest(Engine::C, |_| refused(&get, "KVM's C code"))?;
    with_guest(Engine::Rust, |_| {
        refused(
            &["get", "0x10", "--vm", &pid, "--vcpu", "7"],
            "no such vCPU",
        )?;
        with_guest(Engine::Rust, |_| refused(&get, "2 VMs: choose one"))?;
        let holder = held(kvmsr)?;

        refused(
            &["policy", "clear", "--pid", &pid],
            "the right to set this VM's policy",
        )?;
        holder.signal(Signal::TERM)?;
        holder.end()?;
        let learner = Watch::start(kvmsr, &["learn", "--pid", &pid])?;

        refused(&["learn", "--pid", &pid], "learns from this VM")?;
        // So that the learner has read once, and notices the end of the VM.
        thread::sleep(MOMENT);
        Ok(learner)
    })?
    .end()?;
    Ok(String::new())
}
