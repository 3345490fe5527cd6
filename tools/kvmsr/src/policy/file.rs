// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Policies as JSON.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::Action;
use super::Entry;
use super::Policy;
use super::When;
use crate::error::Error;
use crate::error::Result;
use crate::filter::Access;
use crate::filter::Flags;
use crate::filter::Place;
use crate::filter::Run;
use crate::filter::file::from_json;
use crate::filter::msrs;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// A policy in JSON, as `kvmsr policy get --json` prints it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The rules, in any order.
    pub policy: Vec<EntryFile>,
}

/// The output of `kvmsr policy set` and `kvmsr policy clear`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicySetReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The number of rules that the VM has now.
    pub rules: usize,
}

/// A rule. MSRs are indices, names, or the first and the last one with `-` between.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EntryFile {
    /// What it does.
    pub action: ActionName,
    /// The constant, or the bits that a write may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Hex<u64>>,
    /// The MSRs.
    pub msrs: Vec<String>,
    /// The MSRs to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// The kinds of access; the default is both, or writes for mask and match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Access>,
    /// When it applies; the default is always.
    #[serde(default)]
    pub when: When,
    /// A comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// An action without its value.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ActionName {
    /// As if there were no rule.
    Allow,
    /// #GP.
    Gp,
    /// Exit to user space.
    Exit,
    /// Read 0, and drop writes.
    Ignore,
    /// Read a constant, and drop writes.
    Constant,
    /// Writes change only some bits.
    Mask,
    /// #GP if a write changes other bits.
    Match,
}

impl fmt::Display for ActionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ActionName::Allow => "allow",
            ActionName::Gp => "gp",
            ActionName::Exit => "exit",
            ActionName::Ignore => "ignore",
            ActionName::Constant => "constant",
            ActionName::Mask => "mask",
            ActionName::Match => "match",
        })
    }
}

/// The name and value of an action.
pub(super) fn named(action: Action) -> (ActionName, Option<u64>) {
    match action {
        Action::Allow => (ActionName::Allow, None),
        Action::Gp => (ActionName::Gp, None),
        Action::Exit => (ActionName::Exit, None),
        Action::Ignore => (ActionName::Ignore, None),
        Action::Constant(value) => (ActionName::Constant, Some(value)),
        Action::Mask(bits) => (ActionName::Mask, Some(bits)),
        Action::Match(bits) => (ActionName::Match, Some(bits)),
    }
}

fn action(name: ActionName, value: Option<u64>) -> Result<Action, String> {
    Ok(match (name, value) {
        (ActionName::Allow, None) => Action::Allow,
        (ActionName::Gp, None) => Action::Gp,
        (ActionName::Exit, None) => Action::Exit,
        (ActionName::Ignore, None) => Action::Ignore,
        (ActionName::Constant, Some(value)) => Action::Constant(value),
        (ActionName::Mask, Some(bits)) => Action::Mask(bits),
        (ActionName::Match, Some(bits)) => Action::Match(bits),
        (name, None) => return Err(format!("{name} needs a value")),
        (name, Some(_)) => return Err(format!("{name} has no value: remove it")),
    })
}

impl PolicyFile {
    /// A file with a policy.
    pub fn new(policy: &Policy) -> Self {
        PolicyFile {
            schema: SCHEMA,
            policy: policy.entries.iter().map(EntryFile::from).collect(),
        }
    }

    /// Parses JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with line and column.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            schema: Option<u32>,
            policy: Option<IgnoredAny>,
            rules: Option<IgnoredAny>,
            ranges: Option<IgnoredAny>,
            learned: Option<IgnoredAny>,
        }

        let kind: Kind = from_json(text)?;

        if kind.schema != Some(SCHEMA) {
            return Err(Error::Input(format!(
                "this is not a file of schema {SCHEMA}, the only one that kvmsr supports: it must \
                 have \"schema\": {SCHEMA}"
            )));
        }
        if kind.policy.is_none() {
            let other = kind.rules.or(kind.ranges).or(kind.learned).is_some();

            return Err(Error::Input(if other {
                "this is no policy: 'kvmsr policy compile' makes one from a filter, from its rules, \
                 or from what 'kvmsr learn' wrote"
                    .to_owned()
            } else {
                "this is no policy: it must have \"policy\", with a list of rules".to_owned()
            }));
        }
        from_json(text)
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with the number of the rule, from 1.
    pub fn policy(&self) -> Result<Policy> {
        let entry = |(number, entry): (usize, &EntryFile)| {
            entry
                .entry(Place::Rule(number))
                .map_err(|what| Error::Input(format!("rule {number}: {what}")))
        };

        Ok(Policy {
            entries: (1..).zip(&self.policy).map(entry).collect::<Result<_>>()?,
        })
    }
}

