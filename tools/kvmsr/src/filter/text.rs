// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Rules as text, one per line.
//!
//! ```text
//! # comment
//! default deny|allow
//! allow|deny [read|write|rw] MSR… [except MSR…]
//! ```

use crate::error::Error;
use crate::error::Result;
use crate::filter::Flags;
use crate::filter::Place;
use crate::filter::Rule;
use crate::filter::Rules;
use crate::filter::Verdict;
use crate::filter::msrs;

/// A word and its column, counted from 1.
pub(crate) type Word<'a> = (usize, &'a str);

impl Rules {
    /// Parses rules: a `default` line, and lines of `allow` or `deny`, with `read`, `write` or
    /// `rw` (the default), MSRs by index, name or `first-last`, and after `except` those that are
    /// left out. `#` starts a comment.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with line and column.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut default: Option<(usize, Verdict)> = None;
        let mut rules = Vec::new();

        for (number, line) in (1..).zip(text.lines()) {
            let words = words(line);
            let Some((&(column, first), rest)) = words.split_first() else {
                continue;
            };
            let mistake = |column: usize, what: &str| {
                Error::Input(format!("line {number}, column {column}: {what}"))
            };

            match verdict(first) {
                Some(verdict) => {
                    let end = column + first.chars().count();

                    rules.push(rule(number, verdict, end, rest, &mistake)?);
                }
                None if first == "default" => {
                    let said = match rest {
                        [(_, word)] => verdict(word),
                        _ => None,
                    };

                    if let Some((before, _)) = default {
                        return Err(mistake(
                            column,
                            &format!("line {before} already has a default; remove one"),
                        ));
                    }
                    default = Some((
                        number,
                        said.ok_or_else(|| {
                            mistake(column, "write 'default deny' or 'default allow'")
                        })?,
                    ));
                }
                None => {
                    return Err(mistake(
                        column,
                        &format!("'{first}' starts no rule: start with default, allow or deny"),
                    ));
                }
            }
        }
        let Some((_, default)) = default else {
            return Err(Error::Input(
                "there is no default: add a line 'default deny' or 'default allow'".to_owned(),
            ));
        };

        Ok(Rules {
            default,
            rules,
            notes: Vec::new(),
        })
    }
}

/// The words of a line without its comment; blanks and commas separate them.
pub(crate) fn words(line: &str) -> Vec<Word<'_>> {
    let line = line.split('#').next().unwrap_or_default();
    let separates = |c: char| c.is_whitespace() || c == ',';
    let mut words = Vec::new();
    let mut column = 1;

    for word in line.split(separates) {
        if !word.is_empty() {
            words.push((column, word));
        }
        // A blank and a comma are both one column.
        column += word.chars().count() + 1;
    }
    words
}

fn verdict(word: &str) -> Option<Verdict> {
    match word {
        "allow" => Some(Verdict::Allow),
        "deny" => Some(Verdict::Deny),
        _ => None,
    }
}

