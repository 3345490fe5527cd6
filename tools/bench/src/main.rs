// SPDX-License-Identifier: GPL-2.0

//! `kvm-msr-bench`: what MSR accesses and ioctls cost on C and on the engine.
//!
//! It is meant to run in a QEMU that counts instructions (`-icount
//! shift=0,sleep=off -smp 1`, `tsc=reliable` on the kernel's command line),
//! where a nanosecond of the monotonic clock is an instruction executed.
//! Anywhere else the figures are what they are called: nanoseconds.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use clap::Parser;
use clap::ValueEnum;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuExit;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Mapping;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::engine;
use kvm_msr_guest::filter;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;
use serde::Serialize;

/// P5 thermal or platform ID: KVM reads it as 0 and never passes it through.
const READ_MSR: u32 = 0x17;

/// Microcode revision: KVM ignores a guest's write and never passes it through.
const WRITE_MSR: u32 = 0x8b;

/// IA32_CR_PAT.
const PAT_MSR: u32 = 0x277;

/// Accesses per run of the guest.
const ACCESSES: u32 = 10_000;

/// Entries per KVM_GET_MSRS or KVM_SET_MSRS.
const ENTRIES: u32 = 200;

/// MSRs per range of a filter.
const RANGE_MSRS: u32 = 64;

/// Batches of each metric, the cheapest of which counts: whatever else runs on
/// the CPU, e.g. the timer tick, only ever adds.
const BATCHES: usize = 5;

/// Measures MSR accesses and ioctls of C and of the engine in one boot.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Measure one of the two only; `c` is for kernels without the engine
    #[arg(long, value_enum)]
    only: Option<Only>,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
enum Only {
    C,
    Engine,
}

/// One row of the table.
#[derive(Serialize)]
struct Metric {
    name: &'static str,
    ranges: usize,
    c: Option<f64>,
    engine: Option<f64>,
}

/// What `make bench` collects.
#[derive(Serialize)]
struct Report {
    unit: &'static str,
    metrics: Vec<Metric>,
}

/// For how long SRCU has to be left alone to end a grace period at once.
const SRCU_IDLE: Duration = Duration::from_micros(200);

type Measure = fn(&mut Guest, usize) -> Result<f64>;

/// Every metric: name, number of ranges in the filter, how to measure it.
const METRICS: &[(&str, usize, Measure)] = &[
    ("guest_rdmsr_exit", 0, guest_rdmsr_exit),
    ("guest_rdmsr_exit", 1, guest_rdmsr_exit),
    ("guest_rdmsr_exit", 4, guest_rdmsr_exit),
    ("guest_rdmsr_exit", 16, guest_rdmsr_exit),
    ("guest_wrmsr_exit", 0, guest_wrmsr_exit),
    ("guest_wrmsr_exit", 1, guest_wrmsr_exit),
    ("guest_wrmsr_exit", 4, guest_wrmsr_exit),
    ("guest_wrmsr_exit", 16, guest_wrmsr_exit),
    ("user_space_exit", 1, user_space_exit),
    ("set_msr_filter", 1, set_msr_filter),
    ("set_msr_filter", 16, set_msr_filter),
    ("get_msrs_entry", 0, get_msrs_entry),
    ("set_msrs_entry", 0, set_msrs_entry),
    ("vcpu_ioctl_floor", 0, vcpu_ioctl_floor),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();

    if arguments.only != Some(Only::C) && !engine::loaded() {
        bail!("the module kvm_msr is not loaded; --only c measures C alone");
    }

    println!(
        "{:<18} {:>6} {:>10} {:>10}",
        "instructions", "ranges", "C", "engine"
    );
    let mut metrics = Vec::new();
    for &(name, ranges, measure) in METRICS {
        let of = |engine, other| -> Result<Option<f64>> {
            if arguments.only == Some(other) {
                return Ok(None);
            }
            cheapest(engine, ranges, measure)
                .with_context(|| format!("{name} with {ranges} ranges on {engine}"))
                .map(Some)
        };
        let metric = Metric {
            name,
            ranges,
            c: of(Engine::C, Only::Engine)?,
            engine: of(Engine::Rust, Only::C)?,
        };

        println!(
            "{name:<18} {ranges:>6} {:>10} {:>10}",
            cell(metric.c),
            cell(metric.engine)
        );
        metrics.push(metric);
    }

    let report = Report {
        unit: "instructions",
        metrics,
    };
    println!("@@json {}", serde_json::to_string(&report)?);
    Ok(())
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

/// The cheapest of some batches on a VM of its own, to a tenth.
fn cheapest(engine: Engine, ranges: usize, measure: Measure) -> Result<f64> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut guest = Guest::new(
        &kvm,
        Options {
            irqchip: true,
            ..Options::new(engine)
        },
    )?;
    let mut cheapest = f64::INFINITY;

    for _ in 0..BATCHES {
        cheapest = cheapest.min(measure(&mut guest, ranges)?);
    }
    Ok((cheapest * 10.0).round() / 10.0)
}

/// A filter of so many ranges, the last of which allows `index`.
///
/// All others are as large, but elsewhere.
fn allowing(index: u32, ranges: usize) -> Filter {
    let mut filter = Filter::allow_by_default();

    for i in 1..ranges as u32 {
        filter = filter.with(Range::allow(
            filter::READ | filter::WRITE,
            0x1000 * i,
            RANGE_MSRS,
        ));
    }
    if ranges > 0 {
        let base = index / RANGE_MSRS * RANGE_MSRS;

        filter = filter.with(Range::allow(filter::READ | filter::WRITE, base, RANGE_MSRS));
    }
    filter
}

