// SPDX-License-Identifier: GPL-2.0

//! Guest accesses under a policy: compared with a model of msr-policy.rst.

use crate::engine::{
    access::{self, judged::*, Access, Initiator},
    exit::{exit_reason, Denial, FILTERED, FORBIDDEN, INVALID, UNSUPPORTED},
    policy::{RawRule, When},
    registers::{lookup, Field, Vendor},
};
use crate::model::*;
use crate::policy::{compile, documented_rule, indices, policies, rule, valid_rules};
use proptest::{collection::vec, prelude::*, sample::select};

type Result<T = ()> = access::Result<T>;

/// The order of msr-policy.rst.
struct Model<'a> {
    vcpu: &'a Vcpu,
    rules: &'a [RawRule],
    index: u32,
}

impl Model<'_> {
    fn rule(&self, when: u8, access: Access) -> Option<(u8, u64)> {
        documented_rule(self.rules, when, access, self.index).map(|rule| (rule.action, rule.value))
    }

    /// KVM's own answer to a read. It has the effects of the read.
    fn kvm_read(&self) -> Result<u64> {
        access::read_existing(self.vcpu, self.index, Initiator::Guest)
    }

    fn kvm_write(&self, data: u64) -> Result {
        access::write_existing(self.vcpu, self.index, data, Initiator::Guest)
    }

    /// ignore_msrs, as in C.
    fn ignore_msrs<T>(&self, access: Access, data: u64, ignored: T) -> Result<T> {
        use crate::engine::cpu::{Leniency, Report};

        if self.vcpu.ignores_unknown {
            self.vcpu.report(Report::Ignored(access), self.index, data);
            Ok(ignored)
        } else {
            self.vcpu
                .report(Report::Unhandled(access), self.index, data);
            Err(UNSUPPORTED)
        }
    }

    fn read(&self) -> Result<u64> {
        match self.rule(0, Access::Read) {
            Some((1, _)) => return Err(FORBIDDEN),
            Some((2, _)) => return Err(FILTERED),
            Some((3, _)) => return Ok(0),
            Some((4, value)) => return Ok(value),
            Some(_) => unreachable!(),
            None => (),
        }
        let answer = self.kvm_read();

        if answer != Err(UNSUPPORTED) {
            return answer;
        }
        match self.rule(1, Access::Read) {
            Some((1, _)) => Err(FORBIDDEN),
            Some((2, _)) => Err(UNSUPPORTED),
            Some((3, _)) => Ok(0),
            Some((4, value)) => Ok(value),
            Some(_) => unreachable!(),
            None => self.ignore_msrs(Access::Read, 0, 0),
        }
    }

    fn write(&self, data: u64) -> Result {
        let answer = match self.rule(0, Access::Write) {
            Some((1, _)) => return Err(FORBIDDEN),
            Some((2, _)) => return Err(FILTERED),
            Some((3 | 4, _)) => return Ok(()),
            Some((5, mask)) => match self.kvm_read() {
                Err(denial) => Err(denial),
                Ok(old) => {
                    let bits = (0..64).map(|bit| 1 << bit);
                    let new = bits
                        .map(|bit| {
                            if mask & bit != 0 {
                                data & bit
                            } else {
                                old & bit
                            }
                        })
                        .sum();

                    self.kvm_write(new)
                }
            },
            Some((6, mask)) => match self.kvm_read() {
                Err(denial) => Err(denial),
                Ok(old) if (0..64).any(|bit| (old ^ data) >> bit & 1 > mask >> bit & 1) => {
                    return Err(FORBIDDEN);
                }
                Ok(_) => self.kvm_write(data),
            },
            Some(_) => unreachable!(),
            None => self.kvm_write(data),
        };

        if answer != Err(UNSUPPORTED) {
            return answer;
        }
        match self.rule(1, Access::Write) {
            Some((1, _)) => Err(FORBIDDEN),
            Some((2, _)) => Err(UNSUPPORTED),
            Some((3 | 4, _)) => Ok(()),
            Some(_) => unreachable!(),
            None => self.ignore_msrs(Access::Write, data, ()),
        }
    }
}

/// Whether no rule covers an access.
fn is_plain(rules: &[RawRule], access: Access, index: u32) -> bool {
    [When::Always, When::Unsupported]
        .into_iter()
        .all(|when| documented_rule(rules, when as u8, access, index).is_none())
}

/// Makes the accesses with the engine and with the model. Results and effects have to be equal.
#[track_caller]
fn compare(vcpu: &Vcpu, rules: &[RawRule], index: u32, data: u64) {
    let policy = compile(rules).unwrap();
    let register = lookup(index);
    let what = || format!("{index:#x} {data:#x} {rules:x?} {vcpu:x?}");
    let fresh = [(); 4].map(|()| vcpu.clone());
    let [engine, model, plain, other] = &fresh;

    let read = read_judged(engine, Some(&policy), register, index, |_| ());
    let expected = Model {
        vcpu: model,
        rules,
        index,
    }
    .read();
    assert_eq!(read, expected, "read {}", what());
    assert_eq!(engine.effects(), model.effects(), "read {}", what());
    if is_plain(rules, Access::Read, index) {
        let same = access::read_register(plain, register, index, Initiator::Guest);

        assert_eq!(read, same, "read {}", what());
    }

    let write = write_judged(other, Some(&policy), register, index, data, |_| ());
    let model = vcpu.clone();
    let expected = Model {
        vcpu: &model,
        rules,
        index,
    }
    .write(data);
    let effects = other.effects();
    assert_eq!(write, expected, "write {}", what());
    assert_eq!(effects, model.effects(), "write {}", what());
    if is_plain(rules, Access::Write, index) {
        let plain = vcpu.clone();
        let same = access::write_register(&plain, register, index, data, Initiator::Guest);

        assert_eq!(write, same, "write {}", what());
        assert_eq!(effects, plain.effects(), "write {}", what());
    }
}

