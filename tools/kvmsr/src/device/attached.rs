// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A file that is attached to a VM, and the ioctls for the VM's policy.

use std::fs::File;
use std::io;

use super::Error;
use super::Result;
use super::raw;
use super::uapi::KMSR_ACCESS_READ;
use super::uapi::KMSR_ACCESS_WRITE;
use super::uapi::KMSR_ACTION_ALLOW;
use super::uapi::KMSR_ACTION_CONSTANT;
use super::uapi::KMSR_ACTION_EXIT;
use super::uapi::KMSR_ACTION_GP;
use super::uapi::KMSR_ACTION_IGNORE;
use super::uapi::KMSR_ACTION_MASK;
use super::uapi::KMSR_ACTION_MATCH;
use super::uapi::KMSR_POLICY_UNTIL_CLOSE;
use super::uapi::KMSR_WHEN_ALWAYS;
use super::uapi::KMSR_WHEN_UNSUPPORTED;
use super::uapi::kmsr_rule;
use crate::filter::Flags;
use crate::filter::Run;
use crate::policy::Action;
use crate::policy::MAX_RULES;
use crate::policy::Mistake;
use crate::policy::Rule;
use crate::policy::When;

/// A file that is attached to a VM.
///
/// All its methods fail with `EACCES` if [`super::Device::attach`] was not asked for the right, and
/// with `ENODEV` after the VM's end.
#[derive(Debug)]
pub struct Attached {
    pub(super) file: File,
}

impl Attached {
    /// Replaces the VM's policy (`KMSR_SET_POLICY`), for which [`super::Rights::POLICY`] is needed.
    /// Without rules, this clears the policy. When it returns, no access is decided by the
    /// replaced rules any more.
    ///
    /// The policy lasts until it is replaced or the VM ends; with `until_close`, it is cleared
    /// when this file is closed.
    ///
    /// # Errors
    ///
    /// [`Error::Rule`] if a rule is wrong; [`Error::Ioctl`] otherwise, e.g. `EINVAL` for more than
    /// [`MAX_RULES`] rules. The policy is then unchanged.
    pub fn set_policy(&self, rules: &[Rule], until_close: bool) -> Result<()> {
        let raw: Vec<kmsr_rule> = rules.iter().map(kmsr_rule::from).collect();
        let flags = if until_close {
            KMSR_POLICY_UNTIL_CLOSE
        } else {
            0
        };

        raw::set_policy(&self.file, flags, &raw)
            .map_err(|(source, error, number)| refusal(source, error, number, rules.len()))
    }