fn rule(
    number: usize,
    verdict: Verdict,
    column: usize,
    words: &[Word<'_>],
    mistake: &impl Fn(usize, &str) -> Error,
) -> Result<Rule> {
    let mut flags = Flags::default();
    let (mut named, mut left_out) = (Vec::new(), Vec::new());
    let mut excepting = None;

    for &(column, word) in words {
        let kind = match word {
            "read" => Some(Flags::READ),
            "write" => Some(Flags::WRITE),
            "rw" => Some(Flags::BOTH),
            _ => None,
        };

        match kind {
            Some(kind) if named.is_empty() && excepting.is_none() => flags.0 |= kind.0,
            Some(_) => {
                return Err(mistake(
                    column,
                    &format!(
                        "'{word}' must come before the MSRs; use another line for other accesses"
                    ),
                ));
            }
            None if word == "except" => {
                if excepting.replace(column).is_some() {
                    return Err(mistake(column, "there already is an 'except'"));
                }
            }
            None => {
                let msrs =
                    msrs::parse(word).map_err(|error| mistake(column, &error.to_string()))?;

                if excepting.is_some() {
                    left_out.extend(msrs.iter());
                } else {
                    named.extend(msrs.iter());
                }
            }
        }
    }
    let end = words
        .last()
        .map_or(column, |(column, word)| column + word.chars().count());
    let place = Place::Line(number);
    let flags = if flags == Flags(0) {
        Flags::BOTH
    } else {
        flags
    };

    if let Some(column) = excepting
        && left_out.is_empty()
    {
        return Err(mistake(column, "except what? Name the MSRs to leave out"));
    }
    Rule::new(
        place,
        verdict,
        flags,
        &named.into_iter().collect(),
        &left_out.into_iter().collect(),
    )
    .map_err(|what| mistake(excepting.unwrap_or(end), &what))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::Access;

    fn error(text: &str) -> String {
        Rules::from_text(text)
            .and_then(|rules| rules.policy())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_rule_is_a_line() {
        let rules = Rules::from_text(
            "# what every guest needs\n\
             default deny\n\
             \n\
             allow 0x10, 16-0x12 # clocks\n\
             allow read 0x1b\n\
             allow write read 0x20-0x2f except 0x22 0x24\n",
        )
        .unwrap();
        let policy = rules.policy().unwrap();

        assert_eq!(rules.default, Verdict::Deny);
        assert_eq!(
            policy.exceptions(Access::Read).to_string(),
            "0x10-0x12 0x1b 0x20-0x21 0x23 0x25-0x2f"
        );
        assert_eq!(
            policy.exceptions(Access::Write).to_string(),
            "0x10-0x12 0x20-0x21 0x23 0x25-0x2f"
        );
        assert_eq!(
            rules.deciding(Access::Write, 0x12).unwrap().place,
            Place::Line(4)
        );
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, place) in [
            ("allow 0x10", "there is no default"),
            ("default", "line 1, column 1"),
            ("default maybe", "line 1, column 1"),
            ("default deny\n default deny", "line 2, column 2"),
            ("default deny\npermit 0x10", "line 2, column 1"),
            ("default deny\nallow  0x1x", "line 2, column 8"),
            ("default deny\nallow 0x10,0x100000000", "line 2, column 12"),
            ("default deny\nallow 0x20-0x10", "line 2, column 7"),
            ("default deny\nallow 0x20-", "line 2, column 7"),
            ("default deny\nallow 0x20-0x30-0x40", "line 2, column 7"),
            ("default deny\nallow read", "line 2, column 11"),
            ("default deny\nallow 0x10 read", "line 2, column 12"),
            ("default deny\nallow 0x10 except", "line 2, column 12"),
            ("default deny\nallow 0x10 except 0x11", "line 2, column 12"),
            ("default deny\nallow 0x10 except 0x10", "line 2, column 12"),
            (
                "default deny\nallow 0x10 except 0x10 except 0x10",
                "line 2, column 24",
            ),
        ] {
            let error = error(text);

            assert!(error.starts_with(place), "{text:?}: {error}");
        }
    }

    #[test]
    fn contradictions_name_both() {
        let error = error("default deny\ndeny write 0x18-0x1f\nallow 0x10-0x1a\n");

        assert!(error.starts_with("line 3: "), "{error}");
        assert!(error.contains("line 2 says deny"), "{error}");
        assert!(error.contains("write of 0x18-0x1a"), "{error}");
        // Not the same accesses.
        assert!(
            Rules::from_text("default deny\ndeny write 0x10\nallow read 0x10")
                .unwrap()
                .policy()
                .is_ok()
        );
    }

    #[test]
    fn what_no_filter_can_do_is_an_error() {
        for (text, what) in [
            (
                "default allow\ndeny 0x800-0x8ff",
                "line 2: KVM never filters",
            ),
            ("default allow\ndeny 0xffffffff", "line 2: no range"),
            (
                "default deny\nallow 0xfffffff0-0xffffffff",
                "line 2: no range",
            ),
        ] {
            let error = error(text);

            assert!(error.starts_with(what), "{text:?}: {error}");
        }
        let rules = Rules::from_text("default allow\ndeny 0x700-0x900").unwrap();

        assert_eq!(rules.warnings().len(), 1);
        assert!(
            !rules
                .policy()
                .unwrap()
                .exceptions(Access::Read)
                .contains(0x850)
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(default (allow|deny)\n)?((allow|deny|read|write|rw|except|#|-|0x[0-9a-f]{1,9}(-0x[0-9a-f]{1,8})?|[ ,\n]|\\PC){0,12}){0,6}") {
            if let Ok(rules) = Rules::from_text(&text) {
                let _ = rules.policy();
                let _ = rules.warnings();
            }
        }
    }
}
