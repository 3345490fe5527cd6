// SPDX-License-Identifier: GPL-2.0

//! Policies: the compiled form, compared with a scan of the rules, and the accesses they decide.

use super::model::Vcpu;
use crate::engine::{
    access::{
        judged::{
            read_judged,
            write_judged, //
        },
        Access,
    },
    exit::{
        exit_reason,
        Denial,
        FILTERED,
        FORBIDDEN,
        INVALID,
        UNSUPPORTED, //
    },
    policy::*,
    registers::{
        lookup,
        Field,
        Vendor, //
    },
};
use kernel::prelude::*;

const ACCESSES: [Access; 2] = [Access::Read, Access::Write];
const WHENS: [When; 2] = [When::Always, When::Unsupported];

/// `IA32_MCG_STATUS`, which is only stored.
const STORED: u32 = 0x17a;
const UNKNOWN: u32 = 0x2;

struct Memory {
    rules: KVVec<Rule>,
    compiled: KVBox<Compiled>,
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

fn compile(raw: &[RawRule]) -> Result<core::result::Result<Policy<Memory>, Refused>> {
    let mut rules = KVVec::with_capacity(raw.len(), GFP_KERNEL)?;

    for raw in raw {
        rules.push(Rule::new(raw).map_err(|_| EINVAL)?, GFP_KERNEL)?;
    }
    // These are too large for the stack, so they are created in the allocations.
    let compiled = KVBox::new_uninit(GFP_KERNEL)?.write(Compiled::ZEROED);
    let mut scratch = KVBox::new_uninit(GFP_KERNEL)?.write(Scratch::ZEROED);

    Ok(Policy::compile(Memory { rules, compiled }, &mut scratch))
}

fn policy(raw: &[RawRule]) -> Policy<Memory> {
    compile(raw).unwrap().unwrap_or_else(|_| panic!("refused"))
}

fn rule(first: u32, last: u32, access: u8, when: When, action: u8) -> RawRule {
    RawRule {
        first,
        last,
        access,
        when: when as u8,
        action,
        reserved: 0,
        value: if action >= ACTION_CONSTANT { 0xff } else { 0 },
    }
}

/// Compares the policy with a scan of the rules, at their edges and at some more indices.
fn same_as_scan(raw: &[RawRule]) -> bool {
    let policy = policy(raw);
    let edges = raw.iter().flat_map(|rule| {
        [
            rule.first.wrapping_sub(1),
            rule.first,
            rule.last,
            rule.last.wrapping_add(1),
        ]
    });

    Iterator::chain(edges, [0, 0xfff, 0x1000, u32::MAX]).all(|index| {
        ACCESSES.into_iter().all(|access| {
            let find = |when: When| {
                let kind = 1 << access as u8;

                raw.iter().find(|rule| {
                    rule.when == when as u8
                        && rule.access & kind != 0
                        && rule.first <= index
                        && index <= rule.last
                        && rule.action != ACTION_ALLOW
                })
            };

            WHENS
                .into_iter()
                .all(|when| policy.action(when, access, index).is_some() == find(when).is_some())
        })
    })
}

#[kunit_tests(kvm_msr_policy)]
mod cases {
    use super::*;

    #[test]
    fn wrong_rules() {
        let good = rule(1, 2, READ | WRITE, When::Always, ACTION_IGNORE);
        let cases = [
            (RawRule { first: 3, ..good }, RuleError::Order),
            (RawRule { access: 0, ..good }, RuleError::Access),
            (RawRule { access: 4, ..good }, RuleError::Access),
            (RawRule { when: 2, ..good }, RuleError::When),
            (RawRule { action: 7, ..good }, RuleError::Action),
            (RawRule { value: 1, ..good }, RuleError::Value),
            (
                RawRule {
                    reserved: 1,
                    ..good
                },
                RuleError::Reserved,
            ),
            (
                RawRule {
                    last: 0x800,
                    ..good
                },
                RuleError::X2apic,
            ),
            (
                RawRule {
                    last: u32::MAX,
                    ..good
                },
                RuleError::X2apic,
            ),
            (
                rule(0x8ff, 0x8ff, READ, When::Unsupported, ACTION_ALLOW),
                RuleError::X2apic,
            ),
            (
                rule(1, 1, READ | WRITE, When::Always, ACTION_MASK),
                RuleError::Action,
            ),
            (
                rule(1, 1, WRITE, When::Unsupported, ACTION_MATCH),
                RuleError::Action,
            ),
        ];

        assert!(Rule::new(&good).is_ok_and(|rule| rule.raw() == good));
        for (raw, error) in cases {
            assert_eq!(Rule::new(&raw).err(), Some(error));
        }
    }

    #[test]
    fn overlaps_name_the_later_rule() {
        let [read, write] = [READ, WRITE].map(|kind| rule(10, 20, kind, When::Always, ACTION_GP));
        let unsupported = rule(10, 20, READ, When::Unsupported, ACTION_GP);
        let last = rule(20, 30, READ, When::Always, ACTION_ALLOW);

        let refused = |raw: &[RawRule]| compile(raw).map(|compiled| compiled.err());

        assert_eq!(refused(&[read, write, unsupported]), Ok(None));
        assert_eq!(
            refused(&[read, write, unsupported, last]),
            Ok(Some(Refused::Overlap(3)))
        );
        assert_eq!(refused(&[last, write, read]), Ok(Some(Refused::Overlap(2))));
        assert_eq!(refused(&[read, read, last]), Ok(Some(Refused::Overlap(1))));
    }

