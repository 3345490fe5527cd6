// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Parses and prints MSRs in rules.

use crate::catalogue;
use crate::error::Error;
use crate::error::Result;
use crate::filter::Run;
use crate::filter::Runs;
use crate::number::parse_u32;

/// Parses MSRs: an index, a name, or the first and the last with `-` between. Unlike
/// [`catalogue::parse_indices`], it does not list them one by one.
pub(crate) fn parse(text: &str) -> Result<Runs> {
    if let Some((first, last)) = text.split_once('-')
        && let (Ok(first), Ok(last)) = (parse_one(first), parse_one(last))
    {
        if first > last {
            return Err(Error::Input(format!(
                "'{text}' ends before it starts: write the lower index first"
            )));
        }
        return Ok(Run { first, last }.into());
    }
    if let Ok(index) = parse_u32(text) {
        return Ok(Run::one(index).into());
    }
    // Ranges of numbers were handled above.
    if let Some((first, last)) = text.split_once('-') {
        parse_one(first)?;
        parse_one(last)?;
    }
    Ok(catalogue::parse_indices(text)?
        .into_iter()
        .map(Run::one)
        .collect())
}

/// Parses one MSR.
fn parse_one(text: &str) -> Result<u32> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return parse_u32(text);
    }
    match catalogue::parse_indices(text)?.as_slice() {
        [index] => Ok(*index),
        _ => Err(Error::Input(format!(
            "'{text}' means several MSRs, so it can't be an end of a range"
        ))),
    }
}

/// Its name, or an empty text.
pub(crate) fn name(index: u32) -> Option<String> {
    catalogue::name(index, None)
}

/// The names of some MSRs for people; only the first if there are many; none if none has a name.
pub(crate) fn names(runs: impl Iterator<Item = Run>) -> Option<String> {
    const SHOWN: usize = 4;
    // People do not read more, and a run may have 2^32 MSRs.
    const LOOKED_AT: usize = 0x3000;
    let mut names = runs
        .flat_map(|run| run.first..=run.last)
        .take(LOOKED_AT)
        .filter_map(name);
    let mut shown: Vec<String> = names.by_ref().take(SHOWN).collect();
    let more = names.count();

    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    (!shown.is_empty()).then(|| shown.join(", "))
}
