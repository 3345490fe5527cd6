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

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_long_help = RULES, after_help = "'kvmsr filter --help' explains how to write rules.")]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
}

const RULES: &str = "\
Rules are text, one per line:

  # What the guest may access.
  default deny
  allow IA32_TIME_STAMP_COUNTER
  allow read 0xfe 0x200-0x20f
  allow rw 0xc0000080-0xc0000103 except 0xc0000082

A rule is 'allow' or 'deny', then 'read', 'write' or 'rw' (the default), then MSRs by index, name or
first-last, and after 'except' MSRs that the rule leaves out. One line is 'default deny' or 'default
allow'. The order of the lines does not matter: rules that contradict each other are an error.

The same rules as JSON:

  { \"schema\": 1, \"default\": \"deny\", \"rules\": [
      { \"allow\": [\"IA32_TIME_STAMP_COUNTER\"] },
      { \"allow\": [\"0xfe\", \"0x200-0x20f\"], \"access\": [\"read\"], \"comment\": \"MTRRs\" },
      { \"allow\": [\"0xc0000080-0xc0000103\"], \"except\": [\"0xc0000082\"] } ] }

A filter is JSON, as 'kvmsr filter compile --json' prints it. Bit 0 of a bitmap's first byte is for the
MSR 'base'; 1 allows:

  { \"schema\": 1, \"default\": \"deny\", \"ranges\": [
      { \"flags\": [\"read\", \"write\"], \"base\": \"0x10\", \"nmsrs\": 1, \"bitmap\": \"0100000000000000\" } ] }

Each verb reads any of these three, and the file that 'kvmsr learn' writes.";

// What to do with a filter.
#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Turn rules into the fewest ranges for KVM, as JSON, Rust or C
    Compile(compile::Options),
    /// Print what is allowed and denied
    Show(show::Options),
    /// Find likely mistakes
    Lint(lint::Options),
    /// Test how accesses are decided; optionally on KVM
    Test(test::Options),
}

/// Runs the verb.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    match &options.verb {
        Verb::Compile(options) => compile::run(options, output),
        Verb::Show(options) => show::run(options, output),
        Verb::Lint(options) => lint::run(options, output),
        Verb::Test(options) => test::run(options, common, output),
    }
}

/// Reads rules or a filter from a file.
pub(super) fn read(file: &Path) -> anyhow::Result<Source> {
    let text = kvmsr::input::read(file)?;

    Source::parse(&text).with_context(|| name(file))
}

/// The name of a file in messages.
pub(super) fn name(file: &Path) -> String {
    if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}
