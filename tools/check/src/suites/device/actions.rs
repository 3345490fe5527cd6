// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What rules do, on each way to an MSR.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Access;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::device::ignoring_unsupported;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::RIGHTS;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::WRITE;
use kvm_msr_guest::filter;
use kvm_msr_guest::msrs;

use super::Test;
use super::model::ALL_REASONS;
use super::model::Model;
use super::model::Pair;
use super::model::Seen;
use super::model::Step;
use super::model::policies;
use super::setup::attached;
use super::setup::guest;
use super::setup::set_policy;
use crate::suites::filter_guest::NOBODY;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("each action on each path", each_action),
    ("the filter comes first", filter_first),
    ("user space answers exits of rules", answers),
    ("rules for passed-through MSRs", passed_through),
    ("rules for TSC_DEADLINE", tsc_deadline),
    ("unknown MSRs of one VM only", one_vm),
    ("user space is not judged", user_space),
];

const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const PAT: u32 = 0x277;
/// Write-only, so reads are invalid.
const PRED_CMD: u32 = 0x49;
const TSC_DEADLINE: u32 = 0x6e0;

/// Guests of the engine's and of C's, with an in-kernel irqchip or without.
fn pair(irqchip: bool) -> Result<Pair> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let guest = |engine| {
        let mut options = Options::new(engine);

        options.irqchip = irqchip;
        Guest::new(&kvm, options)
    };

    Pair::new(guest(Engine::Rust)?, guest(Engine::C)?)
}

fn each_action() -> Result<String> {
    let mut pair = pair(false)?;
    let mut compared = 0;
    // Exits that are enabled, and ignore_msrs.
    let settings = [
        (0, false),
        (KVM_MSR_EXIT_REASON_FILTER, false),
        (KVM_MSR_EXIT_REASON_UNKNOWN, false),
        (ALL_REASONS, false),
        (0, true),
    ];

    for index in [STAR, 0x174, PAT, PRED_CMD, 0x1234, NOBODY] {
        for rules in policies(index) {
            let mut model = Model {
                rules,
                ..Default::default()
            };

            set_policy(&pair.device, &model.rules)?;
            for (reasons, ignore_msrs) in settings {
                model.ignore_msrs = ignore_msrs;
                model.reasons = reasons;
                pair.guest.deflect(reasons)?;
                compared += all_paths(&mut pair, &model, index)
                    .with_context(|| format!("{:x?}", model.rules))?;
            }
        }
    }
    Ok(format!("{compared} accesses"))
}

/// Writes and reads the MSR by each path.
fn all_paths(pair: &mut Pair, model: &Model, index: u32) -> Result<u32> {
    let mut compared = 0;

    for emulated in [false, true] {
        // All are values of PAT, except the last.
        for data in [0x0007_0406, 0x0604_0706, 0x0004_0402] {
            for access in [Access::Write, Access::Read] {
                let step = Step {
                    access,
                    emulated,
                    index,
                    data: if index == 0x174 { data & 0xffff } else { data },
                };

                pair.compare(model, step)?;
                compared += 1;
            }
        }
    }
    Ok(compared)
}

fn filter_first() -> Result<String> {
    let mut pair = pair(false)?;
    let mut model = Model {
        filter: Filter::allow_by_default().with(Range::deny(
            filter::READ | filter::WRITE,
            NOBODY,
            2,
        )),
        reasons: ALL_REASONS,
        ..Default::default()
    };

    model.filter.set(pair.guest.vm())?;
    pair.guest.deflect(ALL_REASONS)?;
    for action in [
        uapi::ALLOW,
        uapi::GP,
        uapi::EXIT,
        uapi::IGNORE,
        uapi::CONSTANT,
    ] {
        for when in [uapi::ALWAYS, uapi::UNSUPPORTED] {
            let rule = Rule::new(NOBODY + 1, NOBODY + 3, READ | WRITE, when, action, 0);

            model.rules = vec![rule];
            set_policy(&pair.device, &model.rules)?;
            for index in NOBODY..NOBODY + 5 {
                for (access, emulated) in [
                    (Access::Read, false),
                    (Access::Read, true),
                    (Access::Write, false),
                    (Access::Write, true),
                ] {
                    let seen = pair.compare(
                        &model,
                        Step {
                            access,
                            emulated,
                            index,
                            data: 5,
                        },
                    )?;
                    let filtered = seen == Seen::Exit(KVM_MSR_EXIT_REASON_FILTER);

                    ensure!(
                        index >= NOBODY + 2 || filtered,
                        "rule {rule:x?} widens the filter: {seen}"
                    );
                }
            }
        }
    }
    Ok(String::new())
}

fn answers() -> Result<String> {
    let (mut guest, device) = attached()?;

    guest.deflect(ALL_REASONS)?;
    for (when, index) in [
        (uapi::ALWAYS, STAR),
        (uapi::ALWAYS, NOBODY),
        (uapi::UNSUPPORTED, NOBODY),
    ] {
        let rule = Rule::new(index, index, READ | WRITE, when, uapi::EXIT, 0);

        set_policy(&device, &[rule])?;
        for emulated in [false, true] {
            for (access, error, expected) in [
                (Access::Read, 0, Some(Outcome::Value(0x1234_5678_9abc))),
                (Access::Read, 1, None),
                (Access::Write, 0, Some(Outcome::Done)),
                (Access::Write, 1, None),
            ] {
                let exit = guest.access(access, emulated, index, 0x77)?;
                ensure!(exit.user_space().is_some(), "{exit}");
                guest.answer(0x1234_5678_9abc, error);
                let outcome = guest.run()?;
                let right = match expected {
                    Some(expected) => outcome == expected,
                    None => outcome.is_gp(),
                };

                ensure!(right, "{access} of {index:#x}, error {error}: {outcome}");
            }
        }
    }
    Ok(String::new())
}

