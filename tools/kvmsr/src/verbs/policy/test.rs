// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr policy test`

use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use anyhow::bail;
use kvmsr::filter::parse_accesses;
use kvmsr::policy::ActionName;
use kvmsr::policy::PolicyTestReport;
use kvmsr::policy::TestedAccess;
use kvmsr::policy::When;

use crate::output::BAD;
use crate::output::GOOD;
use crate::output::Output;
use crate::output::styled;
use crate::output::table;
use crate::verbs::Found;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints what an access does if KVM has the MSR for the vCPU, and if it lacks it. 'allow' means that
KVM decides: for an MSR that it lacks, the guest gets #GP, or the parameter ignore_msrs applies. The
VMM's filter, which comes before the policy, is not considered.

Examples:
  kvmsr policy test policy.txt read:0x10 write:EFER=0xd01
  kvmsr policy test policy.txt read:0x140-0x14f --unsupported --expect ignore

Exit code 1: an action differs from the expected one.")]
pub struct Options {
    /// The policy, as text or JSON; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// read:MSR, write:MSR or write:MSR=VALUE; without any, words from standard input
    #[arg(value_name = "ACCESS")]
    accesses: Vec<String>,
    /// The expected action of all accesses
    #[arg(long, value_enum, value_name = "ACTION")]
    expect: Option<Expected>,
    /// The expected action is for a vCPU for which KVM lacks the MSR
    #[arg(long, requires = "expect")]
    unsupported: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Expected {
    /// KVM decides
    Allow,
    /// #GP
    Gp,
    /// Exit to user space
    Exit,
    /// Reads return 0, writes are dropped
    Ignore,
    /// Reads return a constant, writes are dropped
    Constant,
    /// Writes change only some bits
    Mask,
    /// #GP if a write changes other bits
    Match,
}

impl From<Expected> for ActionName {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Allow => ActionName::Allow,
            Expected::Gp => ActionName::Gp,
            Expected::Exit => ActionName::Exit,
            Expected::Ignore => ActionName::Ignore,
            Expected::Constant => ActionName::Constant,
            Expected::Mask => ActionName::Mask,
            Expected::Match => ActionName::Match,
        }
    }
}

pub fn run(options: &Options, output: &mut Output) -> anyhow::Result<Found> {
    let policy = super::read(&options.file)?;
    let when = if options.unsupported {
        When::Unsupported
    } else {
        When::Always
    };
    let mut accesses = Vec::new();

    for word in words(options)? {
        accesses.extend(parse_accesses(&word)?);
    }
    let expected = options.expect.map(|action| (action.into(), when));
    let report = PolicyTestReport::new(&policy, &accesses, expected)?;

    output.report(&report, print)?;
    Ok(report.is_bad().into())
}

fn words(options: &Options) -> anyhow::Result<Vec<String>> {
    let words = if options.accesses.is_empty() {
        if options.file == Path::new("-") {
            bail!(
                "standard input can't be both the policy and the accesses: name the accesses, e.g. \
                 read:0x10"
            );
        }
        let text = kvmsr::input::read(Path::new("-"))?;

        text.split_whitespace().map(str::to_owned).collect()
    } else {
        options.accesses.clone()
    };

    if words.is_empty() {
        bail!("there is no access to test: use e.g. read:0x10 or write:0x10=1");
    }
    Ok(words)
}

fn print(report: &PolicyTestReport, to: &mut dyn Write) -> io::Result<()> {
    let mut heads = vec!["Access", "MSR", "Name", "If KVM has it", "If KVM lacks it"];

    if report.accesses.iter().any(|tested| tested.met.is_some()) {
        heads.push("Expected");
    }
    let mut rows = table(&heads);

    for tested in &report.accesses {
        rows.add_row(row(tested));
    }
    writeln!(to, "{rows}")
}

fn row(tested: &TestedAccess) -> Vec<String> {
    let value = tested
        .value
        .map(|value| format!("={value}"))
        .unwrap_or_default();
    let mut row = vec![
        tested.access.to_string(),
        format!("{}{value}", tested.index),
        tested.name.clone().unwrap_or_default(),
        tested.supported.to_string(),
        tested.unsupported.to_string(),
    ];

    row.extend(tested.met.map(|met| {
        if met {
            styled(GOOD, "yes")
        } else {
            styled(BAD, "no")
        }
    }));
    row
}
