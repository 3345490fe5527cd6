// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Files of rules and of filters.

use serde::Deserialize;
use serde::Serialize;
use serde_json::error::Category;

use crate::error::Error;
use crate::error::Result;
use crate::filter::Access;
use crate::filter::Filter;
use crate::filter::Flags;
use crate::filter::Place;
use crate::filter::Policy;
use crate::filter::Range;
use crate::filter::Rule;
use crate::filter::Rules;
use crate::filter::Run;
use crate::filter::Verdict;
use crate::filter::msrs;
use crate::learned::LearnedFile;
use crate::snapshot::SCHEMA;

/// A file: rules as text or JSON, a filter as JSON, or what `kvmsr learn` wrote.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// Rules; those of `kvmsr learn` allow what the guest accessed, and deny everything else.
    Rules(Rules),
    /// A filter.
    Filter(Filter),
}

impl Source {
    /// Parses a file: as JSON if it starts with `{`, otherwise with [`Rules::from_text`].
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with line and column.
    pub fn parse(text: &str) -> Result<Self> {
        if !text.trim_start().starts_with('{') {
            return Rules::from_text(text).map(Source::Rules);
        }
        let Kind {
            schema,
            rules,
            ranges,
            learned,
        } = from_json(text)?;

        if schema != Some(SCHEMA) {
            return Err(Error::Input(format!(
                "this is not a file of schema {SCHEMA}, the only one that kvmsr supports: it must \
                 have \"schema\": {SCHEMA}"
            )));
        }
        match (rules, ranges) {
            (None, None) if learned.is_some() => {
                Ok(Source::Rules(from_json::<LearnedFile>(text)?.rules()))
            }
            (Some(_), None) => from_json::<RulesFile>(text)?.rules().map(Source::Rules),
            (None, Some(_)) => Ok(Source::Filter(from_json::<FilterFile>(text)?.into())),
            _ => Err(Error::Input(
                "this is neither rules nor a filter: it must have either \"rules\", i.e. what to \
                 allow or deny, or \"ranges\", as in KVM"
                    .to_owned(),
            )),
        }
    }

    /// The policy of the file.
    ///
    /// # Errors
    ///
    /// As [`Rules::policy`] and [`Filter::check`].
    pub fn policy(&self) -> Result<Policy> {
        match self {
            Source::Rules(rules) => rules.policy(),
            Source::Filter(filter) => {
                filter.check()?;
                Ok(filter.policy())
            }
        }
    }
}

pub(crate) fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = error.to_string();
        let what = what
            .strip_suffix(&format!(" at line {line} column {column}"))
            .unwrap_or(&what);

        let what = match error.classify() {
            Category::Eof => "the file ends too early: was it copied in full?".to_owned(),
            Category::Syntax => format!("this is not JSON: {what}"),
            Category::Data | Category::Io => what.to_owned(),
        };

        Error::Input(format!("line {line}, column {column}: {what}"))
    })
}

/// The members that tell the kind of file.
#[derive(Deserialize)]
struct Kind {
    schema: Option<u32>,
    rules: Option<serde::de::IgnoredAny>,
    ranges: Option<serde::de::IgnoredAny>,
    learned: Option<serde::de::IgnoredAny>,
}

/// A filter in JSON, as `kvmsr filter compile --json` prints it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FilterFile {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The decision for accesses that no range matches.
    pub default: Verdict,
    /// The ranges: the first that matches an access decides.
    pub ranges: Vec<Range>,
    /// Where KVM's decisions differ from the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl FilterFile {
    /// A file with a filter.
    pub fn new(filter: Filter, warnings: Vec<String>) -> Self {
        FilterFile {
            schema: SCHEMA,
            default: filter.default,
            ranges: filter.ranges,
            warnings,
        }
    }
}

impl From<FilterFile> for Filter {
    fn from(file: FilterFile) -> Self {
        Filter {
            default: file.default,
            ranges: file.ranges,
        }
    }
}

/// Rules in JSON.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RulesFile {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The decision for accesses without a rule.
    pub default: Verdict,
    /// The rules, in any order.
    pub rules: Vec<RuleEntry>,
}

/// A rule of a [`RulesFile`]: it has either `allow` or `deny`. MSRs are indices, names, or the
/// first and the last one with `-` between.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleEntry {
    /// The MSRs to allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// The MSRs to deny.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// The MSRs to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// The kinds of access; the default is both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Access>,
    /// A comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl RulesFile {
    /// The rules.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with the number of the rule, from 1.
    pub fn rules(&self) -> Result<Rules> {
        let rule = |(number, entry): (usize, &RuleEntry)| {
            entry
                .rule(Place::Rule(number))
                .map_err(|what| Error::Input(format!("rule {number}: {what}")))
        };

        Ok(Rules {
            default: self.default,
            rules: (1..).zip(&self.rules).map(rule).collect::<Result<_>>()?,
            notes: Vec::new(),
        })
    }
}

