// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a policy decides, without a kernel.

use std::fmt;

use serde::Serialize;

use super::ActionName;
use super::Policy;
use super::When;
use super::file::named;
use crate::error::Error;
use crate::error::Result;
use crate::filter::Access;
use crate::filter::Accesses;
use crate::filter::Place;
use crate::filter::msrs;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// The maximum number of accesses.
const MOST: u64 = 0x1_0000;

/// A policy's decisions.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyTestReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The accesses, in the order given.
    pub accesses: Vec<TestedAccess>,
}

/// A policy's decisions of an access that the VMM's filter allows.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TestedAccess {
    /// The kind.
    pub access: Access,
    /// The MSR.
    pub index: Hex<u32>,
    /// Its name.
    pub name: Option<String>,
    /// The value that is written.
    pub value: Option<Hex<u64>>,
    /// The outcome if KVM has the MSR for the vCPU.
    pub supported: Outcome,
    /// The outcome if KVM lacks the MSR.
    pub unsupported: Outcome,
    /// Whether the outcome is as expected, if one is.
    pub met: Option<bool>,
}

/// The outcome of an access.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Outcome {
    /// The action of the rule that decides; allow means that KVM does.
    pub action: ActionName,
    /// The action's value.
    pub value: Option<Hex<u64>>,
    /// The place of the rule, if one decides.
    pub by: Option<Place>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.action)?;
        if let Some(value) = self.value {
            write!(f, "={value}")?;
        }
        match self.by {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}

impl PolicyTestReport {
    /// Decides accesses. `expected` is an action, and whether it is for MSRs that KVM lacks.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for too many accesses.
    pub fn new(
        policy: &Policy,
        accesses: &[Accesses],
        expected: Option<(ActionName, When)>,
    ) -> Result<Self> {
        let count: u64 = accesses.iter().map(|accesses| accesses.msrs.count()).sum();

        if count > MOST {
            return Err(Error::Input(format!(
                "these are {count} accesses; the limit is {MOST}"
            )));
        }
        let tested = accesses.iter().flat_map(|accesses| {
            (accesses.msrs.first..=accesses.msrs.last)
                .map(|index| one(policy, accesses, index, expected))
        });

        Ok(PolicyTestReport {
            schema: SCHEMA,
            accesses: tested.collect(),
        })
    }

    /// Whether an outcome differs from the expected one.
    pub fn is_bad(&self) -> bool {
        self.accesses.iter().any(|tested| tested.met == Some(false))
    }
}

fn one(
    policy: &Policy,
    accesses: &Accesses,
    index: u32,
    expected: Option<(ActionName, When)>,
) -> TestedAccess {
    let access = accesses.access;
    let supported = outcome(policy, &[When::Always], access, index);
    let unsupported = outcome(policy, &[When::Always, When::Unsupported], access, index);

    TestedAccess {
        access,
        index: Hex(index),
        name: msrs::name(index),
        value: (access == Access::Write).then_some(Hex(accesses.value)),
        met: expected.map(|(action, when)| match when {
            When::Always => supported.action == action,
            When::Unsupported => unsupported.action == action,
        }),
        supported,
        unsupported,
    }
}

/// The outcome by the rules of some times, in their order.
fn outcome(policy: &Policy, times: &[When], access: Access, index: u32) -> Outcome {
    let mut by = None;

    for &when in times {
        if let Some(entry) = policy.deciding(when, access, index) {
            let (action, value) = named(entry.action);

            // Mask and match need the MSR's value. If KVM lacks the MSR, they do not decide.
            if entry.action.needs_value_before() && times.contains(&When::Unsupported) {
                continue;
            }
            by = Some(entry.place);
            // Allow is as if there were no rule, so a later one may still decide.
            if action != ActionName::Allow {
                return Outcome {
                    action,
                    value: value.map(Hex),
                    by,
                };
            }
        }
    }
    Outcome {
        action: ActionName::Allow,
        value: None,
        by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::parse_accesses;

    #[test]
    fn rules_of_both_times_decide() {
        let policy = Policy::from_text(
            "gp write 0x10\nallow 0x20\nignore when unsupported 0x10-0x2f\nmask=1 0x21\n",
        )
        .unwrap();
        let decided = |access: &str| {
            let accesses = parse_accesses(access).unwrap();
            let report = PolicyTestReport::new(&policy, &accesses, None).unwrap();
            let tested = &report.accesses[0];

            (tested.supported.to_string(), tested.unsupported.to_string())
        };
        let texts =
            |supported: &str, unsupported: &str| (supported.to_owned(), unsupported.to_owned());

        assert_eq!(decided("write:0x10=1"), texts("gp (line 1)", "gp (line 1)"));
        assert_eq!(decided("read:0x10"), texts("allow", "ignore (line 3)"));
        assert_eq!(
            decided("read:0x20"),
            texts("allow (line 2)", "ignore (line 3)")
        );
        assert_eq!(
            decided("write:0x21"),
            texts("mask=0x1 (line 4)", "ignore (line 3)")
        );
        assert_eq!(decided("read:0x30"), texts("allow", "allow"));
    }

    #[test]
    fn expectations_are_of_one_time() {
        let policy = Policy::from_text("ignore when unsupported 0x10").unwrap();
        let bad = |action, when| {
            PolicyTestReport::new(
                &policy,
                &parse_accesses("read:0x10").unwrap(),
                Some((action, when)),
            )
            .unwrap()
            .is_bad()
        };

        assert!(!bad(ActionName::Allow, When::Always));
        assert!(!bad(ActionName::Ignore, When::Unsupported));
        assert!(bad(ActionName::Ignore, When::Always));
    }
}
