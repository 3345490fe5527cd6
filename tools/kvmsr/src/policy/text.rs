// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Policies as text, a rule per line.
//!
//! ```text
//! # comment
//! ACTION [read|write|rw] [when always|unsupported] MSR… [except MSR…]
//! ```

use super::Action;
use super::Entry;
use super::Policy;
use super::When;
use crate::error::Error;
use crate::error::Result;
use crate::filter::Flags;
use crate::filter::Place;
use crate::filter::msrs;
use crate::filter::text::Word;
use crate::filter::text::words;
use crate::number::parse_u64;

const ACTIONS: &str = "allow, gp, exit, ignore, constant=VALUE, mask=BITS or match=BITS";

impl Policy {
    /// Parses rules: an action, `read`, `write` or `rw`, `when always` or `when unsupported`, MSRs
    /// by index, name or `first-last`, and after `except` those that are left out. `#` starts a
    /// comment. An empty text is a policy without rules.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with line and column.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut entries = Vec::new();

        for (number, line) in (1..).zip(text.lines()) {
            if let Some((first, rest)) = words(line).split_first() {
                let line = Line { number };

                entries.push(line.entry(*first, rest)?);
            }
        }
        Ok(Policy { entries })
    }
}

struct Line {
    number: usize,
}

impl Line {
    fn mistake(&self, column: usize, what: &str) -> Error {
        Error::Input(format!("line {}, column {column}: {what}", self.number))
    }

    fn entry(&self, first: Word<'_>, rest: &[Word<'_>]) -> Result<Entry> {
        let action = action(first.1).map_err(|what| self.mistake(first.0, &what))?;
        let mut access = Flags(0);
        let mut when = None;
        let (mut named, mut left_out) = (Vec::new(), Vec::new());
        let mut excepting = None;
        let mut words = rest.iter().copied();

        while let Some((column, word)) = words.next() {
            let kind = match word {
                "read" | "r" => Some(Flags::READ),
                "write" | "w" => Some(Flags::WRITE),
                "rw" => Some(Flags::BOTH),
                _ => None,
            };
            let at_start = named.is_empty() && excepting.is_none();

            match (kind, word) {
                (Some(kind), _) if at_start => access.0 |= kind.0,
                (None, "when") if at_start => {
                    let said = words.next().and_then(|(_, word)| time(word));

                    if when.is_some() {
                        return Err(self.mistake(column, "there already is a 'when'"));
                    }
                    when = Some(said.ok_or_else(|| {
                        self.mistake(column, "write 'when always' or 'when unsupported'")
                    })?);
                }
                (Some(_), _) | (None, "when") => {
                    return Err(self.mistake(
                        column,
                        &format!("'{word}' must come before the MSRs; use another line for others"),
                    ));
                }
                (None, "except") => {
                    if excepting.replace(column).is_some() {
                        return Err(self.mistake(column, "there already is an 'except'"));
                    }
                }
                (None, word) => {
                    let msrs = msrs::parse(word)
                        .map_err(|error| self.mistake(column, &error.to_string()))?;

                    if excepting.is_some() {
                        left_out.extend(msrs.iter());
                    } else {
                        named.extend(msrs.iter());
                    }
                }
            }
        }
        if let Some(column) = excepting
            && left_out.is_empty()
        {
            return Err(self.mistake(column, "except what? Name the MSRs to leave out"));
        }
        let end = rest.last().map_or(first, |&last| last);
        let end = end.0 + end.1.chars().count();

        Entry::new(
            Place::Line(self.number),
            action,
            access,
            when.unwrap_or_default(),
            &named.into_iter().collect(),
            &left_out.into_iter().collect(),
        )
        .map_err(|what| self.mistake(excepting.unwrap_or(end), &what))
    }
}

fn time(word: &str) -> Option<When> {
    match word {
        "always" => Some(When::Always),
        "unsupported" => Some(When::Unsupported),
        _ => None,
    }
}

