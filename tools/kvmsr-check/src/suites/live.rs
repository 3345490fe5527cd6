// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests `top`, `log`, `bench` and `doctor`, while a plain guest in this process makes a known
//! number of accesses.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::engine;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use rustix::pty;
use rustix::termios;
use serde_json::Value;

use crate::report::Report;
use crate::run::Kvmsr;

/// IA32_PLATFORM_ID: KVM reads it as 0 and never passes it through.
const READ: u32 = 0x17;
/// IA32_BIOS_SIGN_ID: KVM ignores a guest's write and never passes it through.
const WRITE: u32 = 0x8b;
/// IA32_CR_PAT, which keeps the written value.
const PAT: u32 = 0x277;
/// An MSR that no CPU has.
const UNKNOWN: u32 = 0xc000_1fff;
const PAT_VALUE: u64 = 0x0007_0406_0007_0401;

const READS: u64 = 10_000;
const WRITES: u64 = 5_000;
const BAD_READS: u64 = 7;
const BAD_WRITES: u64 = 3;

/// The interval at which top looks up threads.
const TICK: Duration = Duration::from_millis(50);
const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    let engines: &[Engine] = if engine::loaded() {
        &[Engine::C, Engine::Rust]
    } else {
        &[Engine::C]
    };
    let enabled = engine::enabled();

    for &engine in engines {
        for way in ["histogram", "pipe"] {
            report.test(&format!("top counts exactly, {engine}, {way}"), || {
                count(kvmsr, engine, way)
            });
        }
    }
    if engine::loaded() {
        // Restored after the tests.
        let _ = engine::set_enabled(enabled);
    }
    report.test("top reports lost events", || lose(kvmsr));
    report.test("top counts while a command runs", || command(kvmsr));
    report.test("top prints a table", || table(kvmsr));
    report.test("top restores the terminal", || live(kvmsr));
    let mut documents = Vec::new();

    report.test("log prints accesses in order", || {
        let entries = log(kvmsr)?;
        let summary = format!("{} accesses", entries.len());

        documents.extend(entries.iter().map(|entry| ("log", entry.to_string())));
        Ok(summary)
    });
    report.test("a killed run's instance is removed", || {
        leave_nothing(kvmsr)
    });
    report.test("bench measures", || {
        let (measured, summary) = bench(kvmsr)?;

        documents.push(("bench", measured));
        Ok(summary)
    });
    report.test("doctor finds no problem", || doctor(kvmsr));
    report.test("top matches its schema", || {
        let top = kvmsr.json(&["top", "--for", "0.1"], "", &[0])?;

        documents.push(("top", top.to_string()));
        Ok(String::new())
    });
    for (schema, document) in documents {
        report.document(schema, &document);
    }
}

/// A run of the program, which is killed at the end of the test.
pub(super) struct Program(pub(super) Child);

