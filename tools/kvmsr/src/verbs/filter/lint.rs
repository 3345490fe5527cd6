// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr filter lint`

use std::io;
use std::io::Write;
use std::path::PathBuf;

use kvmsr::filter;
use kvmsr::filter::Guest;
use kvmsr::filter::LintReport;
use kvmsr::filter::Severity;

use crate::output::BAD;
use crate::output::DIM;
use crate::output::ODD;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kvmsr filter lint rules.txt
  kvmsr filter lint filter.json --guest other

Exit code 1: something was found.")]
pub struct Options {
    /// A filter or rules; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The guest's operating system, whose needs are checked
    #[arg(long, value_enum, default_value_t, value_name = "GUEST")]
    guest: GuestOption,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum GuestOption {
    /// Linux: find denied accesses that Linux does not expect to fail
    #[default]
    Linux,
    /// Anything else
    Other,
}

pub fn run(options: &Options, output: &mut Output) -> anyhow::Result<Found> {
    let source = super::read(&options.file)?;
    let guest = match options.guest {
        GuestOption::Linux => Guest::Linux,
        GuestOption::Other => Guest::Other,
    };
    let report = filter::lint(&source, guest);

    output.report(&report, print)?;
    Ok(Found::from(!report.findings.is_empty()))
}

fn print(report: &LintReport, to: &mut dyn Write) -> io::Result<()> {
    let mut findings = report.findings.iter().peekable();

    while let Some(finding) = findings.next() {
        let style = match finding.severity {
            Severity::Error => BAD,
            Severity::Warning => ODD,
            Severity::Note => DIM,
        };
        let place = finding
            .place
            .as_ref()
            .map(|place| format!("{place}: "))
            .unwrap_or_default();

        writeln!(
            to,
            "{}: {place}{}",
            styled(style, finding.severity),
            finding.what
        )?;
        writeln!(to, "  {}", finding.why)?;
        // Print the advice once for consecutive findings that share it.
        if findings
            .peek()
            .is_none_or(|next| next.advice != finding.advice)
        {
            writeln!(to, "  -> {}", finding.advice)?;
        }
    }
    if report.findings.is_empty() {
        writeln!(to, "nothing found")?;
    }
    Ok(())
}