fn set_filter(guest: &Guest, filter: &Filter) -> Result<()> {
    if filter.ranges().is_empty() {
        return Ok(());
    }
    filter.set(guest.vm()).context("KVM_X86_SET_MSR_FILTER")
}

/// Time of `calls` calls of `f`, per call.
fn per_call(calls: u32, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();

    for _ in 0..calls {
        f()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(calls))
}

/// Per RDMSR in a loop in the guest: exit, emulation, entry.
fn guest_rdmsr_exit(guest: &mut Guest, ranges: usize) -> Result<f64> {
    set_filter(guest, &allowing(READ_MSR, ranges))?;
    guest.start(Stub::RdmsrLoop, READ_MSR, 0, ACCESSES)?;
    run_loop(guest)
}

/// Per WRMSR in a loop in the guest: exit, emulation, entry.
fn guest_wrmsr_exit(guest: &mut Guest, ranges: usize) -> Result<f64> {
    set_filter(guest, &allowing(WRITE_MSR, ranges))?;
    guest.start(Stub::WrmsrLoop, WRITE_MSR, 0, ACCESSES)?;
    run_loop(guest)
}

fn run_loop(guest: &mut Guest) -> Result<f64> {
    let start = Instant::now();
    let outcome = guest.run()?;
    let elapsed = start.elapsed();

    ensure!(
        matches!(outcome, Outcome::Value(_) | Outcome::Done),
        "the guest's loop ended with {outcome}"
    );
    Ok(elapsed.as_nanos() as f64 / f64::from(ACCESSES))
}

/// Per RDMSR that the filter denies and user space answers, with its KVM_RUN.
fn user_space_exit(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    const EXITS: u32 = 1000;

    guest.deflect(KVM_MSR_EXIT_REASON_FILTER)?;
    let base = READ_MSR / RANGE_MSRS * RANGE_MSRS;
    let deny = Range::deny(filter::READ, base, RANGE_MSRS);
    set_filter(guest, &Filter::allow_by_default().with(deny))?;

    // The first exit, and what follows the last, are not measured.
    guest.start(Stub::RdmsrLoop, READ_MSR, 0, EXITS + 1)?;
    let first = guest.run()?;
    ensure!(first.user_space().is_some(), "no exit but {first}");

    let time = per_call(EXITS, || match guest.vcpu_mut().run()? {
        VcpuExit::X86Rdmsr(exit) => {
            *exit.data = 0;
            Ok(())
        }
        exit => bail!("no exit for RDMSR but {exit:?}"),
    })?;
    let last = guest.run()?;
    ensure!(
        last == Outcome::Value(0),
        "the guest's loop ended with {last}"
    );
    Ok(time)
}

/// Per KVM_X86_SET_MSR_FILTER, with its grace period.
///
/// SRCU ends a grace period at once if the last was a while ago, and waits for
/// timer ticks otherwise. VMMs set filters rarely, so the former is measured.
fn set_msr_filter(guest: &mut Guest, ranges: usize) -> Result<f64> {
    let filter = allowing(READ_MSR, ranges).prepare(Abi::Native)?;
    let mut cheapest = f64::INFINITY;

    for _ in 0..20 {
        let idle = Instant::now();
        while idle.elapsed() < SRCU_IDLE {}
        cheapest = cheapest.min(per_call(1, || Ok(filter.set(guest.vm())?))?);
    }
    Ok(cheapest)
}

/// Memory with a `struct kvm_msrs` of [`ENTRIES`] times IA32_CR_PAT.
fn pat_entries() -> Result<Mapping> {
    const RESET_VALUE: u64 = 0x0007_0406_0007_0406;
    let entries = vec![msrs::Entry::new(PAT_MSR, RESET_VALUE); ENTRIES as usize];
    let bytes = msrs::to_bytes(ENTRIES, &entries);
    let mut memory = Mapping::new(bytes.len())?;

    memory.write(0, &bytes);
    Ok(memory)
}

/// Per entry of KVM_GET_MSRS.
fn get_msrs_entry(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    let memory = pat_entries()?;

    let time = per_call(20, || {
        let done = ioctl::get_msrs(Abi::Native, guest.vcpu(), memory.at(0))?;
        ensure!(done == ENTRIES as i32, "KVM_GET_MSRS returned {done}");
        Ok(())
    })?;
    Ok(time / f64::from(ENTRIES))
}

/// Per entry of KVM_SET_MSRS.
fn set_msrs_entry(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    let memory = pat_entries()?;

    let time = per_call(20, || {
        let done = ioctl::set_msrs(Abi::Native, guest.vcpu(), memory.at(0))?;
        ensure!(done == ENTRIES as i32, "KVM_SET_MSRS returned {done}");
        Ok(())
    })?;
    Ok(time / f64::from(ENTRIES))
}

/// Per KVM_GET_MP_STATE: what any vCPU ioctl costs at least.
fn vcpu_ioctl_floor(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    per_call(1000, || {
        guest.vcpu().get_mp_state()?;
        Ok(())
    })
}