/// Parses an action, e.g. `gp` or `constant=0x10`.
fn action(word: &str) -> Result<Action, String> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let plain = match name {
        "allow" => Some(Action::Allow),
        "gp" => Some(Action::Gp),
        "exit" => Some(Action::Exit),
        "ignore" => Some(Action::Ignore),
        _ => None,
    };
    let valued: Option<fn(u64) -> Action> = match name {
        "constant" => Some(Action::Constant),
        "mask" => Some(Action::Mask),
        "match" => Some(Action::Match),
        _ => None,
    };

    match (plain, valued, value) {
        (Some(action), _, None) => Ok(action),
        (Some(_), _, Some(_)) => Err(format!("{name} has no value: remove '=' and the value")),
        (_, Some(action), Some(value)) => {
            Ok(action(parse_u64(value).map_err(|error| error.to_string())?))
        }
        (_, Some(_), None) => Err(format!("{name} needs a value: write e.g. {name}=0x1")),
        (None, None, _) if matches!(name, "default" | "deny") => Err(format!(
            "'{name}' is of a filter's rules: 'kvmsr policy compile' makes a policy from them"
        )),
        (None, None, _) => Err(format!("'{name}' is no action: start with {ACTIONS}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::Access;

    #[test]
    fn a_rule_is_a_line() {
        let policy = Policy::from_text(
            "# for an old guest\n\
             \n\
             ignore when unsupported 0x0-0xff, 0x200 # unknown ones\n\
             constant=0x10 read IA32_PLATFORM_ID\n\
             mask=0b11 0x1a0\n\
             exit r w when always 0x4b564d00-0x4b564dff except 0x4b564d01\n",
        )
        .unwrap();

        policy.check().unwrap();
        assert_eq!(
            policy.to_string(),
            "ignore rw when unsupported 0x0-0xff 0x200\n\
             constant=0x10 read 0x17\n\
             mask=0x3 write 0x1a0\n\
             exit rw 0x4b564d00 0x4b564d02-0x4b564dff\n"
        );
        assert_eq!(policy.rules().len(), 6);
        assert_eq!(policy.place(1), Some(Place::Line(3)));
        assert_eq!(policy.place(5), Some(Place::Line(6)));
        assert_eq!(policy.place(6), None);
        assert!(policy.deciding(When::Always, Access::Read, 0x1a0).is_none());
        assert!(Policy::from_text("# none\n").unwrap().rules().is_empty());
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, place) in [
            (
                "deny 0x10",
                "line 1, column 1: 'deny' is of a filter's rules",
            ),
            ("drop 0x10", "line 1, column 1: 'drop' is no action"),
            ("gp=1 0x10", "line 1, column 1: gp has no value"),
            ("\n mask 0x10", "line 2, column 2: mask needs a value"),
            ("mask=x 0x10", "line 1, column 1: 'x' is not a number"),
            ("gp", "line 1, column 3: gp for which MSRs?"),
            ("gp when", "line 1, column 4: write 'when always'"),
            ("gp when 0x10", "line 1, column 4: write 'when always'"),
            (
                "gp when always when always 1",
                "line 1, column 16: there already is a 'when'",
            ),
            ("gp 0x10 read", "line 1, column 9: 'read' must come before"),
            ("gp 0x10 when always", "line 1, column 9: 'when' must"),
            ("gp 0x1x", "line 1, column 4: "),
            ("gp 0x20-0x10", "line 1, column 4: "),
            ("gp 0x10 except", "line 1, column 9: except what?"),
            ("gp 0x10 except 0x11", "line 1, column 9: 0x11 is not"),
            ("gp 0x10 except 0x10", "line 1, column 9: the rule has no"),
        ] {
            let error = Policy::from_text(text).unwrap_err().to_string();

            assert!(error.starts_with(place), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn text_is_read_as_it_is_written(
            lines in prop::collection::vec(
                (0usize..7, any::<u64>(), 1u32..4, any::<bool>(), any::<u32>(), 0u32..99), 0..20)
        ) {
            let entries = (1..).zip(lines).map(|(number, (action, value, access, always, first, more))| Entry {
                place: Place::Line(number),
                msrs: crate::filter::Run { first, last: first.saturating_add(more) }.into(),
                access: Flags(access),
                when: if always { When::Always } else { When::Unsupported },
                action: [
                    Action::Allow,
                    Action::Gp,
                    Action::Exit,
                    Action::Ignore,
                    Action::Constant(value),
                    Action::Mask(value),
                    Action::Match(value),
                ][action],
            });
            let policy = Policy { entries: entries.collect() };

            prop_assert_eq!(Policy::from_text(&policy.to_string()).unwrap(), policy);
        }

        #[test]
        fn nothing_panics(text in "((gp|allow|mask|=|0x10|-|read|when|except|unsupported|#|,|\n| ){0,30}|\\PC*)") {
            if let Ok(policy) = Policy::from_text(&text) {
                let _ = policy.check();
            }
        }
    }
}
