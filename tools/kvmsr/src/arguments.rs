// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Lists of MSRs and of values, on a command line or in a file.

use crate::catalogue;
use crate::error::Error;
use crate::error::Result;
use crate::number::parse_u64;

/// Parses MSRs: indices, names or ranges, one or several per line; `#` starts a comment.
///
/// # Errors
///
/// [`Error::Input`] with the line that is invalid.
pub fn msrs(text: &str) -> Result<Vec<u32>> {
    let mut msrs = Vec::new();

    if text.trim_start().starts_with(['{', '[']) {
        return Err(Error::Input(
            "this is JSON, but a list of MSRs is expected: one or several per line".to_owned(),
        ));
    }
    for (number, line) in lines(text) {
        for word in line
            .split([' ', '\t', ',', ';'])
            .filter(|word| !word.is_empty())
        {
            msrs.extend(catalogue::parse_indices(word).map_err(|error| at(number, &error))?);
        }
    }
    Ok(msrs)
}

/// Parses values for MSRs: `MSR VALUE`, or one or several `MSR=VALUE` per line; `#` starts a
/// comment.
///
/// # Errors
///
/// [`Error::Input`] with the line that is invalid.
pub fn assignments(text: &str) -> Result<Vec<(u32, u64)>> {
    let mut all = Vec::new();

    for (number, line) in lines(text) {
        let words: Vec<&str> = line.split_whitespace().collect();

        all.extend(of_words(&words).map_err(|error| at(number, &error))?);
    }
    Ok(all)
}

/// Parses values for MSRs from the words of a line or command line, see [`assignments`].
///
/// # Errors
///
/// [`Error::Input`] if they are invalid.
pub fn of_words(words: &[&str]) -> Result<Vec<(u32, u64)>> {
    let pairs: Vec<(&str, &str)> = match words {
        [msr, value] if !msr.contains('=') && !value.contains('=') => vec![(*msr, *value)],
        _ => words
            .iter()
            .map(|word| {
                word.split_once('=').ok_or_else(|| {
                    Error::Input(format!(
                        "'{word}' has no value: write MSR VALUE, or any number of MSR=VALUE"
                    ))
                })
            })
            .collect::<Result<_>>()?,
    };
    let mut all = Vec::new();

    for (msrs, value) in pairs {
        let value = parse_u64(value)?;

        all.extend(
            catalogue::parse_indices(msrs)?
                .into_iter()
                .map(|index| (index, value)),
        );
    }
    Ok(all)
}

/// Lines that are neither empty nor only a comment, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .map(|(number, line)| (number, line.split('#').next().unwrap_or_default().trim()))
        .filter(|(_, line)| !line.is_empty())
}

fn at(line: usize, error: &Error) -> Error {
    Error::Input(format!("line {line}: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(
            msrs("# all\n0x10 17\n\n0x20-0x22, 0x30 # more\n").unwrap(),
            [0x10, 0x11, 0x20, 0x21, 0x22, 0x30]
        );
        assert!(
            msrs("0x10\n0x100000000")
                .unwrap_err()
                .to_string()
                .contains("line 2")
        );
    }

    #[test]
    fn values_are_read() {
        let all = [(0x10, 1), (0x11, 2)];

        assert_eq!(assignments("0x10 1\n0x11 2").unwrap(), all);
        assert_eq!(assignments("0x10=1 0x11=0x2").unwrap(), all);
        for bad in [
            "0x10",
            "0x10 1 2",
            "0x10=",
            "=1",
            "0x10=0x1_0000_0000_0000_0000",
        ] {
            assert!(assignments(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "([0-9a-fx#=, \n]{0,40}|\\PC*)") {
            // A range of all indices is valid, but takes long.
            prop_assume!(!text.contains('-'));
            let _ = msrs(&text);
            let _ = assignments(&text);
        }
    }
}
