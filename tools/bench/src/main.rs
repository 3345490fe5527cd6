// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvm-msr-bench` measures MSR accesses and ioctls with C and with the engine.
//!
//! It is meant for a QEMU that counts instructions (`-icount shift=0,sleep=off -smp 1`, with
//! `tsc=reliable` on the kernel's command line). There, a nanosecond of the monotonic clock is an
//! executed instruction. On other machines, the figures are nanoseconds.

mod device;
mod lines;

use std::thread;
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
use kvm_ioctls::KvmNestedStateBuffer;
use kvm_ioctls::VcpuExit;
use kvm_ioctls::VcpuFd;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Mapping;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::UserPtr;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::engine;
use kvm_msr_guest::filter;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;
use kvm_msr_guest::nested;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Stop;
use serde::Serialize;

/// P5 thermal or platform ID: KVM reads it as 0 and never passes it through.
const READ_MSR: u32 = 0x17;

/// Microcode revision: KVM ignores a guest's write and never passes it through.
const WRITE_MSR: u32 = 0x8b;

/// IA32_CR_PAT.
const PAT_MSR: u32 = 0x277;

/// IA32_POWER_CTL: KVM only stores its value.
const STORED_MSR: u32 = 0x1fc;

/// STAR: the vendor module handles it.
const VENDOR_MSR: u32 = 0xc000_0081;

/// An MSR that no CPU has.
const UNKNOWN_MSR: u32 = 0xc000_1fff;

/// Accesses per run of the guest.
const ACCESSES: u32 = 10_000;

/// Entries per KVM_GET_MSRS or KVM_SET_MSRS.
const ENTRIES: u32 = 200;

/// MSRs per range of a filter.
const RANGE_MSRS: u32 = 64;

/// Number of batches per metric. The fastest one counts, because other code on the CPU, e.g. the
/// timer tick, only adds time.
const BATCHES: usize = 5;

/// Measures MSR accesses and ioctls with C and with the engine in one boot
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Measure only this one; use `c` for kernels without the engine
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Measure KVM_GET_MSRS for each MSR of the index list instead
    #[arg(long)]
    each: bool,
    /// Do what the plugin trace.so of QEMU records instead
    #[arg(long)]
    lines: bool,
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
    /// How many MSRs one call accesses, if the figures are of a whole call.
    #[serde(skip_serializing_if = "Option::is_none")]
    msrs: Option<usize>,
}

/// The results for `make bench`.
#[derive(Serialize)]
struct Report {
    unit: &'static str,
    metrics: Vec<Metric>,
}

/// After this time without a grace period, SRCU ends the next one immediately.
const SRCU_IDLE: Duration = Duration::from_micros(200);

/// How to measure a metric: on which guest, and for MSRs, with how many ranges.
#[derive(Clone, Copy)]
enum Measure {
    Msrs(fn(&mut Guest, usize) -> Result<f64>),
    Nested(fn(&Nested) -> Result<f64>),
    /// With `/dev/kvm-msr`, which C lacks.
    Device(fn(&mut Guest) -> Result<f64>),
}

use Measure::Msrs;

/// The metric of a whole KVM_GET_MSRS.
const INDEX_LIST: &str = "get_msrs_index_list";

