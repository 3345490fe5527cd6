// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the cache-line benchmark has the kernel do, between marks that the
//! plugin `tools/bench/plugin/trace.c` of QEMU understands.
//!
//! `tools/vm/cache_lines.py` reads the trace, and from the report printed here
//! what each pair of marks encloses.

use std::arch::asm;
use std::fs;
use std::hint::black_box;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;
use serde::Serialize;

use crate::PAT_MSR;
use crate::READ_MSR;
use crate::allowing;
use crate::list_of;
use crate::set_filter;

/// Calls per series, the last half of which finds caches as warm as they get.
const CALLS: usize = 16;

/// Bytes per cache line.
const LINE: usize = 64;

/// Calls of one function of the kernel, between two marks.
#[derive(Serialize)]
struct Series {
    name: &'static str,
    /// Ranges in the filter, or entries of an ioctl.
    size: usize,
    engine: &'static str,
    /// The function's address.
    function: usize,
    calls: usize,
}

#[derive(Serialize)]
struct Report {
    series: Vec<Series>,
}

/// Runs all series, and prints their report as a frame.
pub fn trace() -> Result<()> {
    let rdmsr = address_of("kvm_emulate_rdmsr")?;
    let get_msrs = address_of("kvm_get_msrs")?;
    let index_list = Kvm::new()?.get_msr_index_list()?;
    let mut series = Vec::new();

    for lines in [0, LINE] {
        touch_lines(lines);
        series.push(Series {
            name: "touch",
            size: lines,
            engine: "none",
            function: (touch as *const ()).addr(),
            calls: CALLS,
        });
    }
    for (engine, name) in [(Engine::C, "c"), (Engine::Rust, "engine")] {
        for ranges in [0, 1, 16] {
            guest_rdmsr(engine, ranges)?;
            series.push(Series {
                name: "guest_rdmsr",
                size: ranges,
                engine: name,
                function: rdmsr,
                calls: CALLS,
            });
        }
        for entries in [64, 128] {
            get_msrs_of(engine, &vec![PAT_MSR; entries])?;
            series.push(Series {
                name: "get_msrs",
                size: entries,
                engine: name,
                function: get_msrs,
                calls: CALLS,
            });
        }
        get_msrs_of(engine, index_list.as_slice())?;
        series.push(Series {
            name: "get_msrs_index_list",
            size: 0,
            engine: name,
            function: get_msrs,
            calls: CALLS,
        });
    }

    println!("@@json {}", serde_json::to_string(&Report { series })?);
    Ok(())
}

/// From here on the plugin records. Without it, this is a NOP.
fn start_recording() {
    // SAFETY: A NOP, whatever its operand.
    unsafe { asm!("nop dword ptr [rax + 0x6b766d01]", options(nomem, nostack)) };
}

/// The end of what [`start_recording`] began.
fn stop_recording() {
    // SAFETY: A NOP, whatever its operand.
    unsafe { asm!("nop dword ptr [rax + 0x6b766d02]", options(nomem, nostack)) };
}

/// The address of a kernel function.
fn address_of(function: &str) -> Result<usize> {
    let symbols = fs::read_to_string("/proc/kallsyms").context("read /proc/kallsyms")?;
    let address = symbols
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&function))
        .with_context(|| format!("the kernel has no function {function}"))?[0];

    Ok(usize::from_str_radix(address, 16)?)
}

/// Loads from so many lines.
#[inline(never)]
fn touch(memory: &[u8], lines: usize) -> u8 {
    (0..lines).fold(0, |sum, line| sum ^ black_box(memory[line * LINE]))
}

/// What checks the plugin and the model: a function that touches a known number of lines.
fn touch_lines(lines: usize) {
    let memory = vec![1; (lines + 1) * LINE];

    start_recording();
    for _ in 0..CALLS {
        black_box(touch(black_box(&memory), black_box(lines)));
    }
    stop_recording();
}

/// RDMSR in a guest, which exits and is emulated.
fn guest_rdmsr(engine: Engine, ranges: usize) -> Result<()> {
    let mut guest = guest_on(engine)?;

    set_filter(&guest, &allowing(READ_MSR, ranges))?;
    guest.start(Stub::RdmsrLoop, READ_MSR, 0, CALLS as u32)?;

    start_recording();
    let outcome = guest.run();
    stop_recording();

    let outcome = outcome?;
    ensure!(
        matches!(outcome, Outcome::Value(_)),
        "the guest's loop ended with {outcome}"
    );
    Ok(())
}

/// KVM_GET_MSRS of these.
fn get_msrs_of(engine: Engine, indices: &[u32]) -> Result<()> {
    let guest = guest_on(engine)?;
    let entries: Vec<_> = indices
        .iter()
        .map(|&index| msrs::Entry::new(index, 0))
        .collect();
    let memory = list_of(&entries)?;
    let mut done = [0; CALLS];

    start_recording();
    for done in &mut done {
        *done = ioctl::get_msrs(Abi::Native, guest.vcpu(), memory.at(0))?;
    }
    stop_recording();

    ensure!(
        done.iter().all(|&done| done == entries.len() as i32),
        "{done:?} of {} MSRs were read",
        entries.len()
    );
    Ok(())
}

fn guest_on(engine: Engine) -> Result<Guest> {
    let kvm = Kvm::new().context("open /dev/kvm")?;

    Guest::new(
        &kvm,
        Options {
            irqchip: true,
            ..Options::new(engine)
        },
    )
}
