// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr list`

use std::fmt::Display;
use std::io;
use std::io::Write;

use anyhow::Context;
use kvmsr::list;
use kvmsr::list::ListReport;
use kvmsr::list::Listed;
use kvmsr::list::Lists;
use kvmsr::list::OneRegs;

use crate::Common;
use crate::output;
use crate::output::BOLD;
use crate::output::ODD;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;
use crate::verbs::vcpu::VcpuOptions;

/// The first part of the help.
pub const ABOUT: &str = "Prints the MSRs that this host's KVM lists, with names and values; all lists, if \
    none is chosen.\n\nThe list of MSRs to save is incomplete: it lacks MTRRs and machine-check \
    banks, which 'kvmsr snapshot' has. KVM_GET_LAPIC has the x2APIC registers.";

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
                  kvmsr list                      all lists\n  \
                  kvmsr list --features           what the host supports\n  \
                  kvmsr list --saved --cpu none   values of a vCPU without CPUID\n\n\
                  Exit code: 0 success; 2 error.")]
pub struct Options {
    /// KVM_GET_MSR_INDEX_LIST: MSRs to save, and emulated MSRs, with values of a new vCPU
    #[arg(long)]
    saved: bool,
    /// KVM_GET_MSR_FEATURE_INDEX_LIST: the host's features, with values of the device
    #[arg(long)]
    features: bool,
    /// KVM_GET_REG_LIST (Linux 6.18), with values of a new vCPU
    #[arg(long)]
    one_regs: bool,
    #[command(flatten)]
    vcpu: VcpuOptions,
}

/// Runs the verb.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let kvm = kvmsr::scratch::open(&common.device)?;
    let setup = options.vcpu.setup(&kvm)?;
    let all = !(options.saved || options.features || options.one_regs);
    let lists = Lists {
        saved: options.saved || all,
        features: options.features || all,
        one_regs: options.one_regs || all,
    };
    let report = list::list(&kvm, &setup, &options.vcpu.cpu.cpu, lists)
        .with_context(|| options.vcpu.what())?;

    output.report(&report, text)?;
    Ok(Found::Nothing)
}

fn text(report: &ListReport, to: &mut dyn Write) -> io::Result<()> {
    let mut lists = Vec::new();

    if let Some(saved) = &report.saved {
        lists.push(msrs("Saved and emulated (KVM_GET_MSR_INDEX_LIST)", saved));
    }
    if let Some(features) = &report.features {
        lists.push(msrs("Features (KVM_GET_MSR_FEATURE_INDEX_LIST)", features));
    }
    if let Some(registers) = &report.one_regs {
        lists.push(one_regs(registers));
    }
    writeln!(to, "{}", lists.join("\n\n"))
}

fn msrs(title: &str, listed: &[Listed]) -> String {
    let mut table = output::table(&["Index", "Name", "Value"]);

    for msr in listed {
        table.add_row([
            msr.index.to_string(),
            msr.name.clone().unwrap_or_default(),
            value(msr.value),
        ]);
    }
    format!("{}: {}\n{table}", styled(BOLD, title), listed.len())
}

fn one_regs(registers: &OneRegs) -> String {
    let title = styled(BOLD, "One-regs (KVM_GET_REG_LIST)");

    if !registers.supported {
        return format!("{title}: this kernel lacks the list, which is in Linux 6.18 and later");
    }
    if registers.registers.is_empty() {
        return format!("{title}: none on this vCPU");
    }
    let mut table = output::table(&["ID", "Name", "Value"]);

    for register in &registers.registers {
        table.add_row([
            register.id.to_string(),
            register.name.clone().unwrap_or_default(),
            value(register.value),
        ]);
    }
    format!("{title}: {}\n{table}", registers.registers.len())
}

fn value(value: Option<impl Display>) -> String {
    match value {
        Some(value) => value.to_string(),
        None => styled(ODD, "listed, but can't be read"),
    }
}
