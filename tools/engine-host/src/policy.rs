// SPDX-License-Identifier: GPL-2.0

//! Policies: compares the compiled policy with a model that checks rule after rule.

use crate::engine::{access::Access, policy::*, registers::Location};
use proptest::{collection::vec, prelude::*, sample::select};

const ACCESSES: [Access; 2] = [Access::Read, Access::Write];
const WHENS: [When; 2] = [When::Always, When::Unsupported];

/// A policy's memory.
pub(crate) struct Memory {
    rules: Vec<Rule>,
    compiled: Box<Compiled>,
}

impl Memory {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules,
            compiled: Box::new(Compiled::ZEROED),
        }
    }
}

impl Storage for Memory {
    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    fn parts(&mut self) -> (&[Rule], &mut Compiled) {
        (&self.rules, &mut self.compiled)
    }

    fn rule(&self, position: usize) -> Option<&Rule> {
        self.rules.get(position)
    }
}

/// What is wrong with a rule, and the number of that rule.
type Wrong = (u32, usize);

/// Compiles rules as the module does: each is checked, then all together.
pub(crate) fn compile(raw: &[RawRule]) -> Result<Policy<Memory>, Wrong> {
    let rules = raw
        .iter()
        .enumerate()
        .map(|(number, raw)| Rule::new(raw).map_err(|error| (error as u32, number)))
        .collect::<Result<_, _>>()?;

    let mut scratch = Box::new(Scratch::ZEROED);

    Policy::compile(Memory::new(rules), &mut scratch).map_err(|refused| match refused {
        Refused::TooMany => (0, 0),
        Refused::Overlap(number) => (RuleError::Overlap as u32, number),
    })
}

/// msr-policy.rst: the conditions for a rule, in order.
fn documented_error(raw: &RawRule) -> u32 {
    let is_write_action = raw.action == 5 || raw.action == 6;
    let has_value = (4..=6).contains(&raw.action);

    if raw.first > raw.last {
        1
    } else if !(1..=3).contains(&raw.access) {
        2
    } else if raw.when > 1 {
        3
    } else if raw.action > 6 || is_write_action && (raw.access != 2 || raw.when != 0) {
        4
    } else if !has_value && raw.value != 0 {
        5
    } else if raw.reserved != 0 {
        6
    } else if (0x800..=0x8ff).any(|index| (raw.first..=raw.last).contains(&index)) {
        7
    } else {
        0
    }
}

/// msr-policy.rst: rules with the same `when` must not share an index and a kind of access.
fn overlap(one: &RawRule, other: &RawRule) -> bool {
    one.when == other.when
        && one.access & other.access != 0
        && one.first.max(other.first) <= one.last.min(other.last)
}

/// The wrong rule, and what is wrong with it.
fn documented_errors(raw: &[RawRule]) -> Result<(), Wrong> {
    for (number, rule) in raw.iter().enumerate() {
        if documented_error(rule) != 0 {
            return Err((documented_error(rule), number));
        }
    }
    for (number, rule) in raw.iter().enumerate() {
        if raw[..number].iter().any(|earlier| overlap(earlier, rule)) {
            return Err((8, number));
        }
    }
    Ok(())
}

/// The rule that covers an access, found by a search of all rules. An action of 0 counts as none.
pub(crate) fn documented_rule(
    raw: &[RawRule],
    when: u8,
    access: Access,
    index: u32,
) -> Option<RawRule> {
    let kind = match access {
        Access::Read => 1,
        Access::Write => 2,
    };

    raw.iter()
        .find(|rule| {
            rule.when == when
                && rule.access & kind != 0
                && (rule.first..=rule.last).contains(&index)
        })
        .filter(|rule| rule.action != 0)
        .copied()
}

