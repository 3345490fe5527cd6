// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Boots Linux in QEMU: while `kvmsr learn` observes it, and then with a policy that denies
//! everything that was not learned.

use std::fs;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_msr_guest::engine;
use rustix::process::Signal;
use serde_json::Value;

use super::qemu::Qemu;
use crate::report::Report;
use crate::run::Kvmsr;
use crate::suites::live::Watch;

const LEARNED: &str = "/tmp/learned.json";
const POLICY: &str = "/tmp/policy.txt";
const FILTER: &str = "/tmp/filter.json";
const LOG: &str = "/tmp/guest.log";

/// IA32_CR_PAT, which Linux writes without expecting #GP.
const PAT: &str = "0x277";
/// MSR_LSTAR, which KVM passes through, so that only learning sees it.
const LSTAR: &str = "0xc0000082";
/// IA32_PERF_STATUS, which KVM has, but which Linux does not access while it boots. The guest's
/// init reads it if the kernel's command line says so.
const PROBE: &str = "0x198";
/// What the guest's kernel writes when an access gets #GP that it did not expect.
const ERROR: &str = "unchecked MSR access error";

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    report.test("learn while Linux boots", || learn(kvmsr));
    report.test("its filter, on KVM's C code", || filter(kvmsr));
    report.test("Linux boots with all else denied", || allowed(kvmsr));
    report.test("an MSR is missing", || missing(kvmsr));
}

/// Starts QEMU with Linux, which does not run yet. `probe` is added to its command line.
fn start(kvmsr: &Kvmsr, probe: &str) -> Result<Qemu> {
    let (kernel, initrd) = (kvmsr.file("bzImage"), kvmsr.file("initrd"));
    let paths = [&kernel, &initrd].map(|path| path.to_string_lossy().into_owned());
    let _ = fs::remove_file(LOG);
    let mut qemu = Qemu::start(&[
        "-S",
        "-no-reboot",
        // When the guest powers off, the VM is paused, so that all that was learned can be read.
        "-no-shutdown",
        "-kernel",
        &paths[0],
        "-initrd",
        &paths[1],
        "-append",
        // loglevel: warnings, without the many lines of a boot.
        &format!("console=ttyS0 panic=-1 no_timer_check loglevel=5 {probe}"),
        "-serial",
        &format!("file:{LOG}"),
        "-qmp",
        "stdio",
    ])?;

    qemu.execute("qmp_capabilities")?;
    Ok(qemu)
}

/// Lets Linux boot, until it powers off. Returns its log.
fn boot(qemu: &mut Qemu) -> Result<String> {
    qemu.execute("cont")?;
    qemu.event("SHUTDOWN")?;
    fs::read_to_string(LOG).context("the guest's log")
}

/// Ends QEMU after the guest has powered off.
fn quit(mut qemu: Qemu) -> Result<()> {
    qemu.execute("quit")?;
    qemu.end()
}

/// Fails unless the guest has got to user space without an unexpected #GP.
fn ensure_clean(log: &str) -> Result<()> {
    ensure!(
        log.contains("guest: in user space") && !log.contains(ERROR),
        "the guest's log is:\n{log}"
    );
    Ok(())
}

/// Parses the learned file.
fn learned() -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(LEARNED)?)?)
}

fn rows(file: &Value) -> Result<&Vec<Value>> {
    file["learned"].as_array().context("learned MSRs")
}

/// The learned accesses that a filter or a policy can deny, as `kvmsr filter test` reads them.
fn accesses(file: &Value) -> Result<Vec<String>> {
    let mut accesses = Vec::new();

    for msr in rows(file)? {
        let index = msr["index"].as_str().context("an index")?;
        let number = u32::from_str_radix(index.trim_start_matches("0x"), 16)?;

        if (0x800..0x900).contains(&number) {
            continue;
        }
        for (kind, member) in [("read", "reads"), ("write", "writes")] {
            if msr[member].as_u64().context("a count")? > 0 {
                accesses.push(format!("{kind}:{index}"));
            }
        }
    }
    Ok(accesses)
}

