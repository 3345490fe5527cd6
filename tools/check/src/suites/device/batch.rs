// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Batches, compared with single calls.

use std::os::fd::AsFd;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Random;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::save_list::SaveEntry;
use kvm_msr_guest::device::save_list::SaveList;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::Batch;
use kvm_msr_guest::device::uapi::Entry;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;

use super::Test;
use super::setup::attached;
use super::setup::fails;
use super::setup::guest;
use super::setup::set_policy;
use crate::Arguments;
use crate::suites::filter_guest::NOBODY;
use crate::suites::msrs_values::changes_by_itself;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("BATCH and SAVE_LIST on a vCPU that runs", running),
    ("BATCH on one vCPU of two", two_vcpus),
    ("BATCH from another address space", other_mm),
];

const PAT: u32 = 0x277;

/// Entries of a batch.
const ENTRIES: usize = 4096;

/// `KVM_X86_REG_MSR(index)`
fn one_reg(index: u32) -> u64 {
    0x2030_0002_0000_0000 | u64::from(index)
}

fn entry(kind: u32, id: impl Into<u64>, data: u64) -> Entry {
    Entry {
        kind,
        // Not a status that a batch returns.
        status: 77,
        id: id.into(),
        data,
    }
}

/// Makes a batch, in which each entry gets a status.
fn batch(device: &Device, op: u32, entries: &[Entry]) -> Result<Vec<Entry>> {
    let array = Array::new(entries)?;
    let mut batch = Batch::new(op, &array, entries.len());

    device.call(&mut batch).context("BATCH")?;
    ensure!(
        batch.nr_done as usize == entries.len(),
        "{} of {} done",
        batch.nr_done,
        entries.len()
    );
    let results = array.read(entries.len());
    for (entry, result) in entries.iter().zip(&results) {
        ensure!(
            entry.kind == result.kind && entry.id == result.id && result.status <= 0,
            "{entry:x?} became {result:x?}"
        );
    }
    Ok(results)
}

/// Reads a register by a call of its own; none if that fails.
fn get(kvm: &Kvm, guest: &Guest, entry: &Entry) -> Result<Option<u64>> {
    Ok(match entry.kind {
        uapi::ENTRY_FEATURE => {
            let mut feature = Msrs::from_entries(&[kvm_msr_entry {
                index: entry.id as u32,
                ..Default::default()
            }])?;

            (kvm.get_msrs(&mut feature)? == 1).then(|| feature.as_slice()[0].data)
        }
        uapi::ENTRY_REG => ioctl::get_one_reg(guest.vcpu(), entry.id).ok(),
        _ => msrs::get(guest.vcpu(), entry.id as u32)?,
    })
}

/// Writes a register by a call of its own, and returns whether that succeeded.
fn set(guest: &Guest, entry: &Entry) -> Result<bool> {
    Ok(match entry.kind {
        uapi::ENTRY_FEATURE => false,
        uapi::ENTRY_REG => ioctl::set_one_reg(guest.vcpu(), entry.id, entry.data).is_ok(),
        _ => msrs::set(guest.vcpu(), entry.id as u32, entry.data)?,
    })
}

/// MSRs of a vCPU that do not change by themselves, and some that KVM does not have.
fn indices(kvm: &Kvm) -> Result<Vec<u32>> {
    const TSC: u32 = 0x10;
    const TSC_ADJUST: u32 = 0x3b;
    const TSC_DEADLINE: u32 = 0x6e0;

    let list = kvm.get_msr_index_list()?;
    let steady = list.as_slice().iter().copied().filter(|&index| {
        !changes_by_itself(index) && ![TSC, TSC_ADJUST, TSC_DEADLINE].contains(&index)
    });

    Ok(steady.chain([0x1234, NOBODY, u32::MAX]).collect())
}

