// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The module's conditions for rules, checked before it is asked.

use super::MAX_RULES;
use super::Policy;
use super::Rule;
use super::When;
use crate::error::Error;
use crate::error::Result;
use crate::filter::Access;
use crate::filter::Run;
use crate::filter::X2APIC;

/// Why the module refuses a rule (`KMSR_RULE_*`).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// The last index is below the first.
    #[error("the MSRs end before they start: write the lower index first")]
    Order,
    /// There is no kind of access, or an unknown one.
    #[error("it is neither for reads nor for writes")]
    Access,
    /// The time is unknown.
    #[error("the module does not know when it applies")]
    When,
    /// The action is unknown, or not possible for the kind of access or the time.
    #[error(
        "the action is not possible here: mask and match are only for writes, and not for MSRs \
         that KVM lacks"
    )]
    Action,
    /// The action has no value.
    #[error("the action has no value")]
    Value,
    /// A member that this kvmsr does not set is not 0.
    #[error("it has members that the module does not know")]
    Reserved,
    /// It is for an x2APIC MSR.
    #[error("a policy can't be for x2APIC MSRs: add 'except {X2APIC}'")]
    X2apic,
    /// It overlaps an earlier rule.
    #[error("it overlaps an earlier rule")]
    Overlap,
}

impl Mistake {
    /// The meaning of `KMSR_RULE_*`.
    pub(crate) fn of_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Mistake::Order,
            2 => Mistake::Access,
            3 => Mistake::When,
            4 => Mistake::Action,
            5 => Mistake::Value,
            6 => Mistake::Reserved,
            7 => Mistake::X2apic,
            8 => Mistake::Overlap,
            _ => return None,
        })
    }
}

impl Rule {
    /// A mistake that does not depend on other rules.
    pub fn mistake(&self) -> Option<Mistake> {
        if self.msrs.first > self.msrs.last {
            Some(Mistake::Order)
        } else if self.access.accesses().next().is_none() {
            Some(Mistake::Access)
        } else if self.action.needs_value_before()
            && (self.access.has(Access::Read) || self.when == When::Unsupported)
        {
            Some(Mistake::Action)
        } else if self.msrs.cut(X2APIC).is_some() {
            Some(Mistake::X2apic)
        } else {
            None
        }
    }
}

/// The numbers of two rules that overlap: the first one in the list that overlaps an earlier rule,
/// as the module reports it, and before it the earlier rule.
fn overlap(rules: &[Rule]) -> Option<(usize, usize)> {
    if !any_overlap(rules) {
        return None;
    }
    let overlap = |one: &Rule, other: &Rule| {
        one.when == other.when
            && one.access.0 & other.access.0 != 0
            && one.msrs.cut(other.msrs).is_some()
    };

    rules.iter().enumerate().find_map(|(number, rule)| {
        let before = rules.get(..number)?;
        let earlier = before.iter().position(|before| overlap(before, rule))?;

        Some((earlier, number))
    })
}

/// Whether any rules overlap. Unlike a comparison of all pairs, this takes little time.
fn any_overlap(rules: &[Rule]) -> bool {
    for when in [When::Always, When::Unsupported] {
        for access in Access::ALL {
            let mut sorted: Vec<Run> = rules
                .iter()
                .filter(|rule| rule.when == when && rule.access.has(access))
                .map(|rule| rule.msrs)
                .collect();

            sorted.sort_unstable();
            // If any rules overlap, some neighbours do.
            let overlaps = |pair: &[Run]| matches!(pair, &[one, other] if one.cut(other).is_some());

            if sorted.windows(2).any(overlaps) {
                return true;
            }
        }
    }
    false
}

