// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Combines the bits of several hosts for a profile.

/// The meaning of some bits of a register, which decides how to combine them. Each variant has its
/// bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// A feature of the host: the profile has those of all hosts.
    And(u64),
    /// A weakness or requirement of the host: the profile has those of any host.
    Or(u64),
    /// A number; hosts accept smaller ones: the minimum.
    Least(u64),
    /// A number; hosts accept larger ones: the maximum.
    Most(u64),
    /// Only one value is accepted. If the hosts differ, there is none.
    Same(u64),
    /// Only one value or 0 is accepted.
    SameOrZero(u64),
    /// Like [`Rule::SameOrZero`], but values other than 0 need a CPUID with the host's model.
    SameModelOrZero(u64),
    /// Describes the host; KVM accepts any value: one host's.
    Hosts(u64),
}

impl Rule {
    /// The bits of the rule.
    pub fn mask(self) -> u64 {
        match self {
            Rule::And(mask)
            | Rule::Or(mask)
            | Rule::Least(mask)
            | Rule::Most(mask)
            | Rule::Same(mask)
            | Rule::SameOrZero(mask)
            | Rule::SameModelOrZero(mask)
            | Rule::Hosts(mask) => mask,
        }
    }
}

/// A value of which only some bits are given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bits {
    /// The bits; 0 if not given.
    pub value: u64,
    /// The mask of given bits.
    pub given: u64,
}

/// Something that the profile leaves out or changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The bits.
    pub bits: u64,
    /// The rule.
    pub rule: Rule,
    /// Their value in the profile, shifted down.
    pub value: u64,
    /// The hosts that cause it, by position.
    pub hosts: Vec<usize>,
}

/// The combination of hosts' bits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Combined {
    /// The bits; none if a [`Rule::Same`] has no value.
    pub bits: Option<Bits>,
    /// The differences to the hosts.
    pub changes: Vec<Change>,
}

/// What the hosts have in common.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    /// The host for [`Rule::Hosts`].
    pub base: usize,
    /// Whether all have the same family and model.
    pub one_model: bool,
}

/// Combines the bits of hosts. If two rules have a bit, the first one applies; bits without a rule
/// are [`Rule::And`].
pub fn combine(rules: &[Rule], hosts: &[Bits], common: Common) -> Combined {
    let mut result = Bits { value: 0, given: 0 };
    let mut changes = Vec::new();
    let mut impossible = false;
    let mut left = u64::MAX;

    for rule in rules.iter().copied().chain([Rule::And(u64::MAX)]) {
        let mask = rule.mask() & left;

        left &= !mask;
        let (part, change) = apply(rule, mask, hosts, common);

        match part {
            Some(part) => {
                result.value |= part.value;
                result.given |= part.given;
            }
            None => impossible = true,
        }
        changes.extend(change);
    }
    Combined {
        bits: (!impossible).then_some(result),
        changes,
    }
}