/// All metrics: name, number of ranges in the filter, how to measure it.
const METRICS: &[(&str, usize, Measure)] = &[
    ("guest_rdmsr_exit", 0, Msrs(guest_rdmsr_exit)),
    ("guest_rdmsr_exit", 1, Msrs(guest_rdmsr_exit)),
    ("guest_rdmsr_exit", 4, Msrs(guest_rdmsr_exit)),
    ("guest_rdmsr_exit", 16, Msrs(guest_rdmsr_exit)),
    ("guest_wrmsr_exit", 0, Msrs(guest_wrmsr_exit)),
    ("guest_wrmsr_exit", 1, Msrs(guest_wrmsr_exit)),
    ("guest_wrmsr_exit", 4, Msrs(guest_wrmsr_exit)),
    ("guest_wrmsr_exit", 16, Msrs(guest_wrmsr_exit)),
    ("guest_rdmsr_exit_stats", 0, Msrs(device::guest_rdmsr_stats)),
    ("guest_wrmsr_exit_stats", 0, Msrs(device::guest_wrmsr_stats)),
    (
        "guest_rdmsr_exit_policy",
        0,
        Msrs(device::guest_rdmsr_policy),
    ),
    (
        "guest_wrmsr_exit_policy",
        0,
        Msrs(device::guest_wrmsr_policy),
    ),
    (
        "guest_rdmsr_exit_ignoring",
        0,
        Msrs(device::guest_rdmsr_ignoring),
    ),
    (
        "guest_wrmsr_exit_ignoring",
        0,
        Msrs(device::guest_wrmsr_ignoring),
    ),
    ("user_space_exit", 1, Msrs(user_space_exit)),
    ("set_msr_filter", 1, Msrs(set_msr_filter)),
    ("set_msr_filter", 16, Msrs(set_msr_filter)),
    ("get_msrs_entry", 0, Msrs(get_msrs_entry)),
    ("set_msrs_entry", 0, Msrs(set_msrs_entry)),
    ("get_msrs_entry_stored", 0, Msrs(get_msrs_entry_stored)),
    ("set_msrs_entry_stored", 0, Msrs(set_msrs_entry_stored)),
    ("get_msrs_entry_vendor", 0, Msrs(get_msrs_entry_vendor)),
    ("set_msrs_entry_vendor", 0, Msrs(set_msrs_entry_vendor)),
    ("get_msrs_entry_unknown", 0, Msrs(get_msrs_entry_unknown)),
    ("set_msrs_entry_unknown", 0, Msrs(set_msrs_entry_unknown)),
    ("get_msrs_entry_saved", 0, Msrs(get_msrs_entry_saved)),
    ("set_msrs_entry_saved", 0, Msrs(set_msrs_entry_saved)),
    (INDEX_LIST, 0, Msrs(get_msrs_index_list)),
    ("vcpu_ioctl_floor", 0, Msrs(vcpu_ioctl_floor)),
    ("get_nested_state", 0, Measure::Nested(get_nested_state)),
    ("set_nested_state", 0, Measure::Nested(set_nested_state)),
    (
        "batch_get_entry_stored",
        0,
        Measure::Device(device::batch_get_entry_stored),
    ),
    (
        "batch_set_entry_stored",
        0,
        Measure::Device(device::batch_set_entry_stored),
    ),
    (
        "set_largest_policy",
        0,
        Measure::Device(device::set_largest_policy),
    ),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();

    if arguments.only != Some(Only::C) && !engine::loaded() {
        bail!("the module kvm_msr is not loaded; use --only c to measure C");
    }

    if arguments.each {
        return each();
    }
    if arguments.lines {
        return lines::trace();
    }

    println!(
        "{:<22} {:>6} {:>10} {:>10}",
        "instructions", "ranges", "C", "engine"
    );
    let mut metrics = Vec::new();
    for &(name, ranges, measure) in METRICS {
        let of = |engine, other| -> Result<Option<f64>> {
            let lacks_device = engine == Engine::C && matches!(measure, Measure::Device(_));

            if lacks_device || arguments.only == Some(other) {
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
            msrs: (name == INDEX_LIST)
                .then(|| Ok::<_, anyhow::Error>(Kvm::new()?.get_msr_index_list()?.as_slice().len()))
                .transpose()?,
        };

        println!(
            "{name:<22} {ranges:>6} {:>10} {:>10}",
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

/// The time per entry of KVM_GET_MSRS, for each MSR of the index list.
fn each() -> Result<()> {
    let kvm = Kvm::new()?;
    let mut guests = Vec::new();

    println!("{:<10} {:>10} {:>10}", "index", "C", "engine");
    for engine in [Engine::C, Engine::Rust] {
        let irqchip = true;
        guests.push(Guest::new(
            &kvm,
            Options {
                irqchip,
                ..Options::new(engine)
            },
        )?);
    }
    for &index in kvm.get_msr_index_list()?.as_slice() {
        let mut costs = Vec::new();
        for guest in &guests {
            let entry = msrs::Entry::new(index, 0);
            let entries = vec![entry; ENTRIES as usize];
            costs.push(per_entry(
                guest,
                ioctl::get_msrs,
                &entries,
                ENTRIES as usize,
            )?);
        }
        println!("{index:<#10x} {:>10.1} {:>10.1}", costs[0], costs[1]);
    }
    Ok(())
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

/// The fastest of some batches on a VM of its own, rounded to a tenth.
fn cheapest(engine: Engine, ranges: usize, measure: Measure) -> Result<f64> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let cheapest = match measure {
        Measure::Msrs(measure) => {
            let mut guest = Guest::new(
                &kvm,
                Options {
                    irqchip: true,
                    ..Options::new(engine)
                },
            )?;

            cheapest_of(|| measure(&mut guest, ranges))
        }
        Measure::Nested(measure) => {
            let mut guest = Nested::new(&kvm, nested::Options::new(engine))?;

            guest.run_to(Stop::L2)?;
            cheapest_of(|| measure(&guest))
        }
        Measure::Device(measure) => {
            let mut guest = Guest::new(&kvm, Options::new(engine))?;

            cheapest_of(|| measure(&mut guest))
        }
    }?;
    Ok((cheapest * 10.0).round() / 10.0)
}

fn cheapest_of(mut measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut cheapest = f64::INFINITY;

    for _ in 0..BATCHES {
        cheapest = cheapest.min(measure()?);
    }
    Ok(cheapest)
}

/// A filter with this number of ranges. The last one allows `index`; the others have the same
/// size, but other indices.
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

/// The time of `calls` calls of `f`, per call.
fn per_call(calls: u32, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();

    for _ in 0..calls {
        f()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(calls))
}

/// The time per RDMSR in a loop in the guest: exit, emulation, entry.
fn guest_rdmsr_exit(guest: &mut Guest, ranges: usize) -> Result<f64> {
    set_filter(guest, &allowing(READ_MSR, ranges))?;
    guest.start(Stub::RdmsrLoop, READ_MSR, 0, ACCESSES)?;
    run_loop(guest)
}

/// The time per WRMSR in a loop in the guest: exit, emulation, entry.
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

/// The time per RDMSR that the filter denies and user space answers, including KVM_RUN.
fn user_space_exit(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    // Less than a timer tick, so that some batches have none.
    const EXITS: u32 = 500;

    guest.deflect(KVM_MSR_EXIT_REASON_FILTER)?;
    let base = READ_MSR / RANGE_MSRS * RANGE_MSRS;
    let deny = Range::deny(filter::READ, base, RANGE_MSRS);
    set_filter(guest, &Filter::allow_by_default().with(deny))?;

    // The first exit is not measured, nor the code after the last one.
    guest.start(Stub::RdmsrLoop, READ_MSR, 0, EXITS + 1)?;
    let first = guest.run()?;
    ensure!(first.user_space().is_some(), "{first} instead of an exit");

    let time = per_call(EXITS, || match guest.vcpu_mut().run()? {
        VcpuExit::X86Rdmsr(exit) => {
            *exit.data = 0;
            Ok(())
        }
        exit => bail!("{exit:?} instead of an exit for RDMSR"),
    })?;
    let last = guest.run()?;
    ensure!(
        last == Outcome::Value(0),
        "the guest's loop ended with {last}"
    );
    Ok(time)
}

/// The time per KVM_X86_SET_MSR_FILTER, including its grace period.
///
/// The engine uses an expedited grace period. Otherwise, SRCU ends a grace period immediately only
/// if the last one was a while ago, and waits for timer ticks if not. VMMs set filters rarely, so
/// this waits before each call. Some calls are faster than most, so the median is used.
fn set_msr_filter(guest: &mut Guest, ranges: usize) -> Result<f64> {
    const CALLS: usize = 21;

    let filter = allowing(READ_MSR, ranges).prepare(Abi::Native)?;
    let mut times = Vec::new();

    // From the second call on, there is a filter to replace and free.
    filter.set(guest.vm())?;
    for _ in 0..CALLS {
        wait_for_srcu();
        times.push(per_call(1, || Ok(filter.set(guest.vm())?))?);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[CALLS / 2])
}

/// Waits until the next grace period of SRCU ends immediately.
fn wait_for_srcu() {
    thread::sleep(SRCU_IDLE);
}

/// Memory with a `struct kvm_msrs` of these entries.
fn list_of(entries: &[msrs::Entry]) -> Result<Mapping> {
    let bytes = msrs::to_bytes(entries.len() as u32, entries);
    let mut memory = Mapping::new(bytes.len())?;

    memory.write(0, &bytes);
    Ok(memory)
}

/// KVM_GET_MSRS or KVM_SET_MSRS.
type Ioctl = fn(Abi, &VcpuFd, UserPtr<'_>) -> ioctl::Result;

/// The time per entry of a list. The first `known` entries are valid; at most one unknown entry
/// follows.
fn per_entry(guest: &Guest, ioctl: Ioctl, entries: &[msrs::Entry], known: usize) -> Result<f64> {
    let memory = list_of(entries)?;

    // Access about as many entries with short lists as with long ones.
    let time = per_call(20 * ENTRIES / entries.len() as u32, || {
        let done = ioctl(Abi::Native, guest.vcpu(), memory.at(0))?;
        ensure!(done == known as i32, "{done} of {known} MSRs were accessed");
        Ok(())
    })?;
    Ok(time / entries.len() as f64)
}

/// A list of entries for the same MSR, with its current value.
fn same(guest: &Guest, index: u32) -> Result<Vec<msrs::Entry>> {
    let value = msrs::get(guest.vcpu(), index)?.with_context(|| format!("no MSR {index:#x}"))?;

    Ok(vec![msrs::Entry::new(index, value); ENTRIES as usize])
}

/// All MSRs of KVM_GET_MSR_INDEX_LIST that the vCPU accepts, with their values.
fn saved(guest: &Guest) -> Result<Vec<msrs::Entry>> {
    let list = Kvm::new()?.get_msr_index_list()?;
    let mut entries = Vec::new();

    for &index in list.as_slice() {
        if let Some(value) = msrs::get(guest.vcpu(), index)? {
            if msrs::set(guest.vcpu(), index, value)? {
                entries.push(msrs::Entry::new(index, value));
            }
        }
    }
    Ok(entries)
}

fn get_same(guest: &Guest, index: u32) -> Result<f64> {
    per_entry(
        guest,
        ioctl::get_msrs,
        &same(guest, index)?,
        ENTRIES as usize,
    )
}

fn set_same(guest: &Guest, index: u32) -> Result<f64> {
    per_entry(
        guest,
        ioctl::set_msrs,
        &same(guest, index)?,
        ENTRIES as usize,
    )
}

/// IA32_CR_PAT: stored, but KVM checks for AMD's nested paging.
fn get_msrs_entry(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    get_same(guest, PAT_MSR)
}

fn set_msrs_entry(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    set_same(guest, PAT_MSR)
}

fn get_msrs_entry_stored(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    get_same(guest, STORED_MSR)
}

fn set_msrs_entry_stored(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    set_same(guest, STORED_MSR)
}

fn get_msrs_entry_vendor(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    get_same(guest, VENDOR_MSR)
}

fn set_msrs_entry_vendor(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    set_same(guest, VENDOR_MSR)
}

/// The time of a call that ends with its first entry, which is unknown.
fn get_msrs_entry_unknown(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    per_entry(
        guest,
        ioctl::get_msrs,
        &[msrs::Entry::new(UNKNOWN_MSR, 0)],
        0,
    )
}

fn set_msrs_entry_unknown(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    per_entry(
        guest,
        ioctl::set_msrs,
        &[msrs::Entry::new(UNKNOWN_MSR, 1)],
        0,
    )
}

fn get_msrs_entry_saved(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    let entries = saved(guest)?;

    per_entry(guest, ioctl::get_msrs, &entries, entries.len())
}

fn set_msrs_entry_saved(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    let entries = saved(guest)?;

    per_entry(guest, ioctl::set_msrs, &entries, entries.len())
}

/// The time per KVM_GET_MSRS of the whole index list.
fn get_msrs_index_list(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    let list = Kvm::new()?.get_msr_index_list()?;
    let entries: Vec<_> = list
        .as_slice()
        .iter()
        .map(|&index| msrs::Entry::new(index, 0))
        .collect();

    Ok(per_entry(guest, ioctl::get_msrs, &entries, entries.len())? * entries.len() as f64)
}

/// The time per KVM_GET_NESTED_STATE, while L2 runs.
fn get_nested_state(guest: &Nested) -> Result<f64> {
    let mut state = KvmNestedStateBuffer::empty();

    per_call(1000, || {
        state.size = size_of_val(&state) as u32;
        guest.vcpu().nested_state(&mut state)?;
        Ok(())
    })
}

/// The time per KVM_SET_NESTED_STATE of a state in which L2 runs.
fn set_nested_state(guest: &Nested) -> Result<f64> {
    let mut state = KvmNestedStateBuffer::empty();

    guest.vcpu().nested_state(&mut state)?;
    per_call(1000, || Ok(guest.vcpu().set_nested_state(&state)?))
}

/// The time per KVM_GET_MP_STATE, the minimum of any vCPU ioctl.
fn vcpu_ioctl_floor(guest: &mut Guest, _ranges: usize) -> Result<f64> {
    per_call(1000, || {
        guest.vcpu().get_mp_state()?;
        Ok(())
    })
}