/// Batches of many entries, compared with as many calls on a guest of C's.
pub fn like_single_calls(arguments: &Arguments) -> Result<String> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let (guest, device) = attached()?;
    let by_c = self::guest(Engine::C)?;
    let mut random = Random::new(arguments.seed);
    let indices = indices(&kvm)?;
    let features = kvm.get_msr_feature_index_list()?;
    let kinds = [uapi::ENTRY_MSR, uapi::ENTRY_FEATURE, uapi::ENTRY_REG];
    let mut denied = 0;

    for op in [
        uapi::BATCH_GET,
        uapi::BATCH_SET,
        uapi::BATCH_GET,
        uapi::BATCH_SET,
    ] {
        let entries: Vec<Entry> = (0..ENTRIES)
            .map(|_| {
                let kind = *random.pick(&kinds);
                let index = match kind {
                    uapi::ENTRY_FEATURE => *random.pick(features.as_slice()),
                    _ => *random.pick(&indices),
                };
                let id = match kind {
                    uapi::ENTRY_REG => one_reg(index),
                    _ => index.into(),
                };
                let data = match random.below(4) {
                    0 => 0,
                    1 => 1 << random.below(64),
                    2 => 0x0007_0406_0007_0406,
                    _ => random.next(),
                };

                entry(kind, id, data)
            })
            .collect();

        let results = batch(&device, op, &entries)?;
        for (entry, result) in entries.iter().zip(results) {
            let (expected, data) = if op == uapi::BATCH_GET {
                let value = get(&kvm, &by_c, entry)?;
                (value.is_some(), value.unwrap_or(entry.data))
            } else {
                (set(&by_c, entry)?, entry.data)
            };

            ensure!(
                (result.status == 0) == expected && result.data == data,
                "operation {op}, {entry:x?}: {result:x?}, single call: {expected}, {data:#x}"
            );
            denied += u32::from(!expected);
        }
        for &index in &indices {
            ensure!(
                msrs::get(guest.vcpu(), index)? == msrs::get(by_c.vcpu(), index)?,
                "{index:#x} differs"
            );
        }
    }

    // The statuses of those that fail.
    let results = batch(
        &device,
        uapi::BATCH_SET,
        &[
            entry(uapi::ENTRY_MSR, NOBODY, 1),
            entry(uapi::ENTRY_MSR, PAT, 2),
            entry(uapi::ENTRY_FEATURE, PAT, 0),
            entry(uapi::ENTRY_REG, 0u32, 0),
        ],
    )?;
    let statuses: Vec<i32> = results.iter().map(|entry| -entry.status).collect();
    let expected = [
        Errno::ENOENT,
        Errno::EINVAL,
        Errno::EOPNOTSUPP,
        Errno::EINVAL,
    ];
    ensure!(
        statuses == expected.map(|errno| errno.0),
        "{statuses:?} instead of {expected:?}"
    );
    Ok(format!("{ENTRIES} entries, 4 times, {denied} denied"))
}

/// Waits for a vCPU that does not leave KVM_RUN.
fn running() -> Result<String> {
    let (mut guest, device) = attached()?;
    let array = Array::new(&[entry(uapi::ENTRY_MSR, PAT, 0)])?;
    let room = Array::<SaveEntry>::room(1)?;
    let wait = |timeout_ms| {
        let mut batch = Batch::new(uapi::BATCH_GET, &array, 1);
        let start = Instant::now();

        batch.timeout_ms = timeout_ms;
        let result = device.call(&mut batch);
        (result, batch.nr_done, start.elapsed())
    };
    let exit = Rule::new(PAT, PAT, READ, uapi::ALWAYS, uapi::EXIT, 0);

    guest.deflect(KVM_MSR_EXIT_REASON_FILTER)?;
    guest.start(Stub::RdmsrLoop, PAT, 0, 0)?;
    thread::scope(|scope| {
        let vcpu = scope.spawn(move || guest.run());
        let busy = || -> Result<()> {
            // Until KVM_RUN has begun, the vCPU is free.
            let start = Instant::now();
            while wait(0).0 != Err(Errno::EBUSY) {
                ensure!(
                    start.elapsed() < Duration::from_secs(10),
                    "the vCPU does not run"
                );
                thread::sleep(Duration::from_millis(1));
            }
            for timeout in [1, 50, 200] {
                let (result, done, elapsed) = wait(timeout);

                fails("a vCPU that runs", result, Errno::EBUSY)?;
                ensure!(
                    done == 0
                        && elapsed >= Duration::from_millis(u64::from(timeout) / 2)
                        && elapsed < Duration::from_secs(10),
                    "{done} done after {elapsed:?} with a timeout of {timeout} ms"
                );
            }
            // The MSRs that a vCPU has depend on its state.
            fails(
                "SAVE_LIST",
                device.call(&mut SaveList::new(&room, 1)),
                Errno::EBUSY,
            )
        };
        let result = busy();

        // The rule ends KVM_RUN, and a batch that waits gets the vCPU then.
        let waits = scope.spawn(|| wait(60_000));
        thread::sleep(Duration::from_millis(20));
        set_policy(&device, &[exit])?;
        let outcome = match vcpu.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("the vCPU's thread panicked"),
        };
        ensure!(outcome.user_space().is_some(), "{outcome}");
        let Ok((waited, done, elapsed)) = waits.join() else {
            bail!("the waiting thread panicked");
        };
        ensure!(
            waited == Ok(0) && done == 1 && elapsed < Duration::from_secs(30),
            "{waited:?} after {elapsed:?}, {done} done"
        );
        result
    })?;
    Ok(String::new())
}