fn passed_through() -> Result<String> {
    let mut pair = pair(false)?;
    let mut model = Model::default();

    // Before and after the vCPU has run with another policy.
    for _ in 0..2 {
        for &index in super::msrs::PASSED_THROUGH {
            for (access, action) in [
                (READ, uapi::CONSTANT),
                (WRITE, uapi::CONSTANT),
                (READ | WRITE, uapi::GP),
                (READ, uapi::IGNORE),
                (WRITE, uapi::MASK),
                (WRITE, uapi::MATCH),
            ] {
                let value = match action {
                    uapi::CONSTANT => 0x99,
                    uapi::MASK | uapi::MATCH => 0x0f,
                    _ => 0,
                };
                let rule = Rule::new(index, index, access, uapi::ALWAYS, action, value);

                for rules in [vec![rule], vec![]] {
                    model.rules = rules;
                    set_policy(&pair.device, &model.rules)?;
                    for data in [0x1230, 0x1235, 0x1111] {
                        for access in [Access::Write, Access::Read] {
                            let step = Step {
                                access,
                                emulated: false,
                                index,
                                data,
                            };

                            pair.compare(&model, step)
                                .with_context(|| format!("{:x?}", model.rules))?;
                        }
                    }
                }
            }
        }
    }
    Ok(String::new())
}

fn tsc_deadline() -> Result<String> {
    let mut pair = pair(true)?;
    let mut model = Model {
        reasons: ALL_REASONS,
        ..Default::default()
    };

    pair.guest.deflect(ALL_REASONS)?;
    for (access, action, value) in [
        (WRITE, uapi::GP, 0),
        (WRITE, uapi::EXIT, 0),
        (WRITE, uapi::IGNORE, 0),
        (WRITE, uapi::MASK, 0xff),
        (WRITE, uapi::MATCH, 0),
        (READ, uapi::CONSTANT, 0x77),
        (READ | WRITE, uapi::ALLOW, 0),
    ] {
        let rule = Rule::new(
            TSC_DEADLINE,
            TSC_DEADLINE,
            access,
            uapi::ALWAYS,
            action,
            value,
        );

        for rules in [vec![], vec![rule]] {
            model.rules = rules;
            set_policy(&pair.device, &model.rules)?;
            for data in [u64::MAX, 0] {
                for access in [Access::Write, Access::Read] {
                    let step = Step {
                        access,
                        emulated: false,
                        index: TSC_DEADLINE,
                        data,
                    };

                    pair.compare(&model, step)
                        .with_context(|| format!("{:x?}", model.rules))?;
                }
            }
        }
    }
    Ok(String::new())
}

fn one_vm() -> Result<String> {
    let mut with = guest(Engine::Rust)?;
    let mut without = guest(Engine::Rust)?;
    let mut by_c = guest(Engine::C)?;
    let device = Device::attached(with.vm(), RIGHTS)?;

    set_policy(&device, &ignoring_unsupported())?;
    for index in [NOBODY, 0x1234, u32::MAX, 0xc000_1fff] {
        let outcome = with.rdmsr(index)?;
        ensure!(outcome == Outcome::Value(0), "{index:#x}: {outcome}");
        let outcome = with.wrmsr(index, 1)?;
        ensure!(outcome == Outcome::Done, "{index:#x}: {outcome}");
        for other in [&mut without, &mut by_c] {
            let outcome = other.rdmsr(index)?;
            ensure!(outcome.is_gp(), "{index:#x} of another VM: {outcome}");
            let outcome = other.wrmsr(index, 1)?;
            ensure!(outcome.is_gp(), "{index:#x} of another VM: {outcome}");
        }
    }
    // What KVM has is as before, and so are its errors.
    ensure!(with.rdmsr(PAT)? == without.rdmsr(PAT)?, "PAT differs");
    ensure!(with.wrmsr(PAT, 2)?.is_gp(), "PAT gets an invalid value");
    Ok(String::new())
}

fn user_space() -> Result<String> {
    let (mut guest, device) = attached()?;
    let deny = |index| {
        Rule::new(
            index,
            index,
            READ | WRITE,
            uapi::ALWAYS,
            uapi::CONSTANT,
            0x99,
        )
    };
    let old = msrs::get(guest.vcpu(), PAT)?;

    set_policy(&device, &[deny(PAT), deny(LSTAR), deny(NOBODY)])?;
    ensure!(guest.rdmsr(PAT)? == Outcome::Value(0x99), "no rule");
    ensure!(msrs::get(guest.vcpu(), PAT)? == old, "PAT differs");
    ensure!(msrs::set(guest.vcpu(), LSTAR, 0x1234)?, "LSTAR");
    ensure!(
        msrs::get(guest.vcpu(), LSTAR)? == Some(0x1234),
        "LSTAR is not written"
    );
    ensure!(msrs::get(guest.vcpu(), NOBODY)?.is_none(), "there is none");
    Ok(String::new())
}