impl RuleEntry {
    fn rule(&self, place: Place) -> Result<Rule, String> {
        let parse = |words: &[String]| {
            let runs: Vec<Vec<Run>> = words
                .iter()
                .map(|word| msrs::parse(word).map(|runs| runs.iter().collect()))
                .collect::<Result<_>>()
                .map_err(|error| error.to_string())?;

            Ok::<_, String>(runs.into_iter().flatten().collect())
        };
        let (verdict, named) = match (self.allow.as_slice(), self.deny.as_slice()) {
            (named, []) => (Verdict::Allow, named),
            ([], named) => (Verdict::Deny, named),
            _ => return Err("it has both allow and deny; use two rules".to_owned()),
        };
        let flags = self
            .access
            .iter()
            .fold(0, |flags, &access| flags | Flags::from(access).0);

        Rule::new(
            place,
            verdict,
            if flags == 0 {
                Flags::BOTH
            } else {
                Flags(flags)
            },
            &parse(named)?,
            &parse(&self.except)?,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_is_as_text() {
        let text = "default deny\nallow 0x10\nallow read 0x20-0x2f except 0x22\ndeny write 0x30";
        let json = r#"{ "schema": 1, "default": "deny", "rules": [
            { "allow": ["0x10"], "comment": "a clock" },
            { "allow": ["0x20-0x2f"], "except": ["0x22"], "access": ["read"] },
            { "deny": ["48"], "access": ["write"] }
        ] }"#;

        assert_eq!(
            Source::parse(text).unwrap().policy().unwrap(),
            Source::parse(json).unwrap().policy().unwrap()
        );
    }

    #[test]
    fn a_filter_is_read_as_it_is_written() {
        let rules = Rules::from_text("default deny\nallow 0x10\nallow read 0x20-0x2f").unwrap();
        let filter = super::super::compile(&rules.policy().unwrap()).unwrap();
        let file = FilterFile::new(filter.clone(), Vec::new());
        let json = serde_json::to_string_pretty(&file).unwrap();

        assert_eq!(Source::parse(&json).unwrap(), Source::Filter(filter));
    }

    #[test]
    fn foreign_files_are_refused() {
        for (json, what) in [
            ("{", "line 1, column 1: "),
            ("{}", "this is not a file of schema 1"),
            (
                r#"{"schema": 2, "rules": []}"#,
                "this is not a file of schema 1",
            ),
            (r#"{"schema": 1}"#, "this is neither rules nor a filter"),
            (
                r#"{"schema": 1, "rules": [], "ranges": []}"#,
                "this is neither rules nor a filter",
            ),
            (
                r#"{"schema": 1, "rules": []}"#,
                "line 1, column 26: missing",
            ),
            (
                r#"{"schema": 1, "default": "deny", "rules": [{"alow": []}]}"#,
                "line 1, column 50: unknown field `alow`",
            ),
            (
                r#"{"schema": 1, "default": "deny", "rules": [{"allow": []}]}"#,
                "rule 1: allow what?",
            ),
            (
                r#"{"schema": 1, "default": "deny", "rules": [{"allow": ["0x1"], "deny": ["0x2"]}]}"#,
                "rule 1: it has both",
            ),
            (
                r#"{"schema": 1, "default": "deny", "ranges": [{"base": "0x100000000"}]}"#,
                "line 1, column 66: 0x100000000 needs",
            ),
        ] {
            let error = Source::parse(json).unwrap_err().to_string();

            assert!(error.starts_with(what), "{json}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(json in r#"\{("(schema|default|rules|ranges|flags|base|nmsrs|bitmap|allow|deny|read|write|0x1|ff)"|1|[0-9]{1,20}|[:,\[\]\{\}]|\PC){0,40}\}?"#) {
            let _ = Source::parse(&json);
        }

        #[test]
        fn broken_files_do_not_panic(cut in 0usize..400, put in "\\PC{0,3}") {
            let whole = r#"{ "schema": 1, "default": "deny", "ranges": [
                { "flags": ["read"], "base": "0x10", "nmsrs": 12, "bitmap": "0108000000000000" },
                { "flags": 3, "base": 4294967295, "nmsrs": 2, "bitmap": "03" } ] }"#;
            let cut = whole.floor_char_boundary(cut.min(whole.len()));
            let (before, after) = whole.split_at(cut);

            for text in [before.to_owned(), format!("{before}{put}{after}")] {
                if let Ok(source) = Source::parse(&text) {
                    let _ = source.policy();
                }
            }
        }
    }
}