    #[test]
    fn edges_of_the_index_space() {
        for when in WHENS {
            for kinds in [READ, WRITE, READ | WRITE] {
                assert!(same_as_scan(&[
                    rule(0x900, u32::MAX, kinds, when, ACTION_IGNORE),
                    rule(0, 0x7ff, kinds, when, ACTION_GP),
                ]));
            }
        }
        assert!(same_as_scan(&[]));
    }

    #[test]
    fn reads_and_writes_overlap() {
        assert!(same_as_scan(&[
            rule(0xc000_0000, 0xc001_ffff, READ, When::Always, ACTION_GP),
            rule(0xc000_0080, 0xc000_0084, WRITE, When::Always, ACTION_GP),
            rule(0xc000_0102, 0xc000_0102, WRITE, When::Always, ACTION_ALLOW),
            rule(0x2000, 0x2fff, WRITE, When::Always, ACTION_GP),
        ]));
    }

    #[test]
    fn as_many_rules_as_there_may_be() {
        let mut raw = KVVec::new();

        // In descending order, at single indices and in ranges.
        for i in (0..=MAX_RULES as u32).rev() {
            let first = 0xc000_0000 + 5 * i;
            let rule = rule(first, first + i % 4, READ, When::Always, ACTION_GP);

            assert!(raw.push(rule, GFP_KERNEL).is_ok());
        }
        assert_eq!(
            compile(&raw).map(|compiled| compiled.err()),
            Ok(Some(Refused::TooMany))
        );
        assert!(same_as_scan(&raw[1..]));

        let policy = policy(&raw[1..]);
        let firsts = || policy.rules().map(|rule| rule.raw().first);

        assert_eq!(policy.len(), MAX_RULES);
        assert!(firsts().zip(firsts().skip(1)).all(|(one, next)| one < next));
    }

    #[test]
    fn actions() {
        for (when, index, exit) in [
            (When::Always, STORED, FILTERED),
            (When::Always, UNKNOWN, FILTERED),
            (When::Unsupported, UNKNOWN, UNSUPPORTED),
        ] {
            for (action, read, write) in [
                (ACTION_GP, Err(FORBIDDEN), Err(FORBIDDEN)),
                (ACTION_EXIT, Err(exit), Err(exit)),
                (ACTION_IGNORE, Ok(0), Ok(())),
                (ACTION_CONSTANT, Ok(0xff), Ok(())),
            ] {
                let policy = policy(&[rule(index, index, READ | WRITE, when, action)]);
                let register = lookup(index);
                let vcpu = Vcpu {
                    answer: Err(UNSUPPORTED),
                    // An exit is one even then.
                    ignores_unknown: true,
                    ..Vcpu::new(Vendor::Intel)
                };

                vcpu.preset(Field::McgStatus, 7);
                assert_eq!(
                    read_judged(&vcpu, Some(&policy), register, index, |_| ()),
                    read
                );
                assert_eq!(
                    write_judged(&vcpu, Some(&policy), register, index, 1, |_| ()),
                    write
                );
                assert_eq!(vcpu.fields[Field::McgStatus as usize].get(), 7);
            }
        }
    }

    #[test]
    fn unsupported_rules_are_for_unsupported_msrs() {
        for action in [ACTION_GP, ACTION_EXIT, ACTION_IGNORE, ACTION_CONSTANT] {
            let policy = policy(&[rule(0, 0x7ff, READ | WRITE, When::Unsupported, action)]);
            let vcpu = Vcpu::new(Vendor::Amd);

            vcpu.preset(Field::McgStatus, 7);
            assert_eq!(
                read_judged(&vcpu, Some(&policy), lookup(STORED), STORED, |_| ()),
                Ok(7)
            );
            assert_eq!(
                write_judged(&vcpu, Some(&policy), lookup(STORED), STORED, 8, |_| ()),
                Ok(())
            );
            assert_eq!(vcpu.fields[Field::McgStatus as usize].get(), 8);
        }
    }

    #[test]
    fn masks_and_matches() {
        for (action, data, expected) in [
            (ACTION_MASK, 0x4ff, Ok(0x1ff)),
            (ACTION_MASK, 0x100, Ok(0x100)),
            (ACTION_MATCH, 0x1ff, Ok(0x1ff)),
            (ACTION_MATCH, 0x4ff, Err(FORBIDDEN)),
            (ACTION_MATCH, 0x023, Err(FORBIDDEN)),
        ] {
            let policy = policy(&[rule(STORED, STORED, WRITE, When::Always, action)]);
            let vcpu = Vcpu::new(Vendor::Intel);

            vcpu.preset(Field::McgStatus, 0x123);
            assert_eq!(
                write_judged(&vcpu, Some(&policy), lookup(STORED), STORED, data, |_| ())
                    .map(|()| vcpu.fields[Field::McgStatus as usize].get()),
                expected
            );
        }
    }

    #[test]
    fn forbidden_accesses_do_not_exit() {
        for enabled in 0..8 {
            assert_eq!(exit_reason(FORBIDDEN, enabled), None);
        }
        // What callers in C get.
        assert_eq!(
            Denial::new((FORBIDDEN.get() as c_int).into()),
            Some(INVALID)
        );
    }
}