fn learn(kvmsr: &Kvmsr) -> Result<String> {
    let mut qemu = start(kvmsr, "")?;
    let pid = qemu.pid().to_string();
    let watch = Watch::start(kvmsr, &["learn", "--pid", &pid, "--output", LEARNED])?;
    let log = boot(&mut qemu)?;

    watch.signal(Signal::TERM)?;
    watch.end()?;
    quit(qemu)?;
    ensure_clean(&log)?;
    let file = learned()?;
    let msrs = rows(&file)?;
    let has = |index: &str| msrs.iter().any(|msr| msr["index"] == index);

    ensure!(file["lost"] == 0, "accesses were lost: {}", file["lost"]);
    ensure!(
        has(PAT) && has(LSTAR),
        "{PAT} or {LSTAR} is missing: {file}"
    );
    ensure!(!has(PROBE), "Linux accessed {PROBE} while it booted");
    Ok(format!(
        "{} MSRs, {} kinds of access",
        msrs.len(),
        accesses(&file)?.len()
    ))
}

/// Compiles the learned file for KVM without the engine, and has a guest make all accesses.
fn filter(kvmsr: &Kvmsr) -> Result<String> {
    let file = learned()?;
    let accesses = accesses(&file)?;
    let filter = kvmsr.json(&["filter", "compile", LEARNED], "", &[0])?;

    fs::write(FILTER, filter.to_string())?;
    let test = |verdict: &str, accesses: &str| {
        kvmsr.json(
            &["filter", "test", "--on-kvm", "--expect", verdict, FILTER],
            accesses,
            &[0],
        )
    };
    engine::set_enabled(false)?;
    let results = test("allow", &accesses.join("\n")).and_then(|_| {
        test(
            "deny",
            &format!("read:{PROBE}\nwrite:{PROBE}\nread:0xc0001fff\nwrite:0x8b"),
        )
    });

    engine::set_enabled(true)?;
    results?;
    Ok(format!(
        "{} ranges",
        filter["ranges"].as_array().map_or(0, Vec::len)
    ))
}

/// Compiles a learned file to a policy, and boots Linux with it. Its init tries `PROBE`. Returns
/// its log.
fn with_policy_of(kvmsr: &Kvmsr, learned: &str) -> Result<String> {
    let said = kvmsr.run(&["policy", "compile", learned], "")?;

    ensure!(said.code == 0, "policy compile: {}", said.stderr);
    fs::write(POLICY, &said.stdout)?;
    let mut qemu = start(kvmsr, &format!("probe={PROBE}"))?;
    let pid = qemu.pid().to_string();

    kvmsr.json(&["policy", "set", POLICY, "--pid", &pid], "", &[0])?;
    let log = boot(&mut qemu)?;

    quit(qemu)?;
    Ok(log)
}

fn allowed(kvmsr: &Kvmsr) -> Result<String> {
    let log = with_policy_of(kvmsr, LEARNED)?;

    ensure_clean(&log)?;
    ensure!(
        log.contains(&format!("guest: can't read {PROBE}")),
        "{PROBE} was not learned, but is not denied; the guest's log is:\n{log}"
    );
    Ok(String::new())
}

/// With another MSR in the place of PAT, the guest can read that one, and misses PAT.
fn missing(kvmsr: &Kvmsr) -> Result<String> {
    const CHANGED: &str = "/tmp/changed.json";
    let mut file = learned()?;
    let Some(msr) = file["learned"]
        .as_array_mut()
        .and_then(|msrs| msrs.iter_mut().find(|msr| msr["index"] == PAT))
    else {
        bail!("{PAT} was not learned");
    };

    msr["index"] = PROBE.into();
    fs::write(CHANGED, file.to_string())?;
    let log = with_policy_of(kvmsr, CHANGED)?;
    let error = log
        .lines()
        .find(|line| line.contains(ERROR))
        .with_context(|| format!("no {ERROR}; the guest's log is:\n{log}"))?;

    ensure!(error.contains(PAT), "another MSR is missing: {error}");
    ensure!(
        log.contains(&format!("guest: read {PROBE}")),
        "{PROBE} is denied; the guest's log is:\n{log}"
    );
    Ok(error.to_owned())
}
