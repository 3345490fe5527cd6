// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr policy set`

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use kvmsr::device::Attached;
use kvmsr::device::Error;
use kvmsr::device::Rights;
use kvmsr::policy::Policy;
use kvmsr::policy::PolicySetReport;
use kvmsr::snapshot::SCHEMA;

use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::filter::name;
use crate::verbs::stop::Stop;
use crate::verbs::vm;

/// How often to look whether the VM still exists.
const TICK: Duration = Duration::from_millis(200);

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Replaces all rules at once. They last until they are replaced or the VM ends. If a rule is wrong,
nothing changes.

Examples:
  kvmsr policy set policy.txt -p 4711
  echo 'ignore when unsupported 0x0-0x7ff' | kvmsr policy set - -p 4711 --hold")]
pub struct Options {
    /// The policy, as text or JSON; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    vm: vm::Options,
    /// Keep the policy only until kvmsr ends, and wait for Ctrl-C
    #[arg(long)]
    hold: bool,
}

pub fn run(options: &Options, output: &mut Output) -> anyhow::Result<Found> {
    let policy = super::read(&options.file)?;
    let vm = options.vm.attach(Rights::POLICY.and(Rights::OBSERVE))?;
    let stop = Stop::new()?;

    set(&vm, &policy, options.hold).with_context(|| name(&options.file))?;
    let report = PolicySetReport {
        schema: SCHEMA,
        rules: policy.rules().len(),
    };

    output.report(&report, |report, to| match report.rules {
        1 => writeln!(to, "The VM has 1 rule now."),
        rules => writeln!(to, "The VM has {rules} rules now."),
    })?;
    if options.hold {
        output.note("the policy lasts until kvmsr ends");
        hold(&vm, &stop)?;
    }
    Ok(Found::Nothing)
}

/// Sets the policy. If the module refuses a rule, the error names its line.
fn set(vm: &Attached, policy: &Policy, until_close: bool) -> kvmsr::Result<()> {
    match vm.set_policy(&policy.rules(), until_close) {
        Err(Error::Rule { number, mistake }) => Err(policy.at(number, &mistake.to_string())),
        result => Ok(result?),
    }
}

/// Waits for a signal, or for the VM's end.
fn hold(vm: &Attached, stop: &Stop) -> anyhow::Result<()> {
    while !stop.requested() {
        match vm.policy() {
            Err(error) if error.is_vm_gone() => break,
            result => result?,
        };
        thread::sleep(TICK);
    }
    Ok(())
}