impl Program {
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.0), signal).context("send a signal")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A run of the program that continues until it is stopped.
pub(super) struct Watch {
    program: Program,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Watch {
    /// Starts it, and waits until it reports that it counts.
    pub(super) fn start(kvmsr: &Kvmsr, arguments: &[&str]) -> Result<Self> {
        let mut program = Program(
            kvmsr
                .command(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .context("run kvmsr")?,
        );
        let stderr = program.0.stderr.take().context("its standard error")?;
        let mut stderr = BufReader::new(stderr);
        let mut line = String::new();

        stderr.read_line(&mut line)?;
        ensure!(
            ["counting", "logging", "learning", "lasts"]
                .iter()
                .any(|word| line.contains(word)),
            "it did not report that it works: {line}"
        );
        Ok(Watch { program, stderr })
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        self.program.signal(signal)
    }

    /// Waits for its end; returns its output.
    pub(super) fn end(mut self) -> Result<String> {
        let mut stdout = String::new();
        let mut stderr = String::new();

        self.program
            .0
            .stdout
            .take()
            .context("its standard output")?
            .read_to_string(&mut stdout)?;
        self.stderr.read_to_string(&mut stderr)?;
        let status = self.program.0.wait()?;

        ensure!(status.code() == Some(0), "it ended with {status}: {stderr}");
        Ok(stdout)
    }
}

/// Runs top, and stops it by a signal after `work`. Then it and its instance must be gone.
fn top_during<T>(
    kvmsr: &Kvmsr,
    arguments: &[&str],
    work: impl FnOnce(&Watch) -> Result<T>,
) -> Result<(Value, T)> {
    let pid = std::process::id().to_string();
    let mut all = vec!["--json", "top", "--for", "1000", "--pid", &pid];

    all.extend(arguments);
    let watch = Watch::start(kvmsr, &all)?;
    let done = work(&watch);

    watch.signal(Signal::TERM)?;
    let stdout = watch.end()?;

    ensure!(
        instances()?.is_empty(),
        "instances are left: {:?}",
        instances()
    );
    Ok((serde_json::from_str(&stdout)?, done?))
}

/// The program's tracefs instances.
fn instances() -> Result<Vec<String>> {
    Ok(fs::read_dir(INSTANCES)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("kvmsr-"))
        .collect())
}

/// Runs a guest in a new thread.
pub(super) fn with_guest<T: Send>(
    engine: Engine,
    work: impl FnOnce(&mut Guest) -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                let kvm = Kvm::new().context("open /dev/kvm")?;
                let mut guest = Guest::new(&kvm, Options::new(engine))?;

                work(&mut guest)
            })
            .join()
            .map_err(|_| anyhow::anyhow!("the guest's thread panicked"))?
    })
}

pub(super) fn repeat(guest: &mut Guest, stub: Stub, index: u32, count: u64) -> Result<()> {
    guest.start(stub, index, 0, count.try_into()?)?;
    match guest.run()? {
        Outcome::Value(_) | Outcome::Done => Ok(()),
        outcome => bail!("the guest's loop ended with {outcome}"),
    }
}

/// The row of an MSR.
fn row(top: &Value, index: u32) -> Result<&Value> {
    let index = format!("{index:#x}");
    let mut rows = top["msrs"]
        .as_array()
        .context("msrs")?
        .iter()
        .filter(|row| row["index"] == index.as_str());
    let row = rows.next().with_context(|| format!("no row of {index}"))?;

    ensure!(rows.next().is_none(), "more than one row of {index}");
    Ok(row)
}

fn number(value: &Value, name: &str) -> Result<u64> {
    value[name]
        .as_u64()
        .with_context(|| format!("{name} in {value}"))
}

fn count(kvmsr: &Kvmsr, engine: Engine, way: &str) -> Result<String> {
    let (top, (folder, counters)) = top_during(kvmsr, &["--by", way], |_| {
        with_guest(engine, |guest| {
            repeat(guest, Stub::RdmsrLoop, READ, READS)?;
            repeat(guest, Stub::WrmsrLoop, WRITE, WRITES)?;
            for _ in 0..BAD_READS {
                guest.rdmsr(UNKNOWN)?;
            }
            for _ in 0..BAD_WRITES {
                guest.wrmsr(UNKNOWN, 1)?;
            }
            // Wait until top has looked up the thread and read the engine's counters.
            thread::sleep(6 * TICK);
            let counters = match engine {
                Engine::Rust => Some(guest.folder().counters()?),
                _ => None,
            };

            Ok((guest.folder().path(""), counters))
        })
    })?;
    let folder = folder
        .file_name()
        .and_then(|name| name.to_str())
        .context("the VM's folder")?
        .to_owned();

    ensure!(top["counted_by"] == way, "counted by {}", top["counted_by"]);
    ensure!(number(&top, "lost")? == 0, "{} were lost", top["lost"]);
    for (index, reads, writes, gp) in [
        (READ, READS, 0, 0),
        (WRITE, 0, WRITES, 0),
        (UNKNOWN, BAD_READS, BAD_WRITES, BAD_READS + BAD_WRITES),
    ] {
        let row = row(&top, index)?;
        let found = (
            number(row, "reads")?,
            number(row, "writes")?,
            number(row, "gp")?,
        );

        ensure!(
            found == (reads, writes, gp),
            "{index:#x}: counted {found:?}, not {:?}",
            (reads, writes, gp)
        );
        ensure!(
            number(row, "pid")? == u64::from(std::process::id()),
            "another process: {row}"
        );
        ensure!(
            row["vm"] == folder.as_str(),
            "another VM: {row}, not {folder}"
        );
    }
    let rows = top["msrs"].as_array().context("msrs")?.len();

    ensure!(rows == 3, "{rows} rows instead of 3");
    let served = top["engine"]
        .as_array()
        .context("engine")?
        .iter()
        .find(|vm| vm["vm"] == folder.as_str());

    match (counters, served) {
        (None, None) => {}
        (None, Some(vm)) => bail!("C's VM has counters of the engine: {vm}"),
        (Some(_), None) => bail!("there are no counters of the engine"),
        (Some(counters), Some(vm)) => {
            for (name, count) in counters {
                ensure!(
                    number(&vm["counters"], &name)? == count,
                    "the engine's {name} is {count}: {vm}"
                );
            }
        }
    }
    Ok(format!("{READS} reads, {WRITES} writes, 10 #GP"))
}