fn apply(rule: Rule, mask: u64, hosts: &[Bits], common: Common) -> (Option<Bits>, Vec<Change>) {
    let ones = |host: &Bits| host.value & host.given & mask;
    let zeros = |host: &Bits| !host.value & host.given & mask;
    let all_ones = hosts.iter().map(ones).fold(mask, |all, host| all & host);
    let any_ones = hosts.iter().map(ones).fold(0, |any, host| any | host);
    let all_zeros = hosts.iter().map(zeros).fold(mask, |all, host| all & host);
    let any_zeros = hosts.iter().map(zeros).fold(0, |any, host| any | host);
    let change = |bits: u64, value: u64, at_fault: &dyn Fn(&Bits) -> bool| Change {
        bits,
        rule,
        value: value.checked_shr(bits.trailing_zeros()).unwrap_or(0),
        hosts: (0..)
            .zip(hosts)
            .filter(|(_, host)| at_fault(host))
            .map(|(place, _)| place)
            .collect(),
    };
    // Bits that differ, grouped by the hosts that differ from the rest.
    let by_hosts = |bits: u64, at_fault: &dyn Fn(&Bits, u64) -> bool| {
        let mut changes: Vec<Change> = Vec::new();

        for bit in (0..u64::BITS)
            .map(|bit| 1 << bit)
            .filter(|bit| bits & bit != 0)
        {
            let new = change(bit, 0, &|host| at_fault(host, bit));

            match changes.iter_mut().find(|old| old.hosts == new.hosts) {
                Some(old) => old.bits |= bit,
                None => changes.push(new),
            }
        }
        changes
    };
    // A number that not all files give is left out.
    let whole = hosts.iter().all(|host| host.given & mask == mask);
    let number = |chosen: Option<u64>, at_fault: &dyn Fn(u64, u64) -> bool| match chosen {
        _ if !whole => (Some(Bits { value: 0, given: 0 }), Vec::new()),
        Some(value) => {
            let differ = hosts.iter().any(|host| ones(host) != value);
            let at_fault = |host: &Bits| at_fault(ones(host), value);
            let changes = differ.then(|| change(mask, value, &at_fault));

            (Some(Bits { value, given: mask }), Vec::from_iter(changes))
        }
        None => (
            Some(Bits {
                value: 0,
                given: mask,
            }),
            Vec::new(),
        ),
    };
    let first = hosts.first().map(ones);
    let same = hosts.iter().all(|host| Some(ones(host)) == first);

    if mask == 0 {
        return (Some(Bits { value: 0, given: 0 }), Vec::new());
    }
    match rule {
        Rule::And(_) => {
            let given = all_ones | any_zeros;
            let lost = by_hosts(any_ones & any_zeros, &|host, bit| zeros(host) & bit != 0);

            (
                Some(Bits {
                    value: all_ones,
                    given,
                }),
                lost,
            )
        }
        Rule::Or(_) => {
            let given = all_zeros | any_ones;
            let gained = by_hosts(any_ones & any_zeros, &|host, bit| ones(host) & bit != 0);

            (
                Some(Bits {
                    value: any_ones,
                    given,
                }),
                gained,
            )
        }
        Rule::Least(_) => number(hosts.iter().map(ones).min(), &|host, least| host == least),
        Rule::Most(_) => number(hosts.iter().map(ones).max(), &|host, most| host == most),
        Rule::Hosts(_) => number(hosts.get(common.base).map(ones), &|host, base| host == base),
        Rule::SameModelOrZero(_) if !common.one_model => number(Some(0), &|host, _| host != 0),
        Rule::SameOrZero(_) | Rule::SameModelOrZero(_) => {
            let value = if same { first } else { Some(0) };

            number(value, &|_, _| true)
        }
        Rule::Same(_) => {
            let given = hosts.iter().fold(mask, |all, host| all & host.given);
            let conflict = any_ones & any_zeros;

            if conflict != 0 {
                return (None, vec![change(conflict, 0, &|_| true)]);
            }
            (
                Some(Bits {
                    value: any_ones & given,
                    given,
                }),
                Vec::new(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_MODEL: Common = Common {
        base: 0,
        one_model: true,
    };

    fn all(value: u64) -> Bits {
        Bits {
            value,
            given: u64::MAX,
        }
    }

    fn value(rules: &[Rule], hosts: &[u64]) -> Option<u64> {
        let hosts: Vec<Bits> = hosts.iter().copied().map(all).collect();

        combine(rules, &hosts, ONE_MODEL)
            .bits
            .map(|bits| bits.value)
    }

    #[test]
    fn each_rule() {
        assert_eq!(value(&[], &[0b110, 0b011]), Some(0b010));
        assert_eq!(value(&[Rule::Or(!0)], &[0b110, 0b011]), Some(0b111));
        assert_eq!(value(&[Rule::Least(0xf0)], &[0x5f, 0x3a]), Some(0x3a));
        assert_eq!(value(&[Rule::Most(0xf0)], &[0x5f, 0x3a]), Some(0x5a));
        assert_eq!(value(&[Rule::Same(0xf0)], &[0x5f, 0x5a]), Some(0x5a));
        assert_eq!(value(&[Rule::Same(0xf0)], &[0x5f, 0x3a]), None);
        assert_eq!(value(&[Rule::SameOrZero(0xf0)], &[0x5f, 0x3a]), Some(0x0a));
        assert_eq!(value(&[Rule::SameOrZero(0xf0)], &[0x5f, 0x5a]), Some(0x5a));
        assert_eq!(value(&[Rule::Hosts(0xf0)], &[0x5f, 0x3a]), Some(0x5a));
    }

    #[test]
    fn the_model_counts_where_it_must() {
        let common = Common {
            base: 0,
            one_model: false,
        };
        let combined = combine(&[Rule::SameModelOrZero(0x3f)], &[all(0x45); 2], common);

        assert_eq!(combined.bits, Some(all(0x40)));
        assert_eq!(combined.changes[0].bits, 0x3f);
    }

    #[test]
    fn hosts_that_lack_a_bit_are_named() {
        let combined = combine(&[], &[all(0b111), all(0b100), all(0b101)], ONE_MODEL);

        assert_eq!(
            combined.changes,
            [
                Change {
                    bits: 0b001,
                    rule: Rule::And(u64::MAX),
                    value: 0,
                    hosts: vec![1]
                },
                Change {
                    bits: 0b010,
                    rule: Rule::And(u64::MAX),
                    value: 0,
                    hosts: vec![1, 2]
                },
            ]
        );
    }

    #[test]
    fn bits_that_are_not_given() {
        let partial = Bits {
            value: 0b01,
            given: 0b11,
        };
        let combined = combine(&[], &[all(0b111), partial], ONE_MODEL);

        // Both have bit 0, one lacks bit 1, and one does not give bit 2. Bits that the first lacks
        // are 0 in any case.
        assert_eq!(
            combined.bits,
            Some(Bits {
                value: 0b001,
                given: !0b100
            })
        );
    }
}
