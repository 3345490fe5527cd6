// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr filter`

mod compile;
mod lint;
mod show;
mod test;

use std::path::Path;

use anyhow::Context;
use kvmsr::filter::Source;

use crate::Common;
use crate::output::Output;
use crate::verbs::Found;

// The command line. (A doc comment would replace what the verb is said to do.)
#[derive(Debug, clap::Args)]
#[command(after_long_help = RULES, after_help = "'kvmsr filter --help' tells how rules are written.")]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
}

const RULES: &str = "\
Rules are text, one a line:

  # What a guest may do.
  default deny
  allow IA32_TIME_STAMP_COUNTER
  allow read 0xfe 0x200-0x20f
  allow rw 0xc0000080-0xc0000103 except 0xc0000082

First comes 'allow' or 'deny', then 'read', 'write' or 'rw' (which is meant if nothing is said), then
MSRs by index, name, or as first-last, and after 'except' those of them that are left out. One line
says 'default deny' or 'default allow'. The order of the lines means nothing: two that contradict each
other are an error.

The same as JSON:

  { \"schema\": 1, \"default\": \"deny\", \"rules\": [
      { \"allow\": [\"IA32_TIME_STAMP_COUNTER\"] },
      { \"allow\": [\"0xfe\", \"0x200-0x20f\"], \"access\": [\"read\"], \"comment\": \"MTRRs\" },
      { \"allow\": [\"0xc0000080-0xc0000103\"], \"except\": [\"0xc0000082\"] } ] }

A filter is JSON, as 'kvmsr filter compile --json' prints it; bit 0 of the first byte of a bitmap is
that of the MSR 'base', and 1 allows:

  { \"schema\": 1, \"default\": \"deny\", \"ranges\": [
      { \"flags\": [\"read\", \"write\"], \"base\": \"0x10\", \"nmsrs\": 1, \"bitmap\": \"0100000000000000\" } ] }

Each of the verbs takes any of these three.";

// What to do with a filter.
#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// From rules to the fewest ranges for KVM, as JSON, Rust or C
    Compile(compile::Options),
    /// Who may do what
    Show(show::Options),
    /// What will not do what its author thinks
    Lint(lint::Options),
    /// How accesses are decided, and by what; on KVM if wanted
    Test(test::Options),
}

/// Does it.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    match &options.verb {
        Verb::Compile(options) => compile::run(options, output),
        Verb::Show(options) => show::run(options, output),
        Verb::Lint(options) => lint::run(options, output),
        Verb::Test(options) => test::run(options, common, output),
    }
}

/// Reads rules or a filter from a file.
fn read(file: &Path) -> anyhow::Result<Source> {
    let text = kvmsr::input::read(file)?;

    Source::parse(&text).with_context(|| name(file))
}

/// What to call a file.
fn name(file: &Path) -> String {
    if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}