/// Compares the policy with the model at the edges of all rules, and at some more indices.
#[track_caller]
fn check(raw: &[RawRule], more: &[u32]) {
    let policy = compile(raw).map_err(|wrong| (wrong, raw)).unwrap();
    let edges = raw.iter().flat_map(|rule| {
        [rule.first, rule.last]
            .into_iter()
            .flat_map(|edge| [0, 1, 63, 64, 0x1000].map(|off| (edge, off)))
            .flat_map(|(edge, off)| [edge.wrapping_add(off), edge.wrapping_sub(off)])
    });
    let pages = [
        0,
        0xfff,
        0x1000,
        0x4000_0000,
        0xc000_0000,
        0xc001_0fff,
        u32::MAX,
    ];

    for index in edges.chain(pages).chain(more.iter().copied()) {
        for access in ACCESSES {
            let rules = WHENS.map(|when| documented_rule(raw, when as u8, access, index));

            for (when, expected) in WHENS.into_iter().zip(rules) {
                let action = policy.action(when, access, index);

                assert_eq!(
                    action.map(number_of),
                    expected.map(|rule| (rule.action, rule.value)),
                    "{when:?} {access:?} {index:#x} of {raw:x?}"
                );
            }
        }
    }
    check_list(&policy, raw);
}

/// The list has all rules, sorted.
fn check_list(policy: &Policy<Memory>, raw: &[RawRule]) {
    let listed: Vec<_> = policy.rules().map(Rule::raw).collect();
    let mut expected = raw.to_vec();

    expected.sort_by_key(|rule| (rule.when, rule.first));
    assert_eq!(listed, expected);
    assert_eq!(policy.len(), raw.len());
}

fn number_of(action: Action) -> (u8, u64) {
    match action {
        Action::Allow => (0, 0),
        Action::GeneralProtection => (1, 0),
        Action::Exit => (2, 0),
        Action::Ignore => (3, 0),
        Action::Constant(value) => (4, value),
        Action::Mask(value) => (5, value),
        Action::Match(value) => (6, value),
    }
}

pub(crate) fn rule(first: u32, last: u32, access: u8, when: u8, action: u8) -> RawRule {
    RawRule {
        first,
        last,
        access,
        when,
        action,
        reserved: 0,
        value: if action > 3 { 0x1234_5678_9abc_def0 } else { 0 },
    }
}

/// Indices close to each other, in pages with MSRs, at the ends of the index space, or anywhere.
pub(crate) fn indices() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0u32..0x400,
        2 => 0x7c0u32..0x940,
        2 => 0xc000_0000u32..0xc000_0200,
        1 => 0xffcu32..0x1004,
        1 => (u32::MAX - 0x100)..=u32::MAX,
        1 => any::<u32>(),
    ]
}

prop_compose! {
    /// Valid rules that may overlap.
    pub(crate) fn valid_rules()(
        first in indices(),
        length in prop_oneof![4 => Just(0), 6 => 0u32..100, 1 => 0u32..0x3000, 1 => any::<u32>()],
        access in 1u8..4,
        when in 0u8..2,
        action in 0u8..7,
        value: u64,
    ) -> RawRule {
        let last = first.saturating_add(length);
        // The x2APIC's MSRs can't be in a rule.
        let (first, last) = match (first, last) {
            (..0x800, 0x800..) => (first, 0x7ff),
            (0x800..0x900, ..0x900) => (0x700, 0x7ff),
            (0x800..0x900, _) => (0x900, last),
            other => other,
        };
        let (access, when) = if action > 4 { (2, 0) } else { (access, when) };

        RawRule { first, last, access, when, action, reserved: 0, value: if action > 3 { value } else { 0 } }
    }
}

/// Removes rules that overlap earlier ones.
pub(crate) fn without_overlaps(rules: Vec<RawRule>) -> Vec<RawRule> {
    let mut kept: Vec<RawRule> = Vec::new();

    for rule in rules {
        if !kept.iter().any(|earlier| overlap(earlier, &rule)) {
            kept.push(rule);
        }
    }
    kept
}

