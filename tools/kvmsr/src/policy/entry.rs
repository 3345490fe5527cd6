// SPDX-License-Identifier: Apache-2.0 OR MIT

//! An entry of a policy: a line of text, or an object of JSON.

use std::fmt;

use super::Action;
use super::When;
use crate::filter::Flags;
use crate::filter::Place;
use crate::filter::Runs;

/// What some accesses to some MSRs do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its place.
    pub place: Place,
    /// The MSRs.
    pub msrs: Runs,
    /// The kinds of access.
    pub access: Flags,
    /// When it applies.
    pub when: When,
    /// What it does.
    pub action: Action,
}

impl Entry {
    /// An entry for the MSRs that are named, without those that are left out; or the error.
    /// `access` is 0 if it is not stated.
    pub(super) fn new(
        place: Place,
        action: Action,
        access: Flags,
        when: When,
        named: &Runs,
        left_out: &Runs,
    ) -> Result<Self, String> {
        if named.is_empty() {
            return Err(format!(
                "{action} for which MSRs? Name them by index, name or first-last"
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
        Ok(Entry {
            place,
            msrs,
            access: match access {
                Flags(0) if action.needs_value_before() => Flags::WRITE,
                Flags(0) => Flags::BOTH,
                access => access,
            },
            when,
            action,
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, self.action, self.access, self.when, &self.msrs)
    }
}

/// A line that [`super::Policy::from_text`] reads.
pub(super) fn write_line(
    f: &mut fmt::Formatter<'_>,
    action: Action,
    access: Flags,
    when: When,
    msrs: &dyn fmt::Display,
) -> fmt::Result {
    write!(f, "{action} {}", spelled(access))?;
    if when != When::Always {
        write!(f, " when {when}")?;
    }
    write!(f, " {msrs}")
}

/// Kinds of access as a word.
pub(super) fn spelled(access: Flags) -> &'static str {
    match access {
        Flags::READ => "read",
        Flags::WRITE => "write",
        _ => "rw",
    }
}
