// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Rules: what to allow or deny.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::error::Error;
use crate::error::Result;
use crate::filter::Access;
use crate::filter::Flags;
use crate::filter::Policy;
use crate::filter::Run;
use crate::filter::Runs;
use crate::filter::UNREACHABLE;
use crate::filter::Verdict;
use crate::filter::X2APIC;

/// A default, and rules for other decisions. The order of the rules does not matter: rules that
/// contradict each other are an error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The decision for accesses without a rule.
    pub default: Verdict,
    /// The rules.
    pub rules: Vec<Rule>,
    /// What people should know before they use the rules.
    pub notes: Vec<String>,
}

/// A rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Its place.
    pub place: Place,
    /// The decision.
    pub verdict: Verdict,
    /// The accesses.
    pub flags: Flags,
    /// The MSRs.
    pub msrs: Runs,
}

/// The place of a rule.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In a line of text, counted from 1.
    Line(usize),
    /// In a list of JSON, counted from 1.
    Rule(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(number) => write!(f, "line {number}"),
            Place::Rule(number) => write!(f, "rule {number}"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verdict, self.flags, self.msrs)
    }
}

impl Rule {
    /// A rule for the MSRs that are named, without those that are left out; or the error.
    pub(super) fn new(
        place: Place,
        verdict: Verdict,
        flags: Flags,
        named: &Runs,
        left_out: &Runs,
    ) -> Result<Self, String> {
        if named.is_empty() {
            return Err(format!(
                "{verdict} what? Name MSRs by index, name or first-last"
            ));
        }
        let strangers = left_out.without(named);

        if !strangers.is_empty() {
            return Err(format!(
                "{strangers} is not among the MSRs of the rule, so it can't be left out"
            ));
        }
        let msrs = named.without(left_out);

        if msrs.is_empty() {
            return Err("the rule has no MSRs left; remove it".to_owned());
        }
        Ok(Rule {
            place,
            verdict,
            flags,
            msrs,
        })
    }
}

impl Rules {
    /// The rule that decides an access; none if the default does.
    pub fn deciding(&self, access: Access, index: u32) -> Option<&Rule> {
        // If several rules apply, the one that differs from the default.
        let matching = |rule: &&Rule| rule.flags.has(access) && rule.msrs.contains(index);
        let unlike = |rule: &&Rule| rule.verdict != self.default;

        self.rules
            .iter()
            .find(|rule| unlike(rule) && matching(rule))
            .or_else(|| self.rules.iter().find(matching))
    }

    /// The meaning of the rules.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for rules that contradict each other, that deny only x2APIC MSRs, or that
    /// no range can express for the last index.
    pub fn policy(&self) -> Result<Policy> {
        for access in Access::ALL {
            self.check_contradictions(access)?;
        }
        for rule in &self.rules {
            let never_filtered = Runs::from(X2APIC);

            if rule.verdict == Verdict::Deny && rule.msrs.without(&never_filtered).is_empty() {
                return Err(Error::Input(format!(
                    "{}: KVM never filters the x2APIC MSRs ({X2APIC}), so they can't be denied; \
                     remove the rule, and hide x2APIC in the guest's CPUID to deny them",
                    rule.place
                )));
            }
            if rule.verdict != self.default && rule.msrs.contains(UNREACHABLE) {
                return Err(Error::Input(format!(
                    "{}: no range can contain MSR {UNREACHABLE:#x}, so the default, {}, \
                     decides it; let the rule end at {:#x}",
                    rule.place,
                    self.default,
                    UNREACHABLE - 1
                )));
            }
        }
        let exceptions = |access| {
            self.rules
                .iter()
                .filter(|rule| rule.verdict != self.default && rule.flags.has(access))
                .flat_map(|rule| rule.msrs.iter())
                .collect()
        };

        Ok(Policy::new(
            self.default,
            &exceptions(Access::Read),
            &exceptions(Access::Write),
        ))
    }

    /// The notes, and harmless differences between the rules and KVM's decisions.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notes.clone();

        for rule in &self.rules {
            let Some(part) = rule.msrs.within(X2APIC).next() else {
                continue;
            };
            let place = rule.place;

            warnings.push(match rule.verdict {
                Verdict::Deny => format!(
                    "{place}: {part} stays allowed, as KVM never filters x2APIC MSRs ({X2APIC}); \
                     add 'except {X2APIC}' to accept this"
                ),
                Verdict::Allow => format!(
                    "{place}: {part} does not need a rule, as KVM never filters x2APIC MSRs \
                     ({X2APIC})"
                ),
            });
        }
        warnings
    }

    fn check_contradictions(&self, access: Access) -> Result<()> {
        let mut runs: Vec<(Run, &Rule)> = self
            .rules
            .iter()
            .filter(|rule| rule.flags.has(access))
            .flat_map(|rule| rule.msrs.iter().map(move |run| (run, rule)))
            .collect();
        // For allow and deny, the run so far that ends last.
        let mut furthest: [Option<(Run, &Rule)>; 2] = [None; 2];

        runs.sort_by_key(|(run, _)| *run);
        for (run, rule) in runs {
            let [allowing, denying] = &mut furthest;
            let (own, other) = match rule.verdict {
                Verdict::Allow => (allowing, denying),
                Verdict::Deny => (denying, allowing),
            };

            if let Some((before, contrary)) = *other
                && let Some(common) = before.cut(run)
            {
                let (one, two) = if contrary.place.number() < rule.place.number() {
                    (contrary, rule)
                } else {
                    (rule, contrary)
                };

                return Err(Error::Input(format!(
                    "{}: this says {} {access} of {common}, and {} says {}; neither wins by its \
                     place, so remove the MSRs from one of them ('except {common}')",
                    two.place, two.verdict, one.place, one.verdict
                )));
            }
            if own.is_none_or(|(before, _)| before.last < run.last) {
                *own = Some((run, rule));
            }
        }
        Ok(())
    }
}

impl Place {
    fn number(self) -> usize {
        match self {
            Place::Line(number) | Place::Rule(number) => number,
        }
    }
}