    /// The VM's policy (`KMSR_GET_POLICY`), for which [`super::Rights::OBSERVE`] is needed. The
    /// rules are sorted by when, access and index.
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`], or [`Error::Foreign`] for a rule of a newer module.
    pub fn policy(&self) -> Result<Vec<Rule>> {
        list(MAX_RULES, |rules| raw::get_policy(&self.file, rules))
            .map_err(Error::ioctl("KMSR_GET_POLICY"))?
            .iter()
            .map(Rule::try_from)
            .collect()
    }
}

/// The error of `KMSR_SET_POLICY`.
fn refusal(source: io::Error, error: u32, number: u32, count: usize) -> Error {
    let number = number as usize;

    match Mistake::of_number(error) {
        Some(mistake) if source.kind() == io::ErrorKind::InvalidInput && number < count => {
            Error::Rule { number, mistake }
        }
        _ => Error::ioctl("KMSR_SET_POLICY")(source),
    }
}

/// Reads a list whose length is not known: with more room, if there are more elements.
pub(super) fn list<T: Clone + Default>(
    room: usize,
    mut read: impl FnMut(&mut [T]) -> io::Result<u32>,
) -> io::Result<Vec<T>> {
    let mut elements = vec![T::default(); room];

    loop {
        let count = read(&mut elements)? as usize;

        if count <= elements.len() {
            elements.truncate(count);
            return Ok(elements);
        }
        elements.resize(count, T::default());
    }
}

impl From<&Rule> for kmsr_rule {
    fn from(rule: &Rule) -> Self {
        let access = |flags: Flags, flag: Flags, bit| if flags.0 & flag.0 != 0 { bit } else { 0 };
        let (action, value) = match rule.action {
            Action::Allow => (KMSR_ACTION_ALLOW, 0),
            Action::Gp => (KMSR_ACTION_GP, 0),
            Action::Exit => (KMSR_ACTION_EXIT, 0),
            Action::Ignore => (KMSR_ACTION_IGNORE, 0),
            Action::Constant(value) => (KMSR_ACTION_CONSTANT, value),
            Action::Mask(value) => (KMSR_ACTION_MASK, value),
            Action::Match(value) => (KMSR_ACTION_MATCH, value),
        };

        kmsr_rule {
            first: rule.msrs.first,
            last: rule.msrs.last,
            access: (access(rule.access, Flags::READ, KMSR_ACCESS_READ)
                | access(rule.access, Flags::WRITE, KMSR_ACCESS_WRITE)) as u8,
            when: match rule.when {
                When::Always => KMSR_WHEN_ALWAYS,
                When::Unsupported => KMSR_WHEN_UNSUPPORTED,
            } as u8,
            action: action as u8,
            value,
            ..Default::default()
        }
    }
}

impl TryFrom<&kmsr_rule> for Rule {
    type Error = Error;

    fn try_from(raw: &kmsr_rule) -> Result<Self> {
        const BOTH: u32 = KMSR_ACCESS_READ | KMSR_ACCESS_WRITE;

        Ok(Rule {
            msrs: Run {
                first: raw.first,
                last: raw.last,
            },
            access: match u32::from(raw.access) {
                KMSR_ACCESS_READ => Flags::READ,
                KMSR_ACCESS_WRITE => Flags::WRITE,
                BOTH => Flags::BOTH,
                _ => return Err(Error::Foreign("access")),
            },
            when: match u32::from(raw.when) {
                KMSR_WHEN_ALWAYS => When::Always,
                KMSR_WHEN_UNSUPPORTED => When::Unsupported,
                _ => return Err(Error::Foreign("time")),
            },
            action: match u32::from(raw.action) {
                KMSR_ACTION_ALLOW => Action::Allow,
                KMSR_ACTION_GP => Action::Gp,
                KMSR_ACTION_EXIT => Action::Exit,
                KMSR_ACTION_IGNORE => Action::Ignore,
                KMSR_ACTION_CONSTANT => Action::Constant(raw.value),
                KMSR_ACTION_MASK => Action::Mask(raw.value),
                KMSR_ACTION_MATCH => Action::Match(raw.value),
                _ => return Err(Error::Foreign("action")),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_converted_both_ways() {
        for action in [
            Action::Allow,
            Action::Gp,
            Action::Exit,
            Action::Ignore,
            Action::Constant(u64::MAX),
            Action::Mask(1),
            Action::Match(1 << 63),
        ] {
            for access in [Flags::READ, Flags::WRITE, Flags::BOTH] {
                for when in [When::Always, When::Unsupported] {
                    let rule = Rule {
                        msrs: Run {
                            first: 0x10,
                            last: u32::MAX,
                        },
                        access,
                        when,
                        action,
                    };

                    assert_eq!(Rule::try_from(&kmsr_rule::from(&rule)).unwrap(), rule);
                }
            }
        }
        let newer = kmsr_rule {
            access: 1,
            action: 99,
            ..Default::default()
        };

        assert!(matches!(
            Rule::try_from(&newer),
            Err(Error::Foreign("action"))
        ));
    }

    #[test]
    fn a_wrong_rule_is_named() {
        let invalid = || io::Error::from_raw_os_error(22);

        assert!(matches!(
            refusal(invalid(), 8, 3, 4),
            Error::Rule {
                number: 3,
                mistake: Mistake::Overlap
            }
        ));
        // No rule is wrong, the number is of no rule, the mistake is of a newer module, or the
        // error is another.
        for error in [
            refusal(invalid(), 0, 3, 4),
            refusal(invalid(), 8, 4, 4),
            refusal(invalid(), 99, 3, 4),
            refusal(io::Error::from_raw_os_error(12), 8, 3, 4),
        ] {
            assert!(matches!(error, Error::Ioctl { .. }), "{error}");
        }
    }

    #[test]
    fn lists_grow_until_they_fit() {
        let mut calls = Vec::new();
        let read = list(2, |room: &mut [u32]| {
            calls.push(room.len());
            room.fill(7);
            // The list grows meanwhile.
            Ok(if calls.len() == 1 { 5 } else { 4 })
        });

        assert_eq!(read.unwrap(), [7; 4]);
        assert_eq!(calls, [2, 5]);
    }
}
