// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Histories that reach what others do not.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use crate::coverage::Coverage;
use crate::history::History;
use crate::pair::Runner;

/// Runs for the minimisation of one history.
const RUNS: u32 = 48;

/// Reads histories, one on a line. Lines that start with `#` are comments.
pub fn read(path: &Path) -> Result<Vec<History>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;

    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("{}, line {}", path.display(), number + 1))
        })
        .collect()
}

/// Keeps the histories, and of these the steps, without which something would not be reached.
pub fn minimise(
    runner: &Runner<'_>,
    coverage: &mut Coverage,
    mut histories: Vec<History>,
    mut tell: impl FnMut(usize, usize),
) -> Result<Vec<History>> {
    let total = histories.len();
    let mut kept = Vec::new();

    // Short ones first: what they reach needs no long one.
    histories.sort_by_key(|history| history.steps.len());
    coverage.forget();
    for (number, history) in histories.into_iter().enumerate() {
        let before = coverage.clone_reached();
        coverage.skip();
        runner.run(&history)?;
        let new = coverage.take().to_vec();
        if new.is_empty() {
            continue;
        }
        let after = coverage.clone_reached();
        kept.push(shorten(runner, coverage, history, &before, &new)?);
        coverage.set_reached(after);
        tell(number, total);
    }
    Ok(kept)
}

/// Removes steps, as long as the rest reaches all of `needed`.
fn shorten(
    runner: &Runner<'_>,
    coverage: &mut Coverage,
    mut history: History,
    before: &[bool],
    needed: &[u32],
) -> Result<History> {
    let mut length = history.steps.len().div_ceil(2);
    let mut runs = 0;

    while length > 0 && runs < RUNS {
        let mut at = 0;

        while at < history.steps.len() && runs < RUNS {
            let mut shorter = history.clone();
            let end = (at + length).min(history.steps.len());

            shorter.steps.drain(at..end);
            coverage.set_reached(before.to_vec());
            coverage.skip();
            runner.run(&shorter)?;
            runs += 1;
            coverage.take();
            if needed.iter().all(|&pair| coverage.has(pair)) {
                history = shorter;
            } else {
                at = end;
            }
        }
        length /= 2;
    }
    Ok(history)
}
