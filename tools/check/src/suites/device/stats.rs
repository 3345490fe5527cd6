// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Statistics: they have exactly what the guest did.

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Access;
use kvm_msr_guest::Device;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::MAX_STATS;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::RIGHT_OBSERVE;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::Stat;
use kvm_msr_guest::device::uapi::Stats;
use kvm_msr_guest::device::uapi::WRITE;
use kvm_msr_guest::filter;
use kvm_msr_guest::ioctl;

use super::Test;
use super::setup::attached;
use super::setup::fails;
use super::setup::set_policy;
use crate::suites::filter_guest::NOBODY;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("statistics count what the guest did", counts),
    ("statistics count denied accesses", denials),
    ("statistics count the answers of user space", answers),
    ("statistics of more MSRs than there is room for", many),
    ("statistics of four vCPUs", vcpus),
    ("statistics belong to a file", owner),
];

/// P5 thermal or platform ID: KVM reads it as 0 and never passes it through.
const READABLE: u32 = 0x17;

/// Microcode revision: KVM ignores a guest's write and never passes it through.
const WRITABLE: u32 = 0x8b;

/// Outside of the pages with MSRs.
const FAR: u32 = 0x1234_5678;

/// What is expected of a record, besides its histogram.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    pub count: u64,
    pub denied: u64,
    pub unsupported: u64,
    pub user_exits: u64,
    pub gp: u64,
}

/// By MSR and access.
type All = BTreeMap<(u32, u32), Counts>;

/// Starts or stops statistics.
pub fn start_or_stop(device: &Device, op: u32) -> ioctl::Result {
    device.call(&mut Stats::new(op))
}

/// Reads the statistics, and checks what always holds. Also returns the number of lost accesses.
fn read(device: &Device) -> Result<(All, u64)> {
    let array = Array::new(&[Stat::default(); MAX_STATS as usize])?;
    let mut stats = Stats::read(&array, MAX_STATS as usize);

    device.call(&mut stats).context("STATS: read")?;
    ensure!(stats.tsc_khz > 1000, "a TSC of {} kHz", stats.tsc_khz);
    let records = array.read(stats.nr_records as usize);
    let keys: Vec<_> = records
        .iter()
        .map(|stat| (stat.index, stat.access))
        .collect();

    ensure!(keys.is_sorted(), "not sorted: {keys:x?}");
    let all: All = records
        .iter()
        .map(|stat| {
            let counts = Counts {
                count: stat.count,
                denied: stat.denied,
                unsupported: stat.unsupported,
                user_exits: stat.user_exits,
                gp: stat.gp,
            };

            ((stat.index, stat.access), counts)
        })
        .collect();

    ensure!(all.len() == records.len(), "two records of one MSR");
    for stat in &records {
        ensure!(
            stat.buckets.iter().sum::<u64>() == stat.count,
            "{stat:x?}: the histogram has another number"
        );
        // Even an emulated CPU needs some cycles, and less than a second.
        ensure!(
            stat.buckets[..2].iter().all(|count| *count == 0) && stat.buckets[31] == 0,
            "{stat:x?}: impossible times"
        );
    }
    Ok((all, stats.lost))
}

/// The statistics have to have exactly these records.
pub fn has(device: &Device, expected: &[(u32, u8, Counts)]) -> Result<()> {
    let expected: All = expected
        .iter()
        .map(|&(index, access, counts)| ((index, access.into()), counts))
        .collect();
    let (found, lost) = read(device)?;

    ensure!(lost == 0, "{lost} accesses are lost");
    ensure!(found == expected, "{found:x?} instead of {expected:x?}");
    Ok(())
}

fn succeeded(count: u64) -> Counts {
    Counts {
        count,
        ..Counts::default()
    }
}

/// KVM does not have the MSR, and the guest gets #GP.
fn unknown(count: u64) -> Counts {
    Counts {
        count,
        unsupported: count,
        gp: count,
        ..Counts::default()
    }
}

fn done(outcome: Outcome) -> Result<()> {
    ensure!(
        matches!(outcome, Outcome::Value(_) | Outcome::Done),
        "{outcome} instead of a success"
    );
    Ok(())
}

fn gp(outcome: Outcome) -> Result<()> {
    ensure!(outcome.is_gp(), "{outcome} instead of #GP");
    Ok(())
}