/// The program is stopped while the accesses overflow its buffer.
fn lose(kvmsr: &Kvmsr) -> Result<String> {
    let (top, ()) = top_during(kvmsr, &["--by", "pipe", "--buffer", "4"], |watch| {
        watch.signal(Signal::STOP)?;
        let done = with_guest(Engine::Any, |guest| {
            repeat(guest, Stub::RdmsrLoop, READ, READS)
        });

        watch.signal(Signal::CONT)?;
        done
    })?;
    let counted = number(&top["total"], "reads")?;
    let lost = number(&top, "lost")?;

    ensure!(lost > 0, "nothing was lost");
    ensure!(
        counted + lost == READS,
        "{counted} counted and {lost} lost do not add up to {READS}"
    );
    Ok(format!("{counted} counted, {lost} lost"))
}

fn command(kvmsr: &Kvmsr) -> Result<String> {
    let program = kvmsr.command(&[]);
    let program = program.get_program().to_str().context("its path")?;
    let top = kvmsr.json(&["top", "--", program, "bench", "--samples", "1"], "", &[0])?;
    let row = row(&top, READ)?;
    let reads = number(row, "reads")?;

    ensure!(row["comm"] == "kvmsr", "another process: {row}");
    ensure!(reads > 0, "no reads");
    ensure!(top["command"]["exit_code"] == 0, "{}", top["command"]);
    ensure!(instances()?.is_empty(), "instances are left");
    Ok(format!("{reads} reads of a command"))
}

/// The same as text.
fn table(kvmsr: &Kvmsr) -> Result<String> {
    let pid = std::process::id().to_string();
    let watch = Watch::start(kvmsr, &["top", "--for", "1000", "--pid", &pid])?;
    let done = with_guest(Engine::Any, |guest| {
        repeat(guest, Stub::RdmsrLoop, READ, READS)?;
        thread::sleep(4 * TICK);
        Ok(())
    });

    watch.signal(Signal::INT)?;
    let stdout = watch.end()?;

    done?;
    let line = stdout
        .lines()
        .find(|line| line.contains("0x17"))
        .context("no line of 0x17")?;

    ensure!(
        line.contains(&pid) && line.contains("10000"),
        "the line is: {line}"
    );
    Ok(String::new())
}

/// A terminal of 24 lines of 100 columns.
struct Terminal {
    master: fs::File,
    slave: fs::File,
    screen: vt100::Parser,
}

impl Terminal {
    fn new() -> Result<Self> {
        const SIZE: termios::Winsize = termios::Winsize {
            ws_row: 24,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let master = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY)?;

        pty::unlockpt(&master)?;
        let name = pty::ptsname(&master, Vec::new())?;
        let slave = fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str()?)?;