/// MSRs of each kind: unknown, stored, served by a vendor module, the PMU or Hyper-V, constant,
/// with checks, write-only.
const INDICES: &[u32] = &[
    0x2,
    0x10,
    0x1b,
    0x3a,
    0x3b,
    0x48,
    0x49,
    0x8b,
    0xce,
    0xc1,
    0x186,
    0x174,
    0x1a0,
    0x1d9,
    0x200,
    0x277,
    0x2ff,
    0x345,
    0x38f,
    0x400,
    0x401,
    0x6a0,
    0x6a4,
    0x6e0,
    0xda0,
    0xe1,
    0x2000,
    0x4000_0000,
    0x4000_0001,
    0x4b56_4d00,
    0x4b56_4d02,
    0x4b56_4d04,
    0x8000_0000,
    0xc000_0080,
    0xc000_0081,
    0xc000_0082,
    0xc000_0102,
    0xc000_0103,
    0xc000_0104,
    0xc001_0015,
    0xc001_0114,
    0xc001_1029,
    u32::MAX,
];

fn vcpus() -> impl Strategy<Value = Vcpu> {
    (
        any::<[bool; 6]>(),
        any::<u32>(),
        select(vec![
            Ok(ANSWER),
            Err(UNSUPPORTED),
            Err(INVALID),
            Err(Denial::new(-22).unwrap()),
        ]),
        vec(prop_oneof![Just(0), any::<u64>()], Field::ALL.len()),
    )
        .prop_map(|(flags, features, answer, fields)| {
            let [amd, nested, protected, ignores, has_pmu, listed] = flags;
            let mut vcpu = Vcpu::new(if amd { Vendor::Amd } else { Vendor::Intel });

            for (&field, value) in Field::ALL.iter().zip(fields) {
                vcpu.preset(field, value);
            }
            vcpu.features.0 = features;
            vcpu.answer = answer;
            vcpu.is_nested = nested;
            vcpu.is_protected = protected && nested;
            vcpu.ignores_unknown = ignores;
            vcpu.has_pmu = has_pmu;
            vcpu.is_listed = listed;
            vcpu
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_policies(
        vcpu in vcpus(),
        mut rules in policies(),
        more in vec((valid_rules(), select(INDICES)), 0..6),
        indices in vec(prop_oneof![select(INDICES), indices()], 16),
        data in prop_oneof![Just(0u64), any::<u64>(), (0u32..64).prop_map(|bit| 1 << bit)],
    ) {
        // Rules for one MSR each, before those for ranges.
        let more = more.into_iter().map(|(rule, index)| RawRule { first: index, last: index, ..rule });

        rules.splice(0..0, more);
        let rules = crate::policy::without_overlaps(rules);

        for index in indices.into_iter().chain(rules.iter().map(|rule| rule.first)) {
            compare(&vcpu, &rules, index, data);
        }
    }
}

/// Every action, access and `when`, for every kind of MSR.
#[test]
fn every_action() {
    for action in 0..7 {
        for access in [1, 2, 3] {
            for when in [0, 1] {
                let rules = |index| [rule(index, index, access, when, action)];

                if compile(&rules(1)).is_err() {
                    assert!(action > 4 && (access, when) != (2, 0));
                    continue;
                }
                for answer in [Ok(ANSWER), Err(UNSUPPORTED), Err(INVALID)] {
                    for ignores_unknown in [false, true] {
                        for vendor in [Vendor::Amd, Vendor::Intel] {
                            for &index in INDICES {
                                let vcpu = Vcpu {
                                    answer,
                                    ignores_unknown,
                                    ..Vcpu::new(vendor)
                                };

                                for data in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
                                    compare(&vcpu, &rules(index), index, data);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// An unmodifiable bit of a masked write keeps its value; the same write under a match is #GP.
#[test]
fn masks_and_matches() {
    // IA32_MCG_STATUS, which is only stored.
    let index = 0x17a;
    let stored = 0x123;
    let vcpu = Vcpu::new(Vendor::Intel);

    for (action, data, expected) in [
        (5, 0x4ff, Ok(0x1ff)),
        (5, 0x100, Ok(0x100)),
        (6, 0x1ff, Ok(0x1ff)),
        (6, 0x4ff, Err(FORBIDDEN)),
        (6, 0x023, Err(FORBIDDEN)),
    ] {
        let raw = RawRule {
            value: 0xff,
            ..rule(index, index, 2, 0, action)
        };
        let policy = compile(&[raw]).unwrap();

        vcpu.preset(Field::McgStatus, stored);
        let written = write_judged(&vcpu, Some(&policy), lookup(index), index, data, |_| ());

        assert_eq!(
            written.map(|()| vcpu.fields[Field::McgStatus as usize].get()),
            expected
        );
    }
}

/// #GP by a rule never exits to user space, and is positive for callers in C.
#[test]
fn denials() {
    for mask in 0..8 {
        assert_eq!(exit_reason(FORBIDDEN, mask), None);
        assert_eq!(exit_reason(INVALID, mask), (mask & 1 != 0).then_some(1));
    }
    assert_eq!(FORBIDDEN.get() as i32, INVALID.get() as i32);
}