fn counts() -> Result<String> {
    const LOOP: u32 = 1000;
    let (mut guest, device) = attached()?;

    done(guest.rdmsr(READABLE)?)?;
    start_or_stop(&device, uapi::START)?;
    has(&device, &[])?;
    guest.start(Stub::RdmsrLoop, READABLE, 0, LOOP)?;
    done(guest.run()?)?;
    guest.start(Stub::WrmsrLoop, WRITABLE, 0, LOOP + 1)?;
    done(guest.run()?)?;
    for _ in 0..3 {
        gp(guest.rdmsr(NOBODY)?)?;
        gp(guest.wrmsr(FAR, 1)?)?;
        done(guest.rdmsr_emulated(READABLE)?)?;
        gp(guest.wrmsr_emulated(NOBODY, 1)?)?;
    }
    // KVM has the MSR, but not this value.
    gp(guest.wrmsr(0x277, 0x0202_0202_0202_0202)?)?;
    let expected = [
        (READABLE, READ, succeeded(u64::from(LOOP) + 3)),
        (WRITABLE, WRITE, succeeded(u64::from(LOOP) + 1)),
        (NOBODY, READ, unknown(3)),
        (NOBODY, WRITE, unknown(3)),
        (FAR, WRITE, unknown(3)),
        (
            0x277,
            WRITE,
            Counts {
                gp: 1,
                ..succeeded(1)
            },
        ),
    ];
    has(&device, &expected)?;
    // Nothing is counted after the end, but all is kept.
    start_or_stop(&device, uapi::STOP)?;
    done(guest.rdmsr(READABLE)?)?;
    gp(guest.rdmsr(NOBODY)?)?;
    has(&device, &expected)?;
    start_or_stop(&device, uapi::STOP)?;
    start_or_stop(&device, uapi::START)?;
    has(&device, &[])?;
    Ok(String::new())
}

fn denials() -> Result<String> {
    const CONSTANT: u32 = 0xc000_1000;
    let (mut guest, device) = attached()?;
    let denied = |count| Counts {
        denied: count,
        gp: count,
        ..succeeded(count)
    };

    start_or_stop(&device, uapi::START)?;
    done(guest.rdmsr(READABLE)?)?;
    Filter::allow_by_default()
        .with(Range::deny(filter::READ, READABLE, 1))
        .set(guest.vm())?;
    // On the short way, then on the way of a policy that has a rule for it.
    for _ in 0..2 {
        gp(guest.rdmsr(READABLE)?)?;
        gp(guest.rdmsr_emulated(READABLE)?)?;
    }
    has(
        &device,
        &[(
            READABLE,
            READ,
            Counts {
                denied: 4,
                gp: 4,
                ..succeeded(5)
            },
        )],
    )?;

    start_or_stop(&device, uapi::START)?;
    done(guest.wrmsr(WRITABLE, 0)?)?;
    gp(guest.rdmsr(CONSTANT)?)?;
    // The statistics go on with the policy. It also applies to an MSR that was counted before.
    set_policy(
        &device,
        &[
            Rule::new(READABLE, READABLE, READ, uapi::ALWAYS, uapi::GP, 0),
            Rule::new(WRITABLE, WRITABLE, WRITE, uapi::ALWAYS, uapi::GP, 0),
            Rule::new(
                CONSTANT,
                CONSTANT,
                READ,
                uapi::UNSUPPORTED,
                uapi::CONSTANT,
                7,
            ),
            Rule::new(NOBODY, NOBODY, READ, uapi::UNSUPPORTED, uapi::GP, 0),
        ],
    )?;
    for _ in 0..3 {
        gp(guest.rdmsr(READABLE)?)?;
        gp(guest.wrmsr(WRITABLE, 0)?)?;
        gp(guest.rdmsr(NOBODY)?)?;
        let outcome = guest.rdmsr(CONSTANT)?;
        ensure!(outcome == Outcome::Value(7), "{outcome} instead of 7");
    }
    set_policy(&device, &[])?;
    done(guest.wrmsr(WRITABLE, 0)?)?;
    has(
        &device,
        &[
            (READABLE, READ, denied(3)),
            (
                WRITABLE,
                WRITE,
                Counts {
                    count: 5,
                    ..denied(3)
                },
            ),
            (
                NOBODY,
                READ,
                Counts {
                    unsupported: 3,
                    ..denied(3)
                },
            ),
            (
                CONSTANT,
                READ,
                Counts {
                    unsupported: 4,
                    gp: 1,
                    ..succeeded(4)
                },
            ),
        ],
    )?;
    Ok(String::new())
}

fn answers() -> Result<String> {
    let (mut guest, device) = attached()?;

    start_or_stop(&device, uapi::START)?;
    guest.deflect(KVM_MSR_EXIT_REASON_FILTER)?;
    Filter::allow_by_default()
        .with(Range::deny(filter::READ | filter::WRITE, READABLE, 1))
        .set(guest.vm())?;
    for (access, emulated) in [
        (Access::Read, false),
        (Access::Write, false),
        (Access::Read, true),
        (Access::Write, true),
    ] {
        for error in [0, 1, 1] {
            let outcome = guest.access(access, emulated, READABLE, 0)?;

            ensure!(
                outcome.user_space().is_some(),
                "{outcome} instead of an exit"
            );
            guest.answer(5, error);
            let outcome = guest.run()?;
            ensure!(
                outcome.is_gp() == (error == 1),
                "{outcome} after error {error}"
            );
        }
    }
    let counts = Counts {
        denied: 6,
        user_exits: 6,
        gp: 4,
        ..succeeded(6)
    };
    has(
        &device,
        &[(READABLE, READ, counts), (READABLE, WRITE, counts)],
    )?;
    Ok(String::new())
}

