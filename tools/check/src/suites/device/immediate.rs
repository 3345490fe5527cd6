// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The immediate forms of RDMSR and WRMSR. While `kvm_immediate.ko` is loaded, the guests' RDMSR and
//! WRMSR take KVM's path for them, on C as on the engine, with 32 bits of the value.

use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Access;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::RIGHTS;
use kvm_msr_guest::device::uapi::WRITE;
use kvm_msr_guest::filter;
use kvm_msr_guest::msrs;

use super::Test;
use super::model::ALL_REASONS;
use super::model::Model;
use super::model::Pair;
use super::model::Step;
use super::model::policies;
use super::setup::attached;
use super::setup::guest;
use super::setup::learn;
use super::setup::learned;
use super::setup::set_policy;
use super::stats;
use super::stats::Counts;
use crate::suites::filter_guest::NOBODY;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("immediate forms: each action", each_action),
    ("immediate forms: exits to user space", exits),
    ("immediate forms: learning and statistics", observed),
    ("immediate forms: the WRMSR fastpath", fastpath),
];

/// Whether the guests' accesses are immediate forms.
pub fn possible() -> bool {
    Path::new("/sys/module/kvm_immediate").exists()
}

const STAR: u32 = 0xc000_0081;
/// A guest's write is ignored.
const UCODE_REV: u32 = 0x8b;
/// KVM reads it as 0 and never passes it through.
const PLATFORM_ID: u32 = 0x17;
/// Write-only, so reads are invalid.
const PRED_CMD: u32 = 0x49;
const UNKNOWN: u32 = 0x1234;

fn each_action() -> Result<String> {
    let mut pair = Pair::new(guest(Engine::Rust)?, guest(Engine::C)?)?;
    let mut compared = 0;

    pair.read_mask = u32::MAX.into();

    for index in [STAR, PLATFORM_ID, UCODE_REV, PRED_CMD, UNKNOWN, NOBODY] {
        for rules in policies(index) {
            for (reasons, ignore_msrs) in [(0, false), (ALL_REASONS, false), (0, true)] {
                let model = Model {
                    reasons,
                    ignore_msrs,
                    rules: rules.clone(),
                    ..Default::default()
                };

                set_policy(&pair.device, &rules)?;
                pair.guest.deflect(reasons)?;
                for data in [0x0007_0406, 0x0604_0706, 0x0004_0402] {
                    for access in [Access::Write, Access::Read] {
                        let step = Step {
                            access,
                            emulated: false,
                            index,
                            data,
                        };

                        pair.compare(&model, step)
                            .with_context(|| format!("{rules:x?}"))?;
                        compared += 1;
                    }
                }
            }
        }
    }
    Ok(format!("{compared} accesses"))
}

/// What user space and the guest see of denied accesses, on C and on the engine.
fn exits() -> Result<String> {
    // EDX has no part in it, so the higher half does not matter.
    const ANSWER: u64 = 0x5555_5555_9abc_def0;
    const DATA: u64 = 0x6666_6666_1234_5678;
    let denied =
        Filter::allow_by_default().with(Range::deny(filter::READ | filter::WRITE, STAR, 1));
    let seen_by = |engine| -> Result<Vec<Outcome>> {
        let mut guest = guest(engine)?;
        let mut seen = Vec::new();

        guest.deflect(ALL_REASONS)?;
        denied.set(guest.vm())?;
        for index in [STAR, UNKNOWN, NOBODY] {
            for access in [Access::Read, Access::Write] {
                for error in [0, 1] {
                    seen.push(guest.access(access, false, index, DATA)?);
                    guest.answer(ANSWER, error);
                    seen.push(guest.run()?);
                }
            }
        }
        Ok(seen)
    };
    let (by_c, by_engine) = (seen_by(Engine::C)?, seen_by(Engine::Rust)?);

    ensure!(by_c == by_engine, "C {by_c:x?}, engine {by_engine:x?}");
    for four in by_engine.chunks(4) {
        let [exit, answered, again, refused] = four else {
            continue;
        };
        let exit = exit.user_space().context("no exit")?;
        let (data, expected) = match exit.access {
            Access::Read => (0, Outcome::Value(ANSWER & 0xffff_ffff)),
            Access::Write => (DATA & 0xffff_ffff, Outcome::Done),
        };

        ensure!(
            exit.data == data
                && again.user_space().is_some()
                && *answered == expected
                && refused.is_gp(),
            "{four:x?}"
        );
    }
    Ok(format!("{} outcomes", by_c.len()))
}

fn observed() -> Result<String> {
    let (mut guest, device) = attached()?;

    learn(&device, uapi::START)?;
    stats::start_or_stop(&device, uapi::START)?;
    guest.rdmsr(PLATFORM_ID)?;
    guest.wrmsr(UCODE_REV, 0)?;
    guest.rdmsr(UNKNOWN)?;
    for record in learned(&device)? {
        ensure!(record.paths == uapi::PATH_IMMEDIATE, "{record:x?}");
    }
    ensure!(learned(&device)?.len() == 3, "not all are learned");

    let one = Counts {
        count: 1,
        ..Default::default()
    };
    let denied = Counts {
        denied: 0,
        unsupported: 1,
        gp: 1,
        ..one
    };
    stats::has(
        &device,
        &[
            (PLATFORM_ID, READ, one),
            (UCODE_REV, WRITE, one),
            (UNKNOWN, READ, denied),
        ],
    )?;
    Ok(String::new())
}

/// KVM's fastpath sees no immediate form that a rule or learning has to see.
fn fastpath() -> Result<String> {
    const APIC_BASE: u32 = 0x1b;
    const TSC_DEADLINE: u32 = 0x6e0;
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let options = Options {
        irqchip: true,
        ..Options::new(Engine::Rust)
    };
    let mut guest = Guest::new(&kvm, options)?;
    let device = Device::attached(guest.vm(), RIGHTS)?;
    let rule = uapi::Rule::new(TSC_DEADLINE, TSC_DEADLINE, WRITE, uapi::ALWAYS, uapi::GP, 0);

    ensure!(
        msrs::set(guest.vcpu(), APIC_BASE, 0xfee0_0d00)?,
        "there is no x2APIC"
    );
    for rules in [&[][..], &[rule]] {
        set_policy(&device, rules)?;
        learn(&device, uapi::START)?;
        let outcome = guest.wrmsr(TSC_DEADLINE, 0)?;
        let records = learned(&device)?;

        learn(&device, uapi::STOP)?;
        ensure!(
            outcome.is_gp() != rules.is_empty(),
            "{outcome} under {rules:x?}"
        );
        ensure!(
            matches!(
                &records[..],
                [one] if one.index == TSC_DEADLINE && one.paths == uapi::PATH_IMMEDIATE
            ),
            "{records:x?}"
        );
    }
    Ok(String::new())
}
