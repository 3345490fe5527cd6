// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr policy compile`, and `kvmsr filter compile --policy`

use std::path::PathBuf;

use anyhow::Context;
use kvmsr::filter::Source;
use kvmsr::policy::Action;
use kvmsr::policy::Policy;
use kvmsr::policy::PolicyFile;

use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::filter;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kvmsr policy compile learned.json > policy.txt     allow what the guest accessed
  kvmsr policy compile rules.txt --denied ignore     as the filter, without #GP")]
pub struct Options {
    /// A filter, its rules, or what 'kvmsr learn' wrote; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What accesses do that the filter denies
    #[arg(long, value_enum, default_value_t, value_name = "ACTION")]
    denied: Denied,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Denied {
    /// The guest gets #GP
    #[default]
    Gp,
    /// Exit to user space
    Exit,
    /// Reads return 0, writes are dropped
    Ignore,
}

pub fn run(options: &Options, output: &mut Output) -> anyhow::Result<Found> {
    let source = filter::read(&options.file)?;
    let of_filter = source
        .policy()
        .with_context(|| filter::name(&options.file))?;
    let denied = match options.denied {
        Denied::Gp => Action::Gp,
        Denied::Exit => Action::Exit,
        Denied::Ignore => Action::Ignore,
    };

    print(&source, &Policy::from_filter(&of_filter, denied), output)?;
    Ok(Found::Nothing)
}

/// Prints the policy that was made from a file.
pub fn print(source: &Source, policy: &Policy, output: &mut Output) -> anyhow::Result<()> {
    policy.check()?;
    if let Source::Rules(rules) = source {
        for note in &rules.notes {
            output.note(note);
        }
    }
    output.report(&PolicyFile::new(policy), |_, to| write!(to, "{policy}"))
}
