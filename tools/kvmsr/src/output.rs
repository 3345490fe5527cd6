// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Output as text or as JSON, with colour on a terminal only.

use std::fmt;
use std::fmt::Display;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::ops::Deref;
use std::ops::DerefMut;

use anstream::AutoStream;
use anstream::ColorChoice;
use anstream::adapter::strip_bytes;
use anstyle::AnsiColor;
use anstyle::Style;
use comfy_table::ContentArrangement;
use comfy_table::presets;
use serde::Serialize;

use crate::Common;

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl From<Colour> for ColorChoice {
    fn from(colour: Colour) -> Self {
        match colour {
            Colour::Auto => ColorChoice::Auto,
            Colour::Always => ColorChoice::Always,
            Colour::Never => ColorChoice::Never,
        }
    }
}

/// Style of good results.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Style of bad results.
pub const BAD: Style = AnsiColor::Red.on_default();
/// Style of unusual results.
pub const ODD: Style = AnsiColor::Yellow.on_default();
/// Style of less important text.
pub const DIM: Style = Style::new().dimmed();
/// Style of important text.
pub const BOLD: Style = Style::new().bold();

/// `text` in a style. [`Output`] removes the style if there is no colour.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The output of a verb.
pub struct Output {
    json: bool,
    colour: ColorChoice,
    stdout: AutoStream<io::Stdout>,
}

impl Output {
    /// The output that the command line requests.
    pub fn new(common: &Common) -> Self {
        let colour = common.color.into();

        Output {
            json: common.json,
            colour,
            stdout: AutoStream::new(io::stdout(), colour),
        }
    }

    /// Whether the output is JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether the output is coloured.
    pub fn colour(&self) -> bool {
        self.stdout.current_choice() != ColorChoice::Never
    }

    /// Prints a report: as JSON if requested, else with `text`.
    ///
    /// A report is a structure with a `schema` of [`kvmsr::snapshot::SCHEMA`].
    pub fn report<R: Serialize>(
        &mut self,
        report: &R,
        text: impl FnOnce(&R, &mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        if self.json {
            return print(serde_json::to_vec_pretty(report)?);
        }
        // Collected, so that one write is enough.
        let mut bytes = Vec::new();

        text(report, &mut bytes)?;
        if self.stdout.current_choice() == ColorChoice::Never {
            bytes = strip_bytes(&bytes).into_vec();
        }
        let mut stdout = io::stdout().lock();

        stdout.write_all(&bytes)?;
        stdout.flush()?;
        Ok(())
    }

    /// Prints one of many lines of JSON.
    pub fn json_line<R: Serialize>(&mut self, report: &R) -> anyhow::Result<()> {
        print(serde_json::to_vec(report)?)
    }

    /// Prints text that is not a report.
    pub fn text(&mut self, text: impl Display) -> anyhow::Result<()> {
        write!(self.stdout, "{text}")?;
        self.stdout.flush()?;
        Ok(())
    }

    /// Prints a message for people to standard error.
    pub fn note(&self, text: impl Display) {
        let _ = writeln!(AutoStream::new(io::stderr(), self.colour), "kvmsr: {text}");
    }

    /// Prints text to standard error.
    pub fn aside(&self, text: impl Display) {
        let _ = write!(AutoStream::new(io::stderr(), self.colour), "{text}");
    }

    /// Prints an error.
    pub fn error(&self, error: &anyhow::Error) {
        let mut text = error.to_string();

        for cause in error.chain().skip(1).map(ToString::to_string) {
            // Some errors contain their cause.
            if !text.ends_with(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        self.note(format_args!("{} {text}", styled(BAD, "error:")));
    }
}

/// Prints JSON, which has no styles to remove.
fn print(mut line: Vec<u8>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();

    line.push(b'\n');
    stdout.write_all(&line)?;
    stdout.flush()?;
    Ok(())
}

/// A table for people, without trailing blanks.
#[derive(Debug)]
pub struct Table(comfy_table::Table);

impl Deref for Table {
    type Target = comfy_table::Table;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Table {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.trim_fmt())
    }
}

/// A table in columns, without lines; as wide as the terminal if there is one.
pub fn table(heads: &[&str]) -> Table {
    let mut table = comfy_table::Table::new();

    table.load_style(presets::NOTHING);
    // A serial line reports a width of 0.
    let wide = crossterm::terminal::size().is_ok_and(|(width, _)| width >= 40);

    if io::stdout().is_terminal() && wide {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(heads.iter().map(|head| styled(BOLD, head)));
    Table(table)
}

/// Whether the output's reader has closed the pipe, which is not an error.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