impl Policy {
    /// Checks whether the module will accept the policy.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with the place of the wrong rule.
    pub fn check(&self) -> Result<()> {
        let rules = self.rules();

        if rules.len() > MAX_RULES {
            return Err(Error::Input(format!(
                "these are {} rules, as each gap in the MSRs of a line makes another; the limit is \
                 {MAX_RULES}",
                rules.len()
            )));
        }
        for (number, rule) in rules.iter().enumerate() {
            if let Some(mistake) = rule.mistake() {
                return Err(self.at(number, &mistake.to_string()));
            }
        }
        let Some((one, other)) = overlap(&rules) else {
            return Ok(());
        };
        let common = rules[one].msrs.cut(rules[other].msrs);
        let common = common.map(|run| run.to_string()).unwrap_or_default();
        let before = self
            .place(one)
            .map(|place| place.to_string())
            .unwrap_or_default();

        Err(self.at(
            other,
            &format!(
                "{before} is also for {common}; neither wins by its place, so remove the MSRs from \
                 one of them ('except {common}')"
            ),
        ))
    }

    /// The error for a rule, by its number in [`Policy::rules`].
    pub fn at(&self, number: usize, what: &str) -> Error {
        match self.place(number) {
            Some(place) => Error::Input(format!("{place}: {what}")),
            None => Error::Input(what.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::Flags;
    use crate::policy::Action;

    fn error(text: &str) -> String {
        Policy::from_text(text)
            .and_then(|policy| policy.check())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn mistakes_name_the_line() {
        for (text, what) in [
            ("gp 0x10\n\nmask=1 read 0x20", "line 3: the action is not"),
            (
                "match=1 when unsupported 0x20",
                "line 1: the action is not possible",
            ),
            (
                "# all\nignore 0x700-0x800",
                "line 2: a policy can't be for x2APIC",
            ),
            (
                "gp 0x10-0x1f\nignore read 0x8-0x10",
                "line 2: line 1 is also for 0x10;",
            ),
            (
                "gp 0x40 0x10\nexit 0x50\nignore 0x10",
                "line 3: line 1 is also for 0x10;",
            ),
        ] {
            let error = error(text);

            assert!(error.starts_with(what), "{text:?}: {error}");
        }
    }

    #[test]
    fn other_times_and_accesses_do_not_overlap() {
        let policy = "gp read 0x10\nignore write 0x10\nconstant=1 when unsupported 0x10\n";

        Policy::from_text(policy).unwrap().check().unwrap();
        Policy::from_text("ignore when unsupported 0-0xffffffff except 0x800-0x8ff")
            .unwrap()
            .check()
            .unwrap();
    }

    #[test]
    fn there_is_a_limit() {
        let many = |count: u32| Policy {
            entries: Policy::from_rules(
                &(0..count)
                    .map(|number| Rule {
                        msrs: Run::one(0x1000 + 2 * number),
                        access: Flags::BOTH,
                        when: When::Always,
                        action: Action::Gp,
                    })
                    .collect::<Vec<_>>(),
            )
            .entries,
        };

        many(4096).check().unwrap();
        let error = many(4097).check().unwrap_err().to_string();

        assert!(error.starts_with("these are 4097 rules"), "{error}");
    }

    proptest! {
        #[test]
        fn overlaps_are_as_of_all_pairs(
            rules in prop::collection::vec((0u32..40, 0u32..6, 1u32..4, any::<bool>()), 0..12)
        ) {
            let rules: Vec<Rule> = rules
                .into_iter()
                .map(|(first, more, access, always)| Rule {
                    msrs: Run { first, last: first + more },
                    access: Flags(access),
                    when: if always { When::Always } else { When::Unsupported },
                    action: Action::Gp,
                })
                .collect();
            let overlaps = |one: &Rule, other: &Rule| {
                one.when == other.when
                    && one.access.0 & other.access.0 != 0
                    && one.msrs.cut(other.msrs).is_some()
            };
            let first = (0..rules.len())
                .find(|&number| rules[..number].iter().any(|one| overlaps(one, &rules[number])));
            let found = overlap(&rules);

            prop_assert_eq!(found.map(|(_, other)| other), first);
            if let Some((one, other)) = found {
                prop_assert!(one < other && overlaps(&rules[one], &rules[other]));
            }
        }
    }
}
