// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr policy`

mod clear;
pub mod compile;
mod get;
mod set;
mod test;

use std::path::Path;

use anyhow::Context;
use kvmsr::policy::Policy;

use crate::Common;
use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::filter::name;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_long_help = RULES, after_help = "'kvmsr policy --help' explains how to write rules.")]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
}

const RULES: &str = "\
A policy says what a VM's accesses to MSRs do. It is text, one rule per line:

  # An old guest reads MSRs that KVM lacks.
  ignore when unsupported 0x0-0x7ff 0xc0010000-0xc0010fff
  constant=0x1000000 read IA32_PLATFORM_ID
  mask=0x1 IA32_MISC_ENABLE
  gp 0x4b564d00-0x4b564dff except 0x4b564d01

A rule is an action, then 'read', 'write' or 'rw' (the default), then 'when unsupported' if it is
only for MSRs that KVM lacks for the vCPU, then MSRs by index, name or first-last, and after
'except' MSRs that the rule leaves out. The actions:

  allow            as if there were no rule
  gp               the guest gets #GP
  exit             exit to user space, or #GP if the VMM has not enabled this
  ignore           a read returns 0, a write is dropped
  constant=VALUE   a read returns the value, a write is dropped
  mask=BITS        a write changes only these bits
  match=BITS       a write that changes other bits injects #GP

The VMM's own filter comes first, and what it denies stays denied. Then come the rules, then KVM,
then the rules of 'when unsupported'. Rules must not overlap, nor be for the x2APIC MSRs, which are
0x800-0x8ff.

The same as JSON:

  { \"schema\": 1, \"policy\": [
      { \"action\": \"ignore\", \"when\": \"unsupported\", \"msrs\": [\"0x0-0x7ff\"] },
      { \"action\": \"constant\", \"value\": \"0x1000000\", \"msrs\": [\"IA32_PLATFORM_ID\"],
        \"access\": [\"read\"], \"comment\": \"the bus clock\" } ] }";

// What to do with a policy.
#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Replace a running VM's policy
    Set(set::Options),
    /// Print a running VM's policy
    Get(get::Options),
    /// Remove a running VM's policy
    Clear(clear::Options),
    /// Test what a policy decides; offline
    Test(test::Options),
    /// Make a policy from a filter, its rules, or what 'kvmsr learn' wrote; offline
    Compile(compile::Options),
}

/// Runs the verb.
pub fn run(options: &Options, _common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    match &options.verb {
        Verb::Set(options) => set::run(options, output),
        Verb::Get(options) => get::run(options, output),
        Verb::Clear(options) => clear::run(options, output),
        Verb::Test(options) => test::run(options, output),
        Verb::Compile(options) => compile::run(options, output),
    }
}

/// Reads a policy that the module accepts from a file.
fn read(file: &Path) -> anyhow::Result<Policy> {
    let text = kvmsr::input::read(file)?;

    checked(&text).with_context(|| name(file))
}

fn checked(text: &str) -> kvmsr::Result<Policy> {
    let policy = Policy::parse(text)?;

    policy.check()?;
    Ok(policy)
}
