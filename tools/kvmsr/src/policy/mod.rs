// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Policies: what a VM's accesses to MSRs do, as rules for `kvm-msr.ko`.
//!
//! ```
//! use kvmsr::filter::Access;
//! use kvmsr::policy::Action;
//! use kvmsr::policy::Policy;
//! use kvmsr::policy::When;
//!
//! let policy = Policy::parse(
//!     "ignore when unsupported 0x0-0x7ff\n\
//!      gp write IA32_MISC_ENABLE\n",
//! )?;
//!
//! policy.check()?;
//! assert_eq!(
//!     policy.deciding(When::Always, Access::Write, 0x1a0).unwrap().action,
//!     Action::Gp
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`crate::device::Attached::set_policy`] sets one. The VMM's filter comes first: what it denies
//! stays denied.

mod check;
mod entry;
mod file;
mod from_filter;
mod test;
mod text;

pub use check::Mistake;
pub use entry::Entry;
pub use file::ActionName;
pub use file::EntryFile;
pub use file::PolicyFile;
pub use file::PolicySetReport;
pub use test::Outcome;
pub use test::PolicyTestReport;
pub use test::TestedAccess;

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::error::Result;
use crate::filter::Access;
use crate::filter::Flags;
use crate::filter::Place;
use crate::filter::Run;

/// The maximum number of rules.
pub const MAX_RULES: usize = 4096;

/// A policy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// Its entries, in any order.
    pub entries: Vec<Entry>,
}

/// A rule, as the module has it: it is for adjacent MSRs. Two rules must not be for the same
/// access to the same MSR at the same time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// The MSRs.
    pub msrs: Run,
    /// The kinds of access.
    pub access: Flags,
    /// When it applies.
    pub when: When,
    /// What it does.
    pub action: Action,
}

/// When a rule applies.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Before KVM handles the access.
    #[default]
    Always,
    /// If KVM has no such MSR for the vCPU.
    Unsupported,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            When::Always => "always",
            When::Unsupported => "unsupported",
        })
    }
}

/// What an access does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// As if there were no rule.
    Allow,
    /// #GP.
    Gp,
    /// It exits to user space (`KVM_EXIT_X86_RDMSR`, `KVM_EXIT_X86_WRMSR`), or injects #GP if the
    /// VMM has not enabled this.
    Exit,
    /// A read returns 0, a write is dropped.
    Ignore,
    /// A read returns this value, a write is dropped.
    Constant(u64),
    /// A write changes only these bits.
    Mask(u64),
    /// A write that changes another bit injects #GP.
    Match(u64),
}

impl Action {
    /// Whether it is only for writes, and only for MSRs that KVM has.
    pub fn needs_value_before(self) -> bool {
        matches!(self, Action::Mask(_) | Action::Match(_))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = file::named(*self);

        match value {
            Some(value) => f.pad(&format!("{name}={value:#x}")),
            None => f.pad(&name.to_string()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        entry::write_line(f, self.action, self.access, self.when, &self.msrs)
    }
}

impl Policy {
    /// A policy of the module.
    pub fn from_rules(rules: &[Rule]) -> Self {
        let entries = (1..).zip(rules).map(|(number, rule)| Entry {
            place: Place::Rule(number),
            msrs: rule.msrs.into(),
            access: rule.access,
            when: rule.when,
            action: rule.action,
        });

        Policy {
            entries: entries.collect(),
        }
    }

    /// Parses a file: as JSON if it starts with `{`, otherwise as text.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Input`] with the place.
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim_start().starts_with('{') {
            PolicyFile::parse(text)?.policy()
        } else {
            Policy::from_text(text)
        }
    }

    /// The rules for the module: one for each run of MSRs of each entry.
    pub fn rules(&self) -> Vec<Rule> {
        self.placed().map(|(_, rule)| rule).collect()
    }

    /// The place of a rule, by its number from 0 in [`Policy::rules`].
    pub fn place(&self, number: usize) -> Option<Place> {
        self.placed().nth(number).map(|(place, _)| place)
    }

    fn placed(&self) -> impl Iterator<Item = (Place, Rule)> {
        self.entries.iter().flat_map(|entry| {
            entry.msrs.iter().map(|msrs| {
                let rule = Rule {
                    msrs,
                    access: entry.access,
                    when: entry.when,
                    action: entry.action,
                };

                (entry.place, rule)
            })
        })
    }

    /// The entry that decides an access.
    pub fn deciding(&self, when: When, access: Access, index: u32) -> Option<&Entry> {
        self.entries.iter().find(|entry| {
            entry.when == when && entry.access.has(access) && entry.msrs.contains(index)
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            writeln!(f, "{entry}")?;
        }
        Ok(())
    }
}
