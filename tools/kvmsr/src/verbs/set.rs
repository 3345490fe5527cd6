// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr set`

use std::io;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use kvmsr::access::SetReport;
use kvmsr::access::Written;
use kvmsr::arguments;
use kvmsr::input;
use kvmsr::number::Bits;
use kvmsr::number::Hex;
use kvmsr::number::bit_ranges;
use kvmsr::running::VmSetReport;
use kvmsr::snapshot::SCHEMA;

use crate::Common;
use crate::output;
use crate::output::BAD;
use crate::output::GOOD;
use crate::output::ODD;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;
use crate::verbs::vcpu::AccessOptions;
use crate::verbs::vm::RunningOptions;

/// The first part of the help.
pub const ABOUT: &str = "Writes MSRs of a new scratch vCPU, one after the other, reads each back, and \
    prints the result.\n\nWith --vm, it writes MSRs of a running VM that kvm-msr.ko serves instead, \
    in one call. Without it, no other VM is changed.";

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "kvmsr set [OPTIONS] MSR VALUE\n       \
                      kvmsr set [OPTIONS] MSR=VALUE...\n       \
                      kvmsr set [OPTIONS] --from FILE",
    after_help = "Examples:\n  \
                  kvmsr set 0x277 0x0007040600070406     user space sets IA32_PAT\n  \
                  kvmsr set 0x1a0=0 --by guest           a guest writes IA32_MISC_ENABLE\n  \
                  kvmsr set 0xc0000080 1 -f 8            bit 8 of EFER, the others as they are\n  \
                  kvmsr set --irqchip 0x1b=0xfee00d00 0x808=0x20\n  \
                  kvmsr set --from values.txt            lines of MSR VALUE or MSR=VALUE\n  \
                  kvmsr set --vm 4711 --vcpu 1 0x277=6   the second vCPU of QEMU's VM\n\n\
                  Exit code: 0 all were stored; 1 some were refused or ignored; 2 error."
)]
pub struct Options {
    /// An MSR and its value, or any number of MSR=VALUE
    #[arg(value_name = "MSR VALUE|MSR=VALUE", required_unless_present = "from")]
    values: Vec<String>,
    /// Read them from a file, or from standard input (-): MSR VALUE or MSR=VALUE, # for comments
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    access: AccessOptions,
    #[command(flatten)]
    running: RunningOptions,
    /// The values are for these bits, e.g. 15:8; the others do not change
    #[arg(short = 'f', long, value_name = "HI:LO")]
    bits: Option<Bits>,
}

impl Options {
    fn writes(&self) -> anyhow::Result<Vec<(u32, u64)>> {
        let words: Vec<&str> = self.values.iter().map(String::as_str).collect();
        let mut writes = arguments::of_words(&words)?;

        if let Some(path) = &self.from {
            writes.extend(
                arguments::assignments(&input::read(path)?)
                    .with_context(|| path.display().to_string())?,
            );
        }
        if writes.is_empty() {
            bail!("no MSR is given: use MSR VALUE, or MSR=VALUE");
        }
        kvmsr::access::fit(&writes, self.bits)?;
        Ok(writes)
    }
}

/// Runs the verb.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let writes = options.writes()?;

    if options.running.is_chosen() {
        let report = options
            .running
            .with(options.access.by(), |vcpu| vcpu.set(&writes, options.bits))?;

        output.report(&report, vm_text)?;
        return Ok(report
            .msrs
            .iter()
            .any(|msr| msr.refused.is_some() || msr.ignored() != 0)
            .into());
    }
    let access = &options.access;
    let msrs = access.with(common, |session| {
        session.set(access.by(), &writes, options.bits)
    })?;
    let report = SetReport {
        schema: SCHEMA,
        by: access.by(),
        cpu: access.vcpu.cpu.cpu.clone(),
        irqchip: access.vcpu.irqchip,
        after_run: access.after_run,
        msrs,
    };

    output.report(&report, text)?;
    Ok(report.msrs.iter().any(|msr| !msr.is_fine()).into())
}

fn text(report: &SetReport, to: &mut dyn Write) -> io::Result<()> {
    let mut table = output::table(&["Index", "Name", "Before", "Written", "After", "Outcome"]);
    let value = |value: Option<_>| match value {
        Some(value) => format!("{value}"),
        None => "-".to_owned(),
    };

    for msr in &report.msrs {
        table.add_row([
            msr.index.to_string(),
            msr.name.clone().unwrap_or_default(),
            value(msr.before),
            msr.value.to_string(),
            value(msr.after),
            outcome(msr),
        ]);
    }
    writeln!(to, "{table}")
}

fn vm_text(report: &VmSetReport, to: &mut dyn Write) -> io::Result<()> {
    let mut table = output::table(&["Index", "Name", "Before", "Written", "After", "Outcome"]);
    let value =
        |value: Option<Hex<u64>>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());

    for msr in &report.msrs {
        table.add_row([
            msr.index.to_string(),
            msr.name.clone().unwrap_or_default(),
            value(msr.before),
            msr.value.to_string(),
            value(msr.after),
            match (msr.refused, msr.ignored()) {
                (Some(refused), _) => styled(BAD, refused),
                (None, 0) => styled(GOOD, "accepted"),
                (None, ignored) => styled(
                    ODD,
                    format_args!("accepted, but bits {} ignored", bit_ranges(ignored)),
                ),
            },
        ]);
    }
    writeln!(to, "{table}")
}

fn outcome(msr: &Written) -> String {
    if let Some(refused) = &msr.refused {
        styled(BAD, refused)
    } else if msr.ignored.0 != 0 {
        styled(
            ODD,
            format_args!("accepted, but bits {} ignored", bit_ranges(msr.ignored.0)),
        )
    } else if msr.moves {
        styled(GOOD, "accepted; it changes by itself")
    } else if msr.after.is_none() {
        styled(GOOD, "accepted; it can't be read back")
    } else {
        styled(GOOD, "stuck")
    }
}