/// A batch is for the vCPU with its ID.
fn two_vcpus() -> Result<String> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let (first, device) = attached()?;
    // The ID is not the position in the list of vCPUs.
    let second = first.another_vcpu(&kvm, 5)?;
    let values = [0x0606, 0x0404];

    for (vcpu_id, value) in [0, 5].into_iter().zip(values) {
        let array = Array::new(&[entry(uapi::ENTRY_MSR, PAT, value)])?;
        let mut set = Batch::new(uapi::BATCH_SET, &array, 1);

        set.vcpu_id = vcpu_id;
        device.call(&mut set)?;
    }
    for (guest, value) in [&first, &second].into_iter().zip(values) {
        ensure!(
            msrs::get(guest.vcpu(), PAT)? == Some(value),
            "not {value:#x}"
        );
    }
    let array = Array::new(&[entry(uapi::ENTRY_MSR, PAT, 0)])?;
    let mut get = Batch::new(uapi::BATCH_GET, &array, 1);
    get.vcpu_id = 1;
    fails("no such vCPU", device.call(&mut get), Errno::ENOENT)?;
    Ok(String::new())
}

/// What another process writes, and whether that accesses guest memory.
const WRITES: [(u32, u64, bool); 6] = [
    (PAT, 0x0606, false),
    // APIC_BASE, and the addresses of KVM's clocks and of the steal time.
    (0x1b, 0xfee0_0900, true),
    (0x4b56_4d00, 0x8000, true),
    (0x4b56_4d01, 0x8001, true),
    (0x4b56_4d03, 0x8001, true),
    // STAR, after the errors.
    (0xc000_0081, 0x1234, false),
];

fn writes() -> [Entry; 6] {
    WRITES.map(|(index, data, _)| entry(uapi::ENTRY_MSR, index, data))
}

/// Only what needs no guest memory is done for a task with another address space.
fn other_mm() -> Result<String> {
    let (mut guest, device) = attached()?;
    let indices = WRITES.map(|(index, ..)| index);
    let before = indices.map(|index| msrs::get(guest.vcpu(), index));

    let child = Command::new("/proc/self/exe")
        .arg("--batch-from-stdin")
        .stdin(Stdio::from(device.as_fd().try_clone_to_owned()?))
        .output()
        .context("start another process")?;
    let said = String::from_utf8_lossy(&child.stdout);
    ensure!(child.status.success(), "the other process: {said}");
    let statuses: Vec<i32> = said
        .split_whitespace()
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()
        .with_context(|| format!("the other process: {said}"))?;
    let expected = WRITES.map(|(.., is_memory)| if is_memory { -Errno::EIO.0 } else { 0 });
    ensure!(statuses == expected, "{statuses:?} instead of {expected:?}");
    for ((index, data, is_memory), before) in WRITES.into_iter().zip(before) {
        let now = msrs::get(guest.vcpu(), index)?;
        let expected = if is_memory { before? } else { Some(data) };
        ensure!(
            now == expected,
            "{index:#x} is {now:x?} instead of {expected:x?}"
        );
    }
    let outcome = guest.rdmsr(PAT)?;
    ensure!(outcome == Outcome::Value(0x0606), "PAT: {outcome}");
    // The VMM itself can do all of it.
    for result in batch(&device, uapi::BATCH_SET, &writes())? {
        ensure!(result.status == 0, "{result:x?}");
    }
    Ok(String::new())
}

/// The other process of [`other_mm`]: reads and writes by the device that is its standard input, and
/// prints the statuses of the writes.
pub fn from_stdin() -> Result<()> {
    let device = Device::from(std::io::stdin().as_fd().try_clone_to_owned()?);

    for result in batch(&device, uapi::BATCH_GET, &writes())? {
        ensure!(result.status == 0, "{result:x?}");
    }
    for result in batch(&device, uapi::BATCH_SET, &writes())? {
        println!("{}", result.status);
    }
    Ok(())
}
