// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Policies that are refused. The old one stays in force.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::Device;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::UserPtr;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::GetPolicy;
use kvm_msr_guest::device::uapi::MAX_RULES;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::SetPolicy;
use kvm_msr_guest::device::uapi::WRITE;
use kvm_msr_guest::memory::Protection;

use super::Test;
use super::setup::attached;
use super::setup::fails;
use super::setup::policy;
use super::setup::set_policy;
use crate::suites::filter_guest::NOBODY;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("SET_POLICY with bad input", bad_set),
    ("rules that are wrong", bad_rules),
    ("GET_POLICY with bad input", bad_get),
    ("4096 rules, sorted", many),
];

/// A valid rule that covers no MSR of [`Fixture`]'s.
const VALID: Rule = rule(0x10, 0x10, READ | WRITE, uapi::ALWAYS, uapi::GP, 0);

const fn rule(first: u32, last: u32, access: u8, when: u8, action: u8, value: u64) -> Rule {
    Rule {
        first,
        last,
        access,
        when,
        action,
        reserved: 0,
        reserved2: 0,
        value,
    }
}

/// A guest with a policy that must not change.
struct Fixture {
    guest: Guest,
    device: Device,
}

impl Fixture {
    const RULES: [Rule; 2] = [
        rule(NOBODY, NOBODY + 9, READ, uapi::ALWAYS, uapi::CONSTANT, 0x77),
        rule(0, u32::MAX >> 24, READ, uapi::UNSUPPORTED, uapi::GP, 0),
    ];

    fn new() -> Result<Self> {
        let (guest, device) = attached()?;

        set_policy(&device, &Self::RULES)?;
        let mut fixture = Fixture { guest, device };
        fixture.unchanged().context("the policy")?;
        Ok(fixture)
    }

    fn unchanged(&mut self) -> Result<()> {
        let rules = policy(&self.device)?;
        let outcome = self.guest.rdmsr(NOBODY + 5)?;

        ensure!(rules == Self::RULES, "the rules are {rules:x?}");
        ensure!(
            outcome == Outcome::Value(0x77),
            "the rule is not in force: {outcome}"
        );
        Ok(())
    }

    /// A call has to fail, without a wrong rule.
    fn refused(&mut self, step: &str, mut policy: SetPolicy<'_>, errno: Errno) -> Result<()> {
        fails(step, self.device.call(&mut policy), errno)?;
        ensure!(
            policy.error == 0 && policy.error_rule == 0,
            "{step}: {policy:?}"
        );
        self.unchanged().with_context(|| step.to_owned())
    }

    /// The rule with number `number` is wrong.
    fn wrong_rule(&mut self, rules: &[Rule], number: usize, error: u32) -> Result<()> {
        let array = Array::new(rules)?;
        let mut policy = SetPolicy::new(&array, rules.len());
        // What is there before does not matter.
        policy.error = 99;
        policy.error_rule = 99;
        let step = format!("rule {number} of {rules:x?}");

        fails(&step, self.device.call(&mut policy), Errno::EINVAL)?;
        ensure!(
            policy.error == error && policy.error_rule as usize == number,
            "{step}: error {} of rule {} instead of error {error}",
            policy.error,
            policy.error_rule
        );
        self.unchanged().with_context(|| step)
    }
}

