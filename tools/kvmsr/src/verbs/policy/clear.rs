// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr policy clear`

use kvmsr::device::Rights;
use kvmsr::policy::PolicySetReport;
use kvmsr::snapshot::SCHEMA;

use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::vm;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    vm: vm::Options,
}

pub fn run(options: &Options, output: &mut Output) -> anyhow::Result<Found> {
    let vm = options.vm.attach(Rights::POLICY)?;

    vm.set_policy(&[], false)?;
    let report = PolicySetReport {
        schema: SCHEMA,
        rules: 0,
    };

    output.report(&report, |_, to| writeln!(to, "The VM has no policy now."))?;
    Ok(Found::Nothing)
}