pub(crate) fn policies() -> impl Strategy<Value = Vec<RawRule>> {
    vec(valid_rules(), 0..60).prop_map(without_overlaps)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn finds_the_rules_of_the_model(raw in policies(), more in vec(indices(), 32)) {
        check(&raw, &more);
    }

    #[test]
    fn refuses_rules_as_documented(
        first in indices(),
        last in indices(),
        access in prop_oneof![4 => 0u8..5, 1 => any::<u8>()],
        when in prop_oneof![4 => 0u8..3, 1 => any::<u8>()],
        action in prop_oneof![4 => 0u8..8, 1 => any::<u8>()],
        reserved in prop_oneof![4 => Just(0), 1 => any::<u32>()],
        value in prop_oneof![Just(0), Just(1), any::<u64>()],
    ) {
        let raw = RawRule { first, last, access, when, action, reserved, value };

        prop_assert_eq!(
            Rule::new(&raw).map(|rule| rule.raw()).map_err(|error| error as u32),
            match documented_error(&raw) {
                0 => Ok(raw),
                error => Err(error),
            },
        );
    }

    #[test]
    fn names_the_first_wrong_rule(
        mut raw in prop_oneof![
            vec(valid_rules(), 0..6),
            policies().prop_flat_map(|raw| (0..raw.len().max(1), Just(raw))).prop_map(|(from, mut raw)| {
                // One rule twice.
                if let Some(&rule) = raw.get(from) {
                    raw.insert(raw.len() - from, rule);
                }
                raw
            }),
        ],
        broken in prop::option::weighted(0.2, (any::<prop::sample::Index>(), select(vec![0u8, 4]))),
    ) {
        if let Some((position, access)) = broken {
            if !raw.is_empty() {
                position.get_mut(&mut raw).access = access;
            }
        }
        prop_assert_eq!(compile(&raw).map(|_| ()), documented_errors(&raw));
    }
}

#[test]
fn no_rules() {
    check(&[], &[]);
}

#[test]
fn the_whole_index_space() {
    for when in [0, 1] {
        for access in [1, 2, 3] {
            let all = [
                rule(0x900, u32::MAX, access, when, 3),
                rule(0, 0x7ff, access, when, 1),
            ];

            check(&all, &(0x7f0..0x910).collect::<Vec<_>>());
        }
    }
    assert_eq!(compile(&[rule(0, u32::MAX, 3, 0, 0)]).err(), Some((7, 0)));
    check(
        &[rule(0, 0, 3, 0, 1), rule(u32::MAX, u32::MAX, 3, 0, 2)],
        &[],
    );
}

#[test]
fn reads_and_writes_have_rules_of_their_own() {
    // A long rule for reads, and many short ones for writes in it.
    let mut raw = vec![rule(0x1000, 0xffff, 1, 0, 4)];

    raw.extend((0..100).map(|i| rule(0x2000 + 4 * i, 0x2001 + 4 * i, 2, 0, 6)));
    check(&raw, &(0x2000..0x2200).collect::<Vec<_>>());
    raw.reverse();
    check(&raw, &(0x2000..0x2200).collect::<Vec<_>>());
}

#[test]
fn as_many_rules_as_there_may_be() {
    for step in [1, 2, 64, 0x1000, 0xf_0000] {
        let mut raw: Vec<_> = (0..MAX_RULES as u32)
            .map(|i| {
                rule(
                    0x1000 + step * i,
                    0x1000 + step * i + step / 2,
                    1 + i as u8 % 3,
                    0,
                    3,
                )
            })
            .filter(|rule| documented_error(rule) == 0)
            .collect();

        raw.sort_by_key(|rule| rule.first.wrapping_mul(0x9e37_79b9));
        let policy = compile(&raw).unwrap();

        check_list(&policy, &raw);
        for rule in &raw {
            let found = ACCESSES.map(|access| policy.action(When::Always, access, rule.first));
            let has = [1, 2].map(|kind| (rule.access & kind != 0).then_some(Action::Ignore));

            assert_eq!(found, has);
        }
    }
}

#[test]
fn more_rules_than_there_may_be_are_refused() {
    let raw: Vec<_> = (0..=MAX_RULES as u32)
        .map(|i| rule(0x1000 + i, 0x1000 + i, 3, 0, 1))
        .collect();

    assert_eq!(compile(&raw).err(), Some((0, 0)));
    assert!(compile(&raw[1..]).is_ok());
}

#[test]
fn pages_are_sorted_and_complete() {
    let pages = Location::PAGES;

    assert!(pages.windows(2).all(|pair| pair[0].1 < pair[1].0));
    for page in 0..=u32::MAX >> 12 {
        let first = page << 12;
        let listed = pages.contains(&(first, first | 0xfff));

        assert_eq!(Location::of(first).is_of(first), listed, "{first:#x}");
    }
}
