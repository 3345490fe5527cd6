// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How long a verb observes a running VM.

use std::io;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::output::Output;
use crate::verbs::stop::Stop;
use crate::verbs::tracing;
use crate::verbs::tracing::Running;

/// How often to look whether the time is over.
const TICK: Duration = Duration::from_millis(100);

// How long to observe.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Options {
    /// End after this time
    #[arg(long, visible_alias = "for", value_name = "SECONDS",
          value_parser = tracing::parse_seconds, conflicts_with = "command")]
    time: Option<Duration>,
    /// A command to run; end when it ends
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// A time that ends by itself, with a command, or when the user stops it.
pub struct Period {
    stop: Stop,
    end: Option<Duration>,
    command: Option<Running>,
    start: Instant,
}

impl Period {
    /// Starts the time, and the command if there is one.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let stop = Stop::new()?;
        // Standard output is for the result only.
        let command = Running::start(&options.command, || Stdio::from(io::stderr()))?;

        Ok(Period {
            stop,
            end: options.time,
            command,
            start: Instant::now(),
        })
    }

    /// Waits for a moment. Returns whether the time goes on.
    pub fn goes_on(&mut self) -> anyhow::Result<bool> {
        let left = self
            .end
            .map_or(TICK, |end| end.saturating_sub(self.start.elapsed()));
        let ended = match &mut self.command {
            Some(command) => command.has_ended()?,
            None => left.is_zero(),
        };

        if ended || self.stop.requested() {
            return Ok(false);
        }
        thread::sleep(left.min(TICK));
        Ok(true)
    }

    /// The seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Tells how the command ended, if this was not by success.
    pub fn note_end(&mut self, output: &Output) -> anyhow::Result<()> {
        let Some(command) = &mut self.command else {
            return Ok(());
        };
        let end = command.end();

        if !command.has_ended()? {
            output.note(format_args!(
                "'{}' continues as process {}",
                end.program,
                command.pid()
            ));
        } else if end.exit_code != Some(0) {
            output.note(match end.exit_code {
                Some(code) => format!("'{}' exited with {code}", end.program),
                None => format!("a signal ended '{}'", end.program),
            });
        }
        Ok(())
    }
}