        termios::tcsetwinsize(&slave, SIZE)?;
        // The loop below polls the screen.
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Terminal {
            master: master.into(),
            slave,
            screen: vt100::Parser::new(SIZE.ws_row.try_into()?, SIZE.ws_col.try_into()?, 0),
        })
    }

    /// Waits until the screen has the expected content.
    fn wait(&mut self, what: &str, is_so: impl Fn(&vt100::Screen) -> bool) -> Result<()> {
        for _ in 0..200 {
            let mut block = [0; 4096];

            while let Ok(size @ 1..) = self.master.read(&mut block) {
                self.screen.process(&block[..size]);
            }
            if is_so(self.screen.screen()) {
                return Ok(());
            }
            thread::sleep(TICK);
        }
        bail!(
            "expected {what}, found:\n{}",
            self.screen.screen().contents()
        )
    }

    fn modes(&self) -> Result<String> {
        Ok(format!("{:?}", termios::tcgetattr(&self.slave)?))
    }
}

/// The live table, ended by a key and by a signal.
fn live(kvmsr: &Kvmsr) -> Result<String> {
    let pid = std::process::id().to_string();
    let mut terminal = Terminal::new()?;
    let before = terminal.modes()?;

    for by_key in [true, false] {
        let mut program = Program(
            kvmsr
                .command(&["top", "--interval", "0.2", "--pid", &pid])
                .env("TERM", "xterm")
                .stdin(terminal.slave.try_clone()?)
                .stdout(terminal.slave.try_clone()?)
                .stderr(terminal.slave.try_clone()?)
                .spawn()?,
        );

        terminal.wait("drawn", |screen| {
            screen.alternate_screen() && screen.contents().contains("q quit")
        })?;
        ensure!(terminal.modes()? != before, "the terminal is not raw");
        with_guest(Engine::Any, |guest| {
            repeat(guest, Stub::RdmsrLoop, READ, READS)?;
            thread::sleep(6 * TICK);
            Ok(())
        })?;
        terminal.wait("counted", |screen| {
            screen.contents().lines().any(|line| {
                line.contains(&pid) && line.contains(" 0x17 ") && line.contains(" 10000 ")
            })
        })?;
        if by_key {
            terminal.master.write_all(b"h")?;
            terminal.wait("explained", |screen| screen.contents().contains("Keys"))?;
            terminal.master.write_all(b"hr")?;
            terminal.wait("reset", |screen| !screen.contents().contains("10000"))?;
            terminal.master.write_all(b"q")?;
        } else {
            program.signal(Signal::TERM)?;
        }
        let status = program.0.wait()?;

        ensure!(status.code() == Some(0), "it ended with {status}");
        terminal.wait("restored", |screen| {
            !screen.alternate_screen() && !screen.hide_cursor()
        })?;
        ensure!(
            terminal.modes()? == before,
            "the terminal was {before} and is {}",
            terminal.modes()?
        );
        ensure!(instances()?.is_empty(), "instances are left");
    }
    Ok(String::new())
}

/// The log of five accesses.
fn log(kvmsr: &Kvmsr) -> Result<Vec<Value>> {
    let pid = std::process::id().to_string();
    let watch = Watch::start(
        kvmsr,
        &[
            "--json",
            "log",
            "--pid",
            &pid,
            "--msr",
            "0x0-0xffff",
            "--msr",
            "0xc0001fff",
            "--count",
            "5",
        ],
    )?;

    with_guest(Engine::Any, |guest| {
        guest.rdmsr(READ)?;
        guest.wrmsr(PAT, PAT_VALUE)?;
        guest.rdmsr(PAT)?;
        guest.wrmsr(UNKNOWN, 0x1234)?;
        guest.rdmsr(UNKNOWN)?;
        // Wait until the program has looked up the thread.
        thread::sleep(4 * TICK);
        Ok(())
    })?;
    let stdout = watch.end()?;
    let entries: Vec<Value> = stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let found: Vec<String> = entries
        .iter()
        .map(|entry| {
            format!(
                "{} {} {} {}",
                entry["access"].as_str().unwrap_or_default(),
                entry["index"].as_str().unwrap_or_default(),
                entry["value"].as_str().unwrap_or_default(),
                entry["gp"]
            )
        })
        .collect();
    let expected = [
        format!("read {READ:#x} 0x0 false"),
        format!("write {PAT:#x} {PAT_VALUE:#x} false"),
        format!("read {PAT:#x} {PAT_VALUE:#x} false"),
        format!("write {UNKNOWN:#x} 0x1234 true"),
        format!("read {UNKNOWN:#x}  true"),
    ];

    ensure!(found == expected, "{found:?} instead of {expected:?}");
    let times: Vec<f64> = entries
        .iter()
        .filter_map(|entry| entry["time"].as_f64())
        .collect();

    ensure!(times.len() == 5 && times.is_sorted(), "times: {times:?}");
    for entry in &entries {
        ensure!(
            entry["pid"] == std::process::id() && entry["tid"] != entry["pid"],
            "another thread: {entry}"
        );
    }
    Ok(entries)
}

