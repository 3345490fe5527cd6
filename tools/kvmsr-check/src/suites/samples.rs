// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests the programs of `samples/`: runs them, and compares what they print with what their guests
//! have to see.

use std::env;
use std::fs;
use std::io;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::uapi::ALWAYS;
use kvm_msr_guest::device::uapi::GP;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::RIGHT_POLICY;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::SetPolicy;
use kvm_msr_guest::engine;

use crate::report::Report;
use crate::run::Kvmsr;
use crate::run::Said;
use crate::suites::device;
use crate::suites::device::FS_BASE;
use crate::suites::device::PAT;
use crate::suites::device::PAT_VALUE;
use crate::suites::device::PLATFORM_ID;
use crate::suites::device::READS;
use crate::suites::device::UNKNOWN;
use crate::suites::device::WRITES;
use crate::suites::device::pid;
use crate::suites::live::Watch;
use crate::suites::live::with_guest;

const DEVICE: &str = "/dev/kvm-msr";

/// What the guest of msr_policy sees, in C and in Rust.
const POLICY: &str = "\
RDMSR 0x8b: 0x2600000000
RDMSR 0x277: 0x7040600070406
WRMSR 0x277 with 0x101010101010101: done
RDMSR 0x277: 0x7040600070401
WRMSR 0x174 with 0x10: #GP
RDMSR 0x174: 0x0
RDMSR 0x4b560000: 0x0
WRMSR 0x4b560000 with 0x1: done
RDMSR 0x4b560001: 0x1122334455667788, by user space
WRMSR 0x4b560001 with 0x99: done, by user space
";

const EXIT: &str = "\
RDMSR of 0x4b560001, answered with 0x1122334455667788
WRMSR of 0x4b560001, with value 0x1122334455667788
";

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    for program in ["msr_policy", "msr_policy_rust"] {
        report.test(&format!("{program}: what the guest sees"), || {
            prints(&kvmsr.beside(program), POLICY)
        });
    }
    report.test("msr_attach: what the guest accessed", || attach(kvmsr));
    report.test("msr_attach: a VM that ends", || ended(kvmsr));
    report.test("msr_attach: a vCPU that runs", || busy(kvmsr));
    report.test("msr_attach: no VM, and a VM of C's", || not_attached(kvmsr));
    report.test("the engine is disabled", || disabled(kvmsr));
    report.test("the device is missing", || without_device(kvmsr));
    report.test("the module is not loaded", || unloaded(kvmsr));

    report.test("msr_exit", || prints(&kvmsr.beside("msr_exit"), EXIT));
    report.test("msr_filter", || {
        ends_with(kvmsr, "msr_filter", "Proven: the Rust engine handled every")
    });
    report.test("msr_save_restore", || {
        ends_with(kvmsr, "msr_save_restore", "all MSRs were restored")
    });
    report.test("msr_snapshot", || snapshot(kvmsr));
}

/// Runs a program that has to succeed.
fn output(program: &Kvmsr, arguments: &[&str]) -> Result<String> {
    let Said {
        code,
        stdout,
        stderr,
    } = program.run(arguments, "")?;

    ensure!(code == 0, "it exited with {code}: {stderr}{stdout}");
    Ok(stdout)
}

fn prints(program: &Kvmsr, expected: &str) -> Result<String> {
    engine::set_enabled(true)?;
    let printed = output(program, &[])?;

    ensure!(printed == expected, "it printed:\n{printed}");
    Ok(String::new())
}

/// The program succeeds, and its last line is as expected.
fn ends_with(kvmsr: &Kvmsr, program: &str, expected: &str) -> Result<String> {
    engine::set_enabled(true)?;
    let printed = output(&kvmsr.beside(program), &[])?;
    let last = printed.lines().last().unwrap_or_default();

    ensure!(last.starts_with(expected), "it printed:\n{printed}");
    Ok(String::new())
}

