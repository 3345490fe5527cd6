// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds the shortest history that still shows a difference.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use crate::history::Action;
use crate::history::History;
use crate::history::Nesting;
use crate::pair::Difference;
use crate::pair::Runner;

/// How long it may take.
const LONGEST: Duration = Duration::from_secs(90);

/// How often a history is run to see whether its difference is always there.
pub const RUNS: u32 = 3;

/// How often a history is run to see its difference again.
pub const REPEATS: u32 = 10;

/// A history with a difference, and how often it was seen.
pub struct Reduced {
    /// The history, without what the difference does not need.
    pub history: History,
    /// The difference.
    pub difference: Difference,
    /// In how many of [`RUNS`] runs it was there.
    pub seen: u32,
}

/// Whether a history differs again, in one of some runs.
pub fn repeats(runner: &Runner<'_>, history: &History) -> Result<bool> {
    for _ in 0..REPEATS {
        if runner.run(history)?.difference.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes steps, and parts of them and of the setup, as long as the sides differ.
pub fn reduce(runner: &Runner<'_>, history: &History, difference: Difference) -> Result<Reduced> {
    let start = Instant::now();
    let mut best = history.clone();
    let mut shown = difference;

    // What follows the difference is not needed. At the end of the history, it is in the state.
    best.steps.truncate(shown.step + 1);
    let mut length = best.steps.len().div_ceil(2);
    while length > 0 {
        let mut at = 0;

        while at < best.steps.len() && start.elapsed() < LONGEST {
            let mut shorter = best.clone();
            let end = (at + length).min(best.steps.len());

            shorter.steps.drain(at..end);
            match runner.run(&shorter)?.difference {
                Some(difference) => (best, shown) = (shorter, difference),
                None => at = end,
            }
        }
        length /= 2;
    }
    for simpler in simpler(&best) {
        if start.elapsed() < LONGEST
            && let Some(difference) = runner.run(&simpler)?.difference
        {
            (best, shown) = (simpler, difference);
        }
    }

    let mut seen = 0;
    for _ in 0..RUNS {
        if let Some(difference) = runner.run(&best)?.difference {
            seen += 1;
            shown = difference;
        }
    }
    Ok(Reduced {
        history: best,
        difference: shown,
        seen,
    })
}

/// Histories with a part less.
fn simpler(history: &History) -> Vec<History> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut History)| {
        let mut simpler = history.clone();

        change(&mut simpler);
        if simpler != *history {
            all.push(simpler);
        }
    };

    with(&|history| history.setup.capabilities.clear());
    with(&|history| history.setup.cpuid.inverted.clear());
    with(&|history| history.setup.irqchip = false);
    for nested in [Nesting::Plain, Nesting::No] {
        with(&|history| history.setup.nested = nested);
    }
    for number in 0..history.steps.len() {
        for part in 0..8 {
            with(&|history| remove_part(&mut history.steps[number].action, part));
        }
    }
    all
}

/// Removes an element of a list.
fn remove_part(action: &mut Action, part: usize) {
    fn remove<T>(list: &mut Vec<T>, part: usize) {
        if list.len() > 1 && part < list.len() {
            list.remove(part);
        }
    }

    match action {
        Action::GetMsrs(list) => remove(list, part),
        Action::SetMsrs(list) => remove(list, part),
        Action::Filter { ranges, .. } => remove(ranges, part),
        Action::Policy(list) => remove(list, part),
        Action::Batch(list) => remove(list, part),
        Action::SetNested { inverted, .. } => remove(inverted, part),
        Action::Together(lists) => {
            for list in lists {
                remove(list, part);
            }
        }
        _ => {}
    }
}