/// A run that is killed leaves its instance, which the next run removes.
fn leave_nothing(kvmsr: &Kvmsr) -> Result<String> {
    let mut watch = Watch::start(kvmsr, &["top", "--for", "1000"])?;
    let left = Path::new(INSTANCES).join(format!("kvmsr-{}", watch.program.0.id()));

    ensure!(left.exists(), "{} is not there", left.display());
    watch.program.0.kill()?;
    watch.program.0.wait()?;
    ensure!(left.exists(), "{} is not left", left.display());
    // Another run does not affect it while it runs.
    let running = Watch::start(kvmsr, &["top", "--for", "1000", "--by", "pipe"])?;

    kvmsr.json(&["top", "--for", "0.1"], "", &[0])?;
    let instances = instances()?;

    running.signal(Signal::HUP)?;
    running.end()?;
    ensure!(instances.len() == 1, "instances: {instances:?}");
    Ok(String::new())
}

fn bench(kvmsr: &Kvmsr) -> Result<(String, String)> {
    let mut arguments = vec!["bench", "--samples", "3"];
    let both = engine::loaded();
    let before = engine::enabled();

    if both {
        arguments.push("--both");
    }
    let measured = kvmsr.json(&arguments, "", &[0])?;
    let figures = measured["figures"].as_array().context("figures")?;
    let servers: &[&str] = if both { &["c", "engine"] } else { &["c"] };
    let mut exits = Vec::new();

    ensure!(
        figures.len() == 11 * servers.len(),
        "{} figures",
        figures.len()
    );
    for server in servers {
        for metric in [
            "rdmsr-exit",
            "rdmsr-exit-filter-16",
            "wrmsr-exit",
            "get-msrs-call",
            "set-msrs-call",
            "index-list",
            "set-filter-16",
        ] {
            let median = figures
                .iter()
                .find(|figure| figure["metric"] == metric && figure["by"] == *server)
                .and_then(|figure| figure["nanoseconds"]["median"].as_f64())
                .with_context(|| format!("no {metric} of {server}"))?;

            // An exit takes a microsecond on real hardware, and up to a hundred in an emulator; an
            // ioctl may wait for others.
            ensure!(
                (50.0..1e9).contains(&median),
                "{metric} of {server} takes {median} ns"
            );
            if metric == "rdmsr-exit" {
                exits.push(format!("{server} {median:.0} ns"));
            }
        }
    }
    ensure!(
        engine::enabled() == before,
        "the parameter was not restored"
    );
    Ok((
        measured.to_string(),
        format!("an exit takes: {}", exits.join(", ")),
    ))
}

fn doctor(kvmsr: &Kvmsr) -> Result<String> {
    let findings = kvmsr.json(&["doctor", "--report"], "", &[0])?;
    let checks = findings["checks"].as_array().context("checks")?;

    ensure!(findings["usable"] == true, "KVM is not usable: {findings}");
    for check in checks {
        ensure!(
            check["verdict"] == "good" || check["verdict"] == "note",
            "{check}"
        );
    }
    let has = |name: &str| checks.iter().any(|check| check["name"] == name);

    for name in [
        "/dev/kvm",
        "a VM",
        "kvm:kvm_msr",
        "histograms",
        "kvm.ignore_msrs",
    ] {
        ensure!(has(name), "there is no check of {name}");
    }
    Ok(format!("{} checks", checks.len()))
}