/// The program fails with a sentence that has these words.
fn refuses(program: &Kvmsr, arguments: &[&str], words: &str) -> Result<()> {
    let Said { code, stderr, .. } = program.run(arguments, "")?;

    ensure!(
        code == 1 && stderr.contains(words),
        "{program} exited with {code}: {stderr}"
    );
    Ok(())
}

fn attach(kvmsr: &Kvmsr) -> Result<String> {
    let (printed, list) = with_guest(Engine::Rust, |guest| {
        let arguments = ["--seconds", "2", "--pid", &pid()];
        let watch = Watch::start(&kvmsr.beside("msr_attach"), &arguments)?;

        device::work(guest)?;
        let list = kvmsr.json(&["save-list", "--pid", &pid()], "", &[0])?;

        Ok((watch.end()?, list))
    })?;
    let line = |start: &str| {
        printed
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(start))
            .with_context(|| format!("no line {start}: {printed}"))
    };
    let seconds: f64 = line("4 MSRs in ")?.trim_end_matches(" s").parse()?;

    ensure!((2.0..60.0).contains(&seconds), "{seconds} s");
    for (index, reads, writes, note) in [
        (PLATFORM_ID, READS, 0, ""),
        (FS_BASE, 0, WRITES, ""),
        (PAT, 1, 1, ""),
        (UNKNOWN, 1, 0, "KVM lacks it"),
    ] {
        let row = line(&format!("{index:#010x} "))?;
        let words: Vec<&str> = row.split_whitespace().collect();
        let &[_, read, read_rate, written, write_rate, ref rest @ ..] = &words[..] else {
            bail!("{row}");
        };

        for (printed, rate, count) in [(read, read_rate, reads), (written, write_rate, writes)] {
            let rate: f64 = rate.parse()?;

            ensure!(
                printed.parse() == Ok(count) && (rate - count as f64 / seconds).abs() < 1.0,
                "{index:#x}: {row}"
            );
        }
        ensure!(rest.join(" ") == note, "{index:#x}: {row}");
    }
    ensure!(
        line("vCPU 0, 0x277 IA32_PAT: ")? == format!("{PAT_VALUE:#x}"),
        "{printed}"
    );

    let msrs = list["msrs"].as_array().context("msrs")?;
    let count = |is: &dyn Fn(&serde_json::Value) -> bool| msrs.iter().filter(|msr| is(msr)).count();
    let unlisted = count(&|msr| {
        let attributes = msr["attributes"].as_array();

        attributes.is_some_and(|attributes| !attributes.iter().any(|name| name == "listed"))
    });

    line(&format!("{} MSRs to save, {unlisted} of which", msrs.len()))?;
    for (owner, ioctl) in [("msrs", "KVM_GET_MSRS"), ("sregs", "KVM_GET_SREGS2")] {
        line(&format!(
            "{} by {ioctl}",
            count(&|msr| msr["owner"] == owner)
        ))?;
    }
    line("detached")?;
    Ok(String::new())
}

fn ended(kvmsr: &Kvmsr) -> Result<String> {
    let watch = with_guest(Engine::Rust, |_| {
        let arguments = ["--seconds", "1", "--pid", &pid()];

        Watch::start(&kvmsr.beside("msr_attach"), &arguments)
    })?;
    let error = watch.end().err().context("it succeeded")?.to_string();

    ensure!(
        error.contains("exit status: 1") && error.contains("and with it what was learned"),
        "{error}"
    );
    Ok(String::new())
}

/// More reads than a guest makes while msr_attach runs, some seconds.
const READS_AT_MOST: u32 = 100_000_000;

