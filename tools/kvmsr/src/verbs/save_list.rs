// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr save-list`

use std::io;
use std::io::Write;

use kvmsr::access::By;
use kvmsr::device::Attribute;
use kvmsr::device::Rights;
use kvmsr::running::SaveListReport;

use crate::Common;
use crate::output;
use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::vm;
use crate::verbs::vm::VcpuOfVm;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints every MSR of a vCPU whose state a guest can see, in the order in which to restore them, and
the ioctl that saves it. The VM has to be one that kvm-msr.ko serves. KVM_GET_MSR_INDEX_LIST lacks
some of them, e.g. the MTRRs.

The attributes:
  volatile          it changes by itself, e.g. with time
  write-only        it has no value to save
  fixed after run   restore it before the first KVM_RUN
  side effect       a write does more than to set the value
  guest memory      a write accesses guest memory, so restore memory first
  listed            KVM_GET_MSR_INDEX_LIST has it

Examples:
  kvmsr save-list -p 4711               the first vCPU of QEMU's VM
  kvmsr save-list -p 4711 --unlisted    what KVM_GET_MSR_INDEX_LIST lacks")]
pub struct Options {
    #[command(flatten)]
    vm: vm::Options,
    #[command(flatten)]
    vcpu: VcpuOfVm,
    /// Only MSRs that KVM_GET_MSR_INDEX_LIST lacks
    #[arg(long)]
    unlisted: bool,
}

/// Runs the verb.
pub fn run(options: &Options, _common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let vm = options.vm.attach(Rights::OBSERVE)?;
    let mut report = options.vcpu.of(&vm, By::Ioctl).save_list()?;

    if options.unlisted {
        report
            .msrs
            .retain(|msr| !msr.attributes.contains(&Attribute::Listed));
    }
    output.report(&report, text)?;
    Ok(Found::Nothing)
}

fn text(report: &SaveListReport, to: &mut dyn Write) -> io::Result<()> {
    let mut table = output::table(&["Index", "Name", "Saved by", "Order", "Attributes"]);

    for msr in &report.msrs {
        let attributes: Vec<String> = msr.attributes.iter().map(ToString::to_string).collect();

        table.add_row([
            msr.index.to_string(),
            msr.name.clone().unwrap_or_default(),
            msr.owner.to_string(),
            msr.order.to_string(),
            attributes.join(", "),
        ]);
    }
    writeln!(to, "{table}")?;
    writeln!(to, "{} MSRs", report.msrs.len())
}