fn bad_set() -> Result<String> {
    let mut fixture = Fixture::new()?;
    let mut array = Array::new(&[VALID; 2])?;

    for flags in [2, 1 << 31, u32::MAX] {
        let mut policy = SetPolicy::new(&array, 1);

        policy.flags = flags;
        fixture.refused("flags", policy, Errno::EINVAL)?;
    }
    let mut policy = SetPolicy::new(&array, 1);
    policy.reserved = 1;
    fixture.refused("reserved", policy, Errno::EINVAL)?;

    for nr_rules in [MAX_RULES as usize + 1, u32::MAX as usize] {
        let policy = SetPolicy::new(&array, nr_rules);
        fixture.refused("too many rules", policy, Errno::E2BIG)?;
    }
    for pointer in [
        UserPtr::null(),
        UserPtr::non_canonical(),
        UserPtr::kernel(),
        Array::<Rule>::new(&[])?.at(),
    ] {
        let mut policy = SetPolicy::new(&array, 1);

        policy.rules = pointer;
        fixture.refused("bad address of rules", policy, Errno::EFAULT)?;
    }
    // The last rule is missing, in the first part that is copied and in a later one.
    for length in [2, 64, 200] {
        let rules: Vec<Rule> = (0..length).map(|i| rule_at(0x5000_1000 + i)).collect();
        let array = Array::new(&rules)?;
        let policy = SetPolicy::new(&array, rules.len() + 1);

        fixture.refused("a missing rule", policy, Errno::EFAULT)?;
    }
    // The error can't be written.
    array = Array::new(&[rule(9, 8, READ, 0, 0, 0)])?;
    let result = fixture.device.call_read_only(&SetPolicy::new(&array, 1));
    fails("read-only structure", result, Errno::EFAULT)?;
    fixture.unchanged()?;
    array.memory.protect(0..1, Protection::None)?;
    let policy = SetPolicy::new(&array, 1);
    fixture.refused("inaccessible rules", policy, Errno::EFAULT)?;
    Ok(String::new())
}

fn rule_at(index: u32) -> Rule {
    Rule {
        first: index,
        last: index,
        ..VALID
    }
}

fn bad_rules() -> Result<String> {
    let mut fixture = Fixture::new()?;
    let both = READ | WRITE;
    let mut wrong = vec![
        (rule(9, 8, both, 0, 0, 0), uapi::RULE_ORDER),
        (rule(u32::MAX, 0, both, 0, 0, 0), uapi::RULE_ORDER),
        (rule(1, 2, 0, 0, 0, 0), uapi::RULE_ACCESS),
        (rule(1, 2, 4, 0, 0, 0), uapi::RULE_ACCESS),
        (rule(1, 2, 0xff, 0, 0, 0), uapi::RULE_ACCESS),
        (rule(1, 2, both, 2, 0, 0), uapi::RULE_WHEN),
        (rule(1, 2, both, 0xff, 0, 0), uapi::RULE_WHEN),
        (rule(1, 2, both, 0, 7, 0), uapi::RULE_ACTION),
        (rule(1, 2, both, 0, 0xff, 0), uapi::RULE_ACTION),
        (rule(0x7ff, 0x800, both, 0, 1, 0), uapi::RULE_X2APIC),
        (rule(0x800, 0x800, READ, 0, 1, 0), uapi::RULE_X2APIC),
        (rule(0x83f, 0x83f, WRITE, 1, 3, 0), uapi::RULE_X2APIC),
        (rule(0x8ff, 0x900, both, 0, 0, 0), uapi::RULE_X2APIC),
        (rule(0, u32::MAX, both, 1, 3, 0), uapi::RULE_X2APIC),
    ];

    for action in [uapi::MASK, uapi::MATCH] {
        for (access, when) in [(READ, 0), (both, 0), (WRITE, 1), (READ, 1)] {
            wrong.push((rule(1, 2, access, when, action, 1), uapi::RULE_ACTION));
        }
    }
    for action in [uapi::ALLOW, uapi::GP, uapi::EXIT, uapi::IGNORE] {
        for value in [1, 1 << 63] {
            wrong.push((rule(1, 2, both, 0, action, value), uapi::RULE_VALUE));
        }
    }
    let mut reserved = rule(1, 2, both, 0, 0, 0);
    reserved.reserved = 0x80;
    wrong.push((reserved, uapi::RULE_RESERVED));
    let mut reserved = rule(1, 2, both, 0, 0, 0);
    reserved.reserved2 = 1 << 31;
    wrong.push((reserved, uapi::RULE_RESERVED));

    // Alone, after other rules, and in the second part of the rules that are copied.
    for &(wrong, error) in &wrong {
        for before in [0, 1, 100] {
            let mut rules: Vec<Rule> = (0..before).map(|i| rule_at(NOBODY + 100 + i)).collect();

            rules.push(wrong);
            rules.push(VALID);
            fixture.wrong_rule(&rules, before as usize, error)?;
        }
    }

    // The later rule of two that overlap is wrong.
    let overlap = |a: (u32, u32, u8, u8), b: (u32, u32, u8, u8)| {
        [a, b].map(|(first, last, access, when)| rule(first, last, access, when, uapi::IGNORE, 0))
    };
    for [a, b] in [
        overlap((5, 9, READ, 0), (9, 12, READ, 0)),
        overlap((5, 9, WRITE, 0), (1, 5, WRITE, 0)),
        overlap((5, 9, both, 0), (6, 8, READ, 0)),
        overlap((5, 9, WRITE, 0), (1, 99, both, 0)),
        overlap((5, 9, READ, 1), (5, 9, READ, 1)),
        overlap((0x900, u32::MAX, both, 1), (u32::MAX, u32::MAX, WRITE, 1)),
    ] {
        fixture.wrong_rule(&[a, b], 1, uapi::RULE_OVERLAP)?;
        fixture.wrong_rule(&[b, a], 1, uapi::RULE_OVERLAP)?;
        fixture.wrong_rule(&[a, VALID, b, a], 2, uapi::RULE_OVERLAP)?;
    }
    // Neighbours, the other kind of access and the other time do not overlap.
    for [a, b] in [
        overlap((5, 9, both, 0), (10, 12, both, 0)),
        overlap((5, 9, READ, 0), (5, 9, WRITE, 0)),
        overlap((5, 9, both, 0), (5, 9, both, 1)),
    ] {
        set_policy(&fixture.device, &[a, b])?;
        set_policy(&fixture.device, &[b, a])?;
    }
    Ok(format!("{} rules", wrong.len()))
}