/// The vCPU does not leave KVM_RUN until a policy denies what the guest reads.
fn busy(kvmsr: &Kvmsr) -> Result<String> {
    let printed = with_guest(Engine::Rust, |guest| {
        let device = Device::attached(guest.vm(), RIGHT_POLICY)?;
        let rules = Array::new(&[Rule::new(PAT, PAT, READ, ALWAYS, GP, 0)])?;

        guest.start(Stub::RdmsrLoop, PAT, 0, READS_AT_MOST)?;
        thread::scope(|scope| {
            let vcpu = scope.spawn(move || guest.run());
            let arguments = ["--seconds", "1", "--pid", &pid()];
            let printed = output(&kvmsr.beside("msr_attach"), &arguments);

            device.call(&mut SetPolicy::new(&rules, 1))?;
            match vcpu.join() {
                Ok(outcome) => {
                    let outcome = outcome?;

                    ensure!(outcome.is_gp(), "the guest's loop ended with {outcome}");
                }
                Err(_) => bail!("the vCPU's thread panicked"),
            }
            printed
        })
    })?;

    for what in ["the MSR", "the save list"] {
        let start = format!("{what} was not read: ");
        let line = printed.lines().find(|line| line.starts_with(&start));

        ensure!(
            line.is_some_and(|line| line.contains("runs")),
            "{start}? {printed}"
        );
    }
    ensure!(printed.ends_with("detached\n"), "{printed}");
    Ok(String::new())
}

fn not_attached(kvmsr: &Kvmsr) -> Result<String> {
    let program = kvmsr.beside("msr_attach");
    let pid = pid();
    let arguments = ["--pid", &pid[..]];

    refuses(&program, &arguments, "has no VM")?;
    with_guest(Engine::C, |_| {
        refuses(&program, &arguments, "KVM's C code handles")
    })?;
    Ok(String::new())
}

/// Both VMMs fail with a sentence that has these words: one of C, one of Rust.
fn both_refuse(kvmsr: &Kvmsr, c: &str, rust: &str) -> Result<String> {
    refuses(&kvmsr.beside("msr_policy"), &[], c)?;
    refuses(&kvmsr.beside("msr_policy_rust"), &[], rust)?;
    Ok(String::new())
}

fn disabled(kvmsr: &Kvmsr) -> Result<String> {
    engine::set_enabled(false)?;
    let result = both_refuse(
        kvmsr,
        "run 'echo Y >/sys/module/kvm_msr/parameters/enable'",
        "loaded and enabled",
    );

    engine::set_enabled(true)?;
    result
}

fn without_device(kvmsr: &Kvmsr) -> Result<String> {
    let away = format!("{DEVICE}-away");

    fs::rename(DEVICE, &away)?;
    let result = both_refuse(
        kvmsr,
        "/dev/kvm-msr is missing, but kvm-msr.ko is loaded",
        "/dev/kvm-msr does not exist, although kvm-msr.ko is loaded; see 'kvmsr doctor'",
    )
    .and_then(|_| {
        let said = kvmsr.run(&["doctor"], "")?.stdout;

        ensure!(said.contains("mknod -m 600 /dev/kvm-msr c 10 "), "{said}");
        Ok(String::new())
    });

    fs::rename(&away, DEVICE)?;
    result
}

fn unloaded(kvmsr: &Kvmsr) -> Result<String> {
    let modules = env::var("MODULES").context("MODULES")?;

    unload()?;
    let result = both_refuse(kvmsr, "run 'modprobe kvm-msr'", "load kvm-msr.ko");

    let status = Command::new("insmod")
        .arg(format!("{modules}/kvm-msr.ko"))
        .status()?;

    ensure!(status.success(), "insmod: {status}");
    result
}

/// Unloads the module. A VM that has just ended keeps it for a moment.
fn unload() -> Result<()> {
    for _ in 0..100 {
        let output = Command::new("rmmod").arg("kvm_msr").output()?;

        if output.status.success() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::from(io::ErrorKind::ResourceBusy)).context("rmmod kvm_msr")
}

fn snapshot(kvmsr: &Kvmsr) -> Result<String> {
    let file = "/tmp/sample.json";

    output(&kvmsr.beside("msr_snapshot"), &[file])?;
    let shown = kvmsr.json(&["decode"], &fs::read_to_string(file)?, &[0])?;

    // The guest wrote it.
    ensure!(
        shown.to_string().contains("0x7010500070406"),
        "no value of IA32_PAT: {shown}"
    );
    output(kvmsr, &["check", file])?;
    Ok(String::new())
}
