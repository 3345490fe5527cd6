// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr filter test`

use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use kvmsr::filter;
use kvmsr::filter::Accesses;
use kvmsr::filter::Filter;
use kvmsr::filter::Source;
use kvmsr::filter::TestReport;
use kvmsr::filter::Tested;
use kvmsr::filter::Verdict;
use kvmsr::filter::parse_accesses;

use crate::Common;
use crate::output::BAD;
use crate::output::GOOD;
use crate::output::Output;
use crate::output::styled;
use crate::output::table;
use crate::verbs::Found;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kvmsr filter test rules.txt read:0x10 write:EFER=0xd01
  kvmsr filter test filter.json read:0x200-0x20f --expect allow
  kvmsr filter test filter.json --on-kvm < accesses.txt

Exit code 1: a verdict differs from the expected one, or from KVM's.")]
pub struct Options {
    /// A filter or rules; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// read:MSR, write:MSR or write:MSR=VALUE; without any, words from standard input
    #[arg(value_name = "ACCESS")]
    accesses: Vec<String>,
    /// The expected verdict of all accesses
    #[arg(long, value_enum, value_name = "VERDICT")]
    expect: Option<Expected>,
    /// Set the filter on a scratch VM, and have its guest make each access
    #[arg(long)]
    on_kvm: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Expected {
    /// Allowed
    Allow,
    /// Denied
    Deny,
}

pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let source = super::read(&options.file)?;
    let filter = filter(&source).with_context(|| super::name(&options.file))?;
    let accesses = accesses(options)?;
    let wanted = options.expect.map(|expected| match expected {
        Expected::Allow => Verdict::Allow,
        Expected::Deny => Verdict::Deny,
    });
    let mut report = TestReport::new(&source, &filter, &accesses, wanted)?;

    if options.on_kvm {
        let kvm = kvmsr::scratch::open(&common.device)?;

        filter::prove(&kvm, &filter, &mut report)?;
    }
    output.report(&report, print)?;
    Ok(Found::from(report.is_bad()))
}

/// Converts the source to a filter for KVM.
fn filter(source: &Source) -> anyhow::Result<Filter> {
    let policy = source.policy()?;

    Ok(match source {
        Source::Rules(rules) => filter::compile_rules(rules, &policy)?,
        Source::Filter(filter) => filter.clone(),
    })
}

fn accesses(options: &Options) -> anyhow::Result<Vec<Accesses>> {
    let words = if options.accesses.is_empty() {
        if options.file == Path::new("-") {
            bail!(
                "standard input can't be both the filter and the accesses: name the \
                 accesses, e.g. read:0x10"
            );
        }
        let text = kvmsr::input::read(Path::new("-"))?;

        text.split_whitespace().map(str::to_owned).collect()
    } else {
        options.accesses.clone()
    };
    let mut accesses = Vec::new();

    if words.is_empty() {
        bail!("there is no access to test: use e.g. read:0x10 or write:0x10=1");
    }
    for word in &words {
        accesses.extend(parse_accesses(word)?);
    }
    Ok(accesses)
}

fn print(report: &TestReport, to: &mut dyn Write) -> io::Result<()> {
    let is_proven = report.accesses.iter().any(|tested| tested.on_kvm.is_some());
    let mut heads = vec!["Access", "MSR", "Name", "Verdict", "By"];

    if is_proven {
        heads.push("On KVM");
    }
    let mut rows = table(&heads);

    for tested in &report.accesses {
        rows.add_row(row(tested));
    }
    writeln!(to, "{rows}")
}

fn row(tested: &Tested) -> Vec<String> {
    let value = tested
        .value
        .map(|value| format!("={value}"))
        .unwrap_or_default();
    let style = match tested.verdict {
        Verdict::Allow => GOOD,
        Verdict::Deny => BAD,
    };
    let verdict = match tested.wanted {
        Some(wanted) if !wanted.met => format!("{}, not {}", tested.verdict, wanted.verdict),
        _ => tested.verdict.to_string(),
    };
    let mut row = vec![
        tested.access.to_string(),
        format!("{}{value}", tested.index),
        tested.name.clone().unwrap_or_default(),
        styled(style, verdict),
        tested.by.to_string(),
    ];

    if let Some(proof) = &tested.on_kvm {
        row.push(if proof.agrees(tested.verdict) {
            proof.outcome.clone()
        } else {
            styled(BAD, format_args!("{}: DIFFERS", proof.outcome))
        });
    }
    row
}