fn bad_get() -> Result<String> {
    let mut fixture = Fixture::new()?;
    let array = Array::new(&[VALID; 2])?;

    for flags in [1, 1 << 31] {
        let mut policy = GetPolicy::new(&array, 2);

        policy.flags = flags;
        fails("flags", fixture.device.call(&mut policy), Errno::EINVAL)?;
    }
    let mut policy = GetPolicy::new(&array, 2);
    policy.reserved = 1;
    fails("reserved", fixture.device.call(&mut policy), Errno::EINVAL)?;

    for room in [0, 1] {
        let mut policy = GetPolicy::new(&array, room);

        fails(
            "little room",
            fixture.device.call(&mut policy),
            Errno::E2BIG,
        )?;
        ensure!(policy.nr_rules == 2, "{policy:?}");
    }
    ensure!(array.read(2) == [VALID; 2], "rules were written");
    for pointer in [
        UserPtr::null(),
        UserPtr::non_canonical(),
        UserPtr::kernel(),
        Array::<Rule>::new(&[])?.at(),
        Array::new(&[VALID])?.at(),
    ] {
        let mut policy = GetPolicy::new(&array, 2);

        policy.rules = pointer;
        fails(
            "bad address",
            fixture.device.call(&mut policy),
            Errno::EFAULT,
        )?;
    }
    let mut array = Array::new(&[VALID; 2])?;
    array.memory.protect(0..1, Protection::Read)?;
    let mut policy = GetPolicy::new(&array, 2);
    fails("read-only", fixture.device.call(&mut policy), Errno::EFAULT)?;
    fixture.unchanged()?;
    Ok(String::new())
}

fn many() -> Result<String> {
    let (mut guest, device) = attached()?;
    let constant = |i: u32| rule(NOBODY + i, NOBODY + i, READ, 0, uapi::CONSTANT, i.into());
    let sorted: Vec<Rule> = (0..MAX_RULES).map(constant).collect();
    // Each second rule from the end, then the rest.
    let mut shuffled: Vec<Rule> = sorted.iter().rev().step_by(2).copied().collect();
    shuffled.extend(sorted.iter().step_by(2));

    set_policy(&device, &shuffled).context("SET_POLICY")?;
    ensure!(policy(&device)? == sorted, "the rules are not sorted");
    for i in [0, 1, 63, 64, 2047, 2048, 4094, 4095] {
        let outcome = guest.rdmsr(NOBODY + i)?;

        ensure!(
            outcome == Outcome::Value(i.into()),
            "rule {i} gives {outcome}"
        );
    }
    ensure!(
        guest.rdmsr(NOBODY + MAX_RULES)?.is_gp(),
        "no rule is no #GP"
    );
    set_policy(&device, &[]).context("clear")?;
    ensure!(policy(&device)?.is_empty(), "there are rules");
    ensure!(guest.rdmsr(NOBODY)?.is_gp(), "a rule is in force");
    Ok(String::new())
}