fn many() -> Result<String> {
    const MSRS: u32 = MAX_STATS / 2;
    const LOST: u32 = 20;
    let (mut guest, device) = attached()?;

    start_or_stop(&device, uapi::START)?;
    // Every other MSR is in a page with MSRs.
    let index = |number: u32| {
        if number % 2 == 0 {
            FAR + number
        } else {
            0xc000_1000 + number
        }
    };
    for _ in 0..2 {
        for number in 0..MSRS + LOST {
            gp(guest.rdmsr(index(number))?)?;
        }
    }
    let (found, lost) = read(&device)?;
    let expected: All = (0..MSRS)
        .map(|number| ((index(number), READ.into()), unknown(2)))
        .collect();

    ensure!(lost == u64::from(2 * LOST), "{lost} accesses are lost");
    ensure!(found == expected, "other MSRs than the first");

    // Without room for all records.
    let array = Array::new(&[Stat::default(); 8])?;
    let mut stats = Stats::read(&array, 8);
    fails("8 records", device.call(&mut stats), Errno::E2BIG)?;
    ensure!(
        stats.nr_records == MSRS,
        "{} records instead of {MSRS}",
        stats.nr_records
    );
    ensure!(
        array.read(8).iter().all(|stat| *stat == Stat::default()),
        "records were written"
    );
    Ok(String::new())
}

fn vcpus() -> Result<String> {
    const ACCESSES: u32 = 20_000;
    let kvm = Kvm::new()?;
    let mut guest = Guest::new(&kvm, Options::new(kvm_msr_guest::Engine::Rust))?;
    let device = Device::attached(guest.vm(), RIGHT_OBSERVE)?;

    // Only one has been created when the statistics start, so all four share counters.
    for round in 0..2 {
        if round == 0 {
            start_or_stop(&device, uapi::START)?;
        }
        let mut others = Vec::new();

        for id in 1..4 {
            others.push(guest.another_vcpu(&kvm, 4 * round + id)?);
        }
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = others
                .iter_mut()
                .map(|vcpu| {
                    scope.spawn(|| {
                        vcpu.start(Stub::RdmsrLoop, READABLE, 0, ACCESSES)?;
                        done(vcpu.run()?)
                    })
                })
                .collect();

            guest.start(Stub::RdmsrLoop, READABLE, 0, ACCESSES)?;
            done(guest.run()?)?;
            for thread in threads {
                thread.join().expect("no panic")?;
            }
            Ok(())
        })?;
        has(
            &device,
            &[(READABLE, READ, succeeded(4 * u64::from(ACCESSES)))],
        )?;
        // Now four vCPUs have counters of their own, and three share these.
        start_or_stop(&device, uapi::START)?;
    }
    Ok(String::new())
}

fn owner() -> Result<String> {
    let (mut guest, first) = attached()?;
    let second = Device::attached(guest.vm(), RIGHT_OBSERVE)?;
    let none = Array::new(&[])?;

    for op in [uapi::STOP, 3, u32::MAX] {
        fails("not started", start_or_stop(&first, op), Errno::EINVAL)?;
    }
    fails(
        "not started",
        first.call(&mut Stats::read(&none, 0)),
        Errno::EINVAL,
    )?;
    start_or_stop(&first, uapi::START)?;
    fails(
        "two count",
        start_or_stop(&second, uapi::START),
        Errno::EBUSY,
    )?;
    fails(
        "not its own",
        start_or_stop(&second, uapi::STOP),
        Errno::EINVAL,
    )?;
    fails(
        "not its own",
        second.call(&mut Stats::read(&none, 0)),
        Errno::EINVAL,
    )?;
    done(guest.rdmsr(READABLE)?)?;
    has(&first, &[(READABLE, READ, succeeded(1))])?;
    start_or_stop(&first, uapi::STOP)?;
    fails(
        "two count",
        start_or_stop(&second, uapi::START),
        Errno::EBUSY,
    )?;
    drop(first);
    start_or_stop(&second, uapi::START)?;
    has(&second, &[])?;
    done(guest.rdmsr(READABLE)?)?;
    drop(guest);
    // KVM drops its last reference shortly after.
    let start = std::time::Instant::now();

    while start_or_stop(&second, uapi::START).is_ok() {
        ensure!(start.elapsed().as_secs() < 5, "the VM does not end");
    }
    for op in [uapi::START, uapi::STOP] {
        fails(
            "the VM has ended",
            start_or_stop(&second, op),
            Errno::ENODEV,
        )?;
    }
    fails(
        "the VM has ended",
        second.call(&mut Stats::read(&none, 0)),
        Errno::ENODEV,
    )?;
    Ok(String::new())
}
