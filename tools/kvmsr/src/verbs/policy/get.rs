// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr policy get`

use kvmsr::device::Rights;
use kvmsr::policy::Policy;
use kvmsr::policy::PolicyFile;

use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::vm;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
'kvmsr policy set' reads what this prints, with and without --json.

Exit code 1: the VM has no policy.")]
pub struct Options {
    #[command(flatten)]
    vm: vm::Options,
}

pub fn run(options: &Options, output: &mut Output) -> anyhow::Result<Found> {
    let vm = options.vm.attach(Rights::OBSERVE)?;
    let policy = Policy::from_rules(&vm.policy()?);

    output.report(&PolicyFile::new(&policy), |_, to| {
        if policy.entries.is_empty() {
            writeln!(to, "# no rules")
        } else {
            write!(to, "{policy}")
        }
    })?;
    Ok(policy.entries.is_empty().into())
}
