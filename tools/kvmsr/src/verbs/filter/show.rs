// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr filter show`

use std::io;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use kvmsr::filter;
use kvmsr::filter::Run;
use kvmsr::filter::ShowReport;
use kvmsr::filter::Verdict;

use crate::output::BAD;
use crate::output::GOOD;
use crate::output::Output;
use crate::output::styled;
use crate::output::table;
use crate::verbs::Found;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A filter or rules; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(options: &Options, output: &mut Output) -> anyhow::Result<Found> {
    let source = super::read(&options.file)?;
    let policy = source
        .policy()
        .with_context(|| super::name(&options.file))?;

    output.report(&filter::show(&policy), print)?;
    Ok(Found::Nothing)
}

fn print(report: &ShowReport, to: &mut dyn Write) -> io::Result<()> {
    let mut msrs = table(&["MSRs", "Read", "Write", "Names"]);

    for shown in &report.msrs {
        let run = Run {
            first: shown.first.0,
            last: shown.last.0,
        };

        msrs.add_row([
            run.to_string(),
            coloured(shown.read),
            coloured(shown.write),
            shown.names.clone().unwrap_or_default(),
        ]);
    }
    msrs.add_row([
        filter::X2APIC.to_string(),
        coloured(Verdict::Allow),
        coloured(Verdict::Allow),
        "x2APIC, which KVM never filters".to_owned(),
    ]);
    msrs.add_row([
        "all others".to_owned(),
        coloured(report.default),
        coloured(report.default),
    ]);
    writeln!(to, "{msrs}")
}

fn coloured(verdict: Verdict) -> String {
    let style = match verdict {
        Verdict::Allow => GOOD,
        Verdict::Deny => BAD,
    };

    styled(style, verdict)
}
