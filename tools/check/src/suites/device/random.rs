// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Random policies, compared with the model.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::Access;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Random;
use kvm_msr_guest::Range;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::WRITE;
use kvm_msr_guest::filter;

use super::model::ALL_REASONS;
use super::model::Model;
use super::model::Pair;
use super::model::Step;
use super::msrs;
use super::setup::guest;
use super::setup::policy;
use super::setup::set_policy;
use crate::Arguments;
use crate::suites::filter_guest::NOBODY;

/// Accesses for each policy.
const ACCESSES: u32 = 50;

/// Sets random policies, and compares accesses with the model.
pub fn run(arguments: &Arguments) -> Result<String> {
    let mut random = Random::new(arguments.seed);
    let known: Vec<u32> = msrs::all().collect();
    let mut pair = Pair::new(guest(Engine::Rust)?, guest(Engine::C)?)?;
    let mut rules = 0;

    for number in 0..arguments.policies {
        let model = random_model(&mut random, &known);

        rules += model.rules.len();
        pair.guest.deflect(model.reasons)?;
        model.filter.set(pair.guest.vm())?;
        set_policy(&pair.device, &model.rules)
            .with_context(|| format!("policy {number}: {:x?}", model.rules))?;
        if number % 16 == 0 {
            same_rules(&policy(&pair.device)?, &model.rules)?;
        }
        for _ in 0..ACCESSES {
            let step = random_step(&mut random, &known, &model.rules);

            pair.compare(&model, step).with_context(|| {
                format!(
                    "--seed {:#x}, policy {number} is {:x?}, filter {:x?}",
                    arguments.seed, model.rules, model.filter
                )
            })?;
        }
    }
    Ok(format!(
        "{} policies, {rules} rules, {ACCESSES} accesses each",
        arguments.policies
    ))
}

/// GET_POLICY returns the same rules, sorted.
fn same_rules(read: &[Rule], set: &[Rule]) -> Result<()> {
    let mut set = set.to_vec();

    set.sort_by_key(|rule| (rule.when, rule.first));
    ensure!(read == set, "{read:x?} instead of {set:x?}");
    Ok(())
}

fn random_model(random: &mut Random, known: &[u32]) -> Model {
    let mut filter = Filter::allow_by_default();

    if random.below(4) == 0 {
        for _ in 0..1 + random.below(4) {
            let kinds = [filter::READ, filter::WRITE, filter::READ | filter::WRITE];
            let kinds = *random.pick(&kinds);
            let nmsrs = 1 + random.below(8);

            filter = filter.with(Range::deny(kinds, random_index(random, known), nmsrs));
        }
    }
    Model {
        filter,
        reasons: random.below(ALL_REASONS + 1) & ALL_REASONS,
        rules: random_rules(random, known),
        ignore_msrs: random.below(8) == 0,
    }
}

/// Rules that do not overlap.
fn random_rules(random: &mut Random, known: &[u32]) -> Vec<Rule> {
    let tries = match random.below(16) {
        0 => 0,
        1 => 500,
        2..4 => 100,
        _ => 1 + random.below(20),
    };
    let mut rules: Vec<Rule> = Vec::new();

    for _ in 0..tries {
        let rule = random_rule(random, known);
        let is_x2apic = rule.first <= 0x8ff && rule.last >= 0x800;
        let overlaps = rules.iter().any(|other| {
            other.when == rule.when
                && other.access & rule.access != 0
                && other.first <= rule.last
                && rule.first <= other.last
        });

        if !is_x2apic && !overlaps {
            rules.push(rule);
        }
    }
    rules
}

fn random_rule(random: &mut Random, known: &[u32]) -> Rule {
    let first = random_index(random, known);
    let last = match random.below(8) {
        0..4 => first,
        4 | 5 => first.saturating_add(random.below(4)),
        6 => first.saturating_add(random.below(0x100)),
        _ => first.saturating_add(random.next() as u32 >> random.below(32)),
    };
    let mut access = *random.pick(&[READ, WRITE, READ | WRITE]);
    let mut when = random.below(2) as u8;
    let action = random.below(u32::from(uapi::MATCH) + 1) as u8;
    let value = match action {
        uapi::CONSTANT => random.next(),
        uapi::MASK | uapi::MATCH => {
            access = WRITE;
            when = uapi::ALWAYS;
            // Often, and seldom, a write changes no other bit.
            match random.below(3) {
                0 => u64::MAX,
                1 => !(1u64 << random.below(64)),
                _ => random.next(),
            }
        }
        _ => 0,
    };

    Rule::new(first, last, access, when, action, value)
}

/// An MSR that guests may access, or a neighbour of one.
fn random_index(random: &mut Random, known: &[u32]) -> u32 {
    match random.below(4) {
        0 => NOBODY + random.below(0x200),
        1 => random.pick(known).wrapping_sub(random.below(3)),
        _ => *random.pick(known),
    }
}

fn random_step(random: &mut Random, known: &[u32], rules: &[Rule]) -> Step {
    let index = loop {
        let index = match random.below(2) {
            0 if !rules.is_empty() => {
                let rule = random.pick(rules);
                let middle = rule.first + (rule.last - rule.first) / 2;
                let ends = [
                    rule.first.wrapping_sub(1),
                    rule.first,
                    middle,
                    rule.last,
                    rule.last.wrapping_add(1),
                ];

                *random.pick(&ends)
            }
            _ => random_index(random, known),
        };

        if msrs::is_harmless(index) {
            break index;
        }
    };

    Step {
        access: *random.pick(&[Access::Read, Access::Write]),
        emulated: random.below(2) == 0,
        index,
        data: msrs::value(random, index),
    }
}