impl EntryFile {
    fn entry(&self, place: Place) -> Result<Entry, String> {
        let parse = |words: &[String]| {
            let runs: Vec<Vec<Run>> = words
                .iter()
                .map(|word| msrs::parse(word).map(|runs| runs.iter().collect()))
                .collect::<Result<_>>()
                .map_err(|error| error.to_string())?;

            Ok::<_, String>(runs.into_iter().flatten().collect())
        };
        let access = self
            .access
            .iter()
            .fold(0, |flags, &access| flags | Flags::from(access).0);

        Entry::new(
            place,
            action(self.action, self.value.map(|value| value.0))?,
            Flags(access),
            self.when,
            &parse(&self.msrs)?,
            &parse(&self.except)?,
        )
    }
}

impl From<&Entry> for EntryFile {
    fn from(entry: &Entry) -> Self {
        let (action, value) = named(entry.action);

        EntryFile {
            action,
            value: value.map(Hex),
            msrs: entry.msrs.iter().map(|run| run.to_string()).collect(),
            except: Vec::new(),
            access: entry.access.accesses().collect(),
            when: entry.when,
            comment: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_as_text() {
        let text = "ignore when unsupported 0x0-0xff except 0x10\n\
                    constant=0x10 read IA32_PLATFORM_ID\nmatch=0xff 0x277";
        let json = r#"{ "schema": 1, "policy": [
            { "action": "ignore", "msrs": ["0x0-0xff"], "except": ["16"], "when": "unsupported" },
            { "action": "constant", "value": 16, "msrs": ["0x17"], "access": ["read"],
              "comment": "an old CPU" },
            { "action": "match", "value": "0xff", "msrs": ["IA32_PAT"] }
        ] }"#;
        let (text, json) = (Policy::parse(text).unwrap(), Policy::parse(json).unwrap());

        assert_eq!(text.rules(), json.rules());
        assert_eq!(json.place(2), Some(Place::Rule(2)));
        let written = serde_json::to_string(&PolicyFile::new(&text)).unwrap();

        assert_eq!(Policy::parse(&written).unwrap(), json);
    }

    #[test]
    fn foreign_files_are_refused() {
        for (json, what) in [
            ("{", "line 1, column 1: "),
            ("{}", "this is not a file of schema 1"),
            (r#"{"schema": 1}"#, "this is no policy: it must have"),
            (
                r#"{"schema": 1, "rules": []}"#,
                "this is no policy: 'kvmsr policy compile'",
            ),
            (
                r#"{"schema": 1, "policy": [{"action": "gp"}]}"#,
                "line 1, column 41: missing field `msrs`",
            ),
            (
                r#"{"schema": 1, "policy": [{"action": "no", "msrs": []}]}"#,
                "line 1, column 40: unknown variant `no`",
            ),
            (
                r#"{"schema": 1, "policy": [{"action": "gp", "msrs": []}]}"#,
                "rule 1: gp for which MSRs?",
            ),
            (
                r#"{"schema": 1, "policy": [{"action": "mask", "msrs": ["1"]}]}"#,
                "rule 1: mask needs a value",
            ),
            (
                r#"{"schema": 1, "policy": [{"action": "gp", "value": 1, "msrs": ["1"]}]}"#,
                "rule 1: gp has no value",
            ),
        ] {
            let error = Policy::parse(json).unwrap_err().to_string();

            assert!(error.starts_with(what), "{json}: {error}");
        }
    }
}
