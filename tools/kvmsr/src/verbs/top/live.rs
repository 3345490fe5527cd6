// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The live table: reads counts, draws and handles keys.

use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use crossterm::event;
use crossterm::event::Event;
use crossterm::event::KeyEventKind;
use kvmsr::trace::Settings;
use ratatui::DefaultTerminal;

use super::Options;
use super::counting::Counting;
use super::screen;
use super::view::Action;
use super::view::View;
use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::stop::Stop;
use crate::verbs::tracing::Running;

/// How often threads are looked up, so that short-lived ones are found.
const TICK: Duration = Duration::from_millis(100);

/// The terminal in the mode for drawing, which is reset when this is dropped. On a panic, the hook
/// of [`ratatui::try_init`] resets it.
struct Screen(DefaultTerminal);

impl Screen {
    fn new() -> anyhow::Result<Self> {
        Ok(Screen(ratatui::try_init().context("set up the terminal")?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Runs the verb.
pub fn run(options: &Options, settings: &Settings, output: &Output) -> anyhow::Result<Found> {
    let stop = Stop::new()?;
    let mut session = Counting::new(options, settings)?;
    let mut command = Running::start(&options.command, Stdio::null)?;
    let mut view = View::new(options.interval);
    let mut screen = Screen::new()?;
    let colour = output.colour();
    let mut looked: Option<Instant> = None;

    while !stop.requested() {
        let more = session.poll()?;

        if let Some(running) = &mut command {
            let end = running.has_ended()?.then(|| running.end());

            if let Some(end) = end {
                view.status = Some(match end.exit_code {
                    Some(code) => format!("'{}' exited with {code}", end.program),
                    None => format!("a signal ended '{}'", end.program),
                });
                command = None;
            }
        }
        if looked.is_none_or(|looked| looked.elapsed() >= view.interval) {
            view.take(session.report()?);
            looked = Some(Instant::now());
        }
        screen
            .0
            .draw(|frame| screen::draw(frame, &mut view, colour))
            .context("draw on the terminal")?;
        if !event::poll(if more { Duration::ZERO } else { TICK }).context("wait for a key")? {
            continue;
        }
        let action = match event::read().context("read a key")? {
            Event::Key(key) if key.kind == KeyEventKind::Press => view.press(key),
            _ => Action::Draw,
        };

        match action {
            Action::Draw => {}
            Action::Refresh => looked = None,
            Action::Reset => {
                session.reset()?;
                view.forget();
                looked = None;
            }
            Action::Quit => break,
        }
    }
    Ok(Found::Nothing)
}
