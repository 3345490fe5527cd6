// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr get`

use std::io;
use std::io::Write;

use kvmsr::access::GetReport;
use kvmsr::access::Got;
use kvmsr::catalogue;
use kvmsr::number::Bits;
use kvmsr::number::Hex;
use kvmsr::running::VmGetReport;
use kvmsr::snapshot::SCHEMA;

use crate::Common;
use crate::output;
use crate::output::BAD;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;
use crate::verbs::vcpu::AccessOptions;
use crate::verbs::vcpu::MsrOptions;
use crate::verbs::vm::RunningOptions;

/// The first part of the help.
pub const ABOUT: &str = "Reads MSRs of a new scratch vCPU, which has its reset values.\n\n\
    With --vm, it reads MSRs of a running VM that kvm-msr.ko serves instead, in one call. Without it, \
    no other VM is read: KVM lets only a VMM read its VMs' MSRs.";

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
                  kvmsr get 0x277                        IA32_PAT after reset\n  \
                  kvmsr get 0x1b -f 35:12 --irqchip      bits 35 to 12 of IA32_APIC_BASE\n  \
                  kvmsr get 0x480-0x491 --by guest       what a guest reads\n  \
                  kvmsr get --from list.txt --raw        values of many MSRs, one per line\n  \
                  kvmsr get --vm 4711 0xc0000080         EFER of the first vCPU of QEMU's VM\n\n\
                  Exit code: 0 all were read; 1 some were refused; 2 error.")]
pub struct Options {
    #[command(flatten)]
    msrs: MsrOptions,
    #[command(flatten)]
    access: AccessOptions,
    #[command(flatten)]
    running: RunningOptions,
    /// Print only these bits, shifted down, e.g. 15:8
    #[arg(short = 'f', long, value_name = "HI:LO")]
    bits: Option<Bits>,
    /// Print only the values, one per line, and 'refused' for those that can't be read
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

/// Runs the verb.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let indices = options.msrs.indices()?;

    if options.running.is_chosen() {
        return of_vm(options, &indices, output);
    }
    let access = &options.access;
    let report = access.with(common, |session| {
        let read = session.read(access.by(), &indices)?;

        Ok(GetReport {
            schema: SCHEMA,
            by: access.by(),
            cpu: access.vcpu.cpu.cpu.clone(),
            irqchip: access.vcpu.irqchip,
            after_run: access.after_run,
            bits: options.bits.map(|bits| bits.to_string()),
            msrs: indices
                .iter()
                .zip(read)
                .map(|(&index, read)| {
                    let value = read.as_ref().ok().copied();

                    Got {
                        index: Hex(index),
                        name: catalogue::name(index, session.vendor()),
                        value: value.map(Hex),
                        field: value
                            .zip(options.bits)
                            .map(|(value, bits)| Hex(bits.of(value))),
                        refused: read.err(),
                    }
                })
                .collect(),
        })
    })?;

    output.report(&report, |report, to| {
        if options.raw {
            raw(report, to)
        } else {
            text(report, to)
        }
    })?;
    Ok(report.msrs.iter().any(|msr| msr.refused.is_some()).into())
}

/// Reads MSRs of a running VM.
fn of_vm(options: &Options, indices: &[u32], output: &mut Output) -> anyhow::Result<Found> {
    let report = options
        .running
        .with(options.access.by(), |vcpu| vcpu.get(indices, options.bits))?;

    output.report(&report, |report, to| {
        if options.raw {
            vm_raw(report, to)
        } else {
            vm_text(report, to)
        }
    })?;
    Ok(report.msrs.iter().any(|msr| msr.refused.is_some()).into())
}

fn vm_raw(report: &VmGetReport, to: &mut dyn Write) -> io::Result<()> {
    for msr in &report.msrs {
        match msr.field.or(msr.value) {
            Some(value) => writeln!(to, "{value}")?,
            None => writeln!(to, "refused")?,
        }
    }
    Ok(())
}

fn vm_text(report: &VmGetReport, to: &mut dyn Write) -> io::Result<()> {
    let mut table = output::table(&["Index", "Name", &heading(report.bits.as_ref())]);

    for msr in &report.msrs {
        table.add_row([
            msr.index.to_string(),
            msr.name.clone().unwrap_or_default(),
            match (msr.refused, msr.field.or(msr.value)) {
                (Some(refused), _) => styled(BAD, refused),
                (None, Some(value)) => value.to_string(),
                (None, None) => String::new(),
            },
        ]);
    }
    writeln!(to, "{table}")
}

fn heading(bits: Option<&String>) -> String {
    match bits {
        Some(bits) => format!("Bits {bits}"),
        None => "Value".to_owned(),
    }
}

fn raw(report: &GetReport, to: &mut dyn Write) -> io::Result<()> {
    for msr in &report.msrs {
        match msr.field.or(msr.value) {
            Some(value) => writeln!(to, "{value}")?,
            None => writeln!(to, "refused")?,
        }
    }
    Ok(())
}

fn text(report: &GetReport, to: &mut dyn Write) -> io::Result<()> {
    let mut table = output::table(&["Index", "Name", &heading(report.bits.as_ref())]);

    for msr in &report.msrs {
        table.add_row([
            msr.index.to_string(),
            msr.name.clone().unwrap_or_default(),
            match (&msr.refused, msr.field.or(msr.value)) {
                (Some(refused), _) => styled(BAD, refused),
                (None, Some(value)) => value.to_string(),
                (None, None) => String::new(),
            },
        ]);
    }
    writeln!(to, "{table}")
}
