// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr diff`

use std::io;
use std::io::Write;
use std::path::Path;

use anyhow::bail;
use kvmsr::catalogue;
use kvmsr::cpuid::Cpuid;
use kvmsr::diff;
use kvmsr::diff::CpuidRegister;
use kvmsr::diff::Listed;
use kvmsr::diff::Msr;
use kvmsr::diff::Report;
use kvmsr::diff::Scope;
use kvmsr::formats;
use kvmsr::number::Hex;
use kvmsr::number::parse_u64;
use kvmsr::scratch;
use kvmsr::scratch::Scratch;
use kvmsr::scratch::Setup;
use kvmsr::snapshot::SCHEMA;
use kvmsr::snapshot::Snapshot;
use kvmsr::snapshot::Value;

use crate::Common;
use crate::output;
use crate::output::BOLD;
use crate::output::DIM;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kvmsr diff before.json after.json\n  kvmsr diff snapshot.json \
                  --host\n  kvmsr snapshot | kvmsr diff fingerprint.json - --ignore host\n  kvmsr \
                  diff IA32_MISC_ENABLE=0x1 IA32_MISC_ENABLE=0x1801\n\nA file is a snapshot or \
                  profile of kvmsr, a CPU template or fingerprint of Firecracker, or a CPU profile \
                  of cloud-hypervisor."
)]
pub struct Options {
    /// A file, - for standard input, or MSR=VALUE
    #[arg(value_name = "A")]
    a: String,
    /// The other file or value
    #[arg(value_name = "B", required_unless_present = "host")]
    b: Option<String>,
    /// Compare with a new vCPU of this host, as in 'kvmsr snapshot'
    #[arg(long, conflicts_with = "b")]
    host: bool,
    /// Also compare MSRs that change by themselves, e.g. clocks
    #[arg(long)]
    all: bool,
    /// Do not compare this part; can be repeated
    #[arg(long, value_enum, value_name = "PART")]
    ignore: Vec<Part>,
}

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Part {
    /// Where it was taken
    Host,
    /// CPUID
    Cpuid,
    /// MSRs that KVM lists to save, and MSRs that can't be read
    Lists,
    /// Feature MSRs of the host
    Features,
    /// MSRs of the vCPU
    Msrs,
}

impl From<Part> for diff::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Host => diff::Part::Host,
            Part::Cpuid => diff::Part::Cpuid,
            Part::Lists => diff::Part::Lists,
            Part::Features => diff::Part::Features,
            Part::Msrs => diff::Part::Msrs,
        }
    }
}

/// Runs the verb.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    if options.a == formats::STDIN && options.b.as_deref() == Some(formats::STDIN) {
        bail!("standard input can be used only once: use a file for one of the two");
    }
    let a = operand(&options.a)?;
    let (name_b, b) = match &options.b {
        Some(b) => (name(b), operand(b)?),
        None => ("this host", of_this_host(common)?),
    };
    let scope = Scope {
        moving: options.all,
        ignored: options.ignore.iter().copied().map(Into::into).collect(),
    };
    let report = diff::compare((name(&options.a), &a), (name_b, &b), &scope);

    output.report(&report, text)?;
    Ok(Found::from(!report.equal))
}

fn name(operand: &str) -> &str {
    match operand {
        formats::STDIN => formats::STDIN_NAME,
        operand => operand,
    }
}

/// A file or a value. If a file has this name, it is the file.
fn operand(text: &str) -> anyhow::Result<Snapshot> {
    let path = Path::new(text);

    match text.split_once('=') {
        Some((msr, value)) if !path.exists() => {
            let [index] = catalogue::parse_indices(msr)?[..] else {
                bail!("'{msr}' is more than one MSR, but there is only one value");
            };

            Ok(Snapshot {
                schema: SCHEMA,
                msrs: vec![Value {
                    name: catalogue::name(index, None),
                    ..Value::new(index, parse_u64(value)?)
                }],
                ..Default::default()
            })
        }
        _ => Ok(formats::read(path)?),
    }
}

/// A snapshot of a new vCPU, with the CPUID that KVM supports.
fn of_this_host(common: &Common) -> anyhow::Result<Snapshot> {
    let kvm = scratch::open(&common.device)?;
    let setup = Setup {
        cpuid: Cpuid::supported(&kvm)?,
        irqchip: true,
        ..Setup::default()
    };
    let scratch = Scratch::new(&kvm, &setup)?;

    Ok(Snapshot::of_vcpu(&kvm, scratch.vcpu())?)
}

fn text(report: &Report, to: &mut dyn Write) -> io::Result<()> {
    let mut sections = Sections { to, is_first: true };
    let (a, b) = (&report.a, &report.b);

    if report.equal {
        writeln!(sections.to, "{a} and {b} are the same.")?;
        return sections.moving(report.moving);
    }
    if !report.host.is_empty() {
        let mut table = output::table(&["Host", a, b]);

        for fact in &report.host {
            table.add_row([&fact.name, or_none(&fact.a), or_none(&fact.b)]);
        }
        sections.print(&table)?;
    }
    if !report.cpuid.is_empty() {
        let mut table = output::table(&["CPUID", a, b, "Bits"]);

        for register in &report.cpuid {
            table.add_row([
                place(register),
                hex(register.a),
                hex(register.b),
                bits(&register.bits),
            ]);
        }
        sections.print(&table)?;
    }
    sections.list(&format!("Saved only in {a}"), &report.saved.only_a)?;
    sections.list(&format!("Saved only in {b}"), &report.saved.only_b)?;
    sections.list(
        &format!("Unreadable only in {a}"),
        &report.unreadable.only_a,
    )?;
    sections.list(
        &format!("Unreadable only in {b}"),
        &report.unreadable.only_b,
    )?;
    sections.msrs("Feature MSR", a, b, &report.features)?;
    sections.msrs("MSR", a, b, &report.msrs)?;
    sections.moving(report.moving)
}

/// Tables with empty lines in between.
struct Sections<'a> {
    to: &'a mut dyn Write,
    is_first: bool,
}

impl Sections<'_> {
    fn print(&mut self, table: &output::Table) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            writeln!(self.to)?;
        }
        writeln!(self.to, "{table}")
    }

    fn list(&mut self, head: &str, msrs: &[Listed]) -> io::Result<()> {
        if msrs.is_empty() {
            return Ok(());
        }
        let mut table = output::table(&[head, "Name"]);

        for msr in msrs {
            table.add_row([&msr.index.to_string(), msr.name.as_deref().unwrap_or("")]);
        }
        self.print(&table)
    }

    fn msrs(&mut self, head: &str, a: &str, b: &str, msrs: &[Msr]) -> io::Result<()> {
        if msrs.is_empty() {
            return Ok(());
        }
        let mut table = output::table(&[head, a, b]);

        for msr in msrs {
            let name = msr.name.as_deref().unwrap_or("");

            table.add_row([
                styled(BOLD, format_args!("{} {name}", msr.index))
                    .trim()
                    .to_owned(),
                hex(msr.a),
                hex(msr.b),
            ]);
            for field in &msr.fields {
                let name = field.name.as_deref().unwrap_or("of an unknown field");
                let value = |value: Hex<u64>, means: &Option<String>| match means {
                    Some(means) => format!("{value} {means}"),
                    None => value.to_string(),
                };

                table.add_row([
                    format!("  {:<5} {name}", field.bits),
                    value(field.a, &field.a_means),
                    value(field.b, &field.b_means),
                ]);
            }
            if let Some(bits) = msr.given_by_one {
                table.add_row([styled(DIM, format_args!("  bits {bits} in one file only"))]);
            }
        }
        self.print(&table)
    }

    fn moving(&mut self, moving: usize) -> io::Result<()> {
        if moving == 0 {
            return Ok(());
        }
        let msrs = if moving == 1 {
            "One MSR that changes by itself was"
        } else {
            "MSRs that change by themselves were"
        };
        let count = if moving == 1 {
            String::new()
        } else {
            format!("{moving} ")
        };

        writeln!(
            self.to,
            "{}",
            styled(DIM, format_args!("{count}{msrs} not compared (--all)."))
        )
    }
}

fn or_none(text: &Option<String>) -> &String {
    const NONE: &String = &String::new();

    text.as_ref().unwrap_or(NONE)
}

fn hex<T: std::fmt::LowerHex>(value: Option<Hex<T>>) -> String {
    value.map_or(String::from("-"), |value| value.to_string())
}

fn place(register: &CpuidRegister) -> String {
    let index = match register.last_index {
        Some(last) => format!("{}-{last}", register.index),
        None => register.index.to_string(),
    };

    format!("{} {index} {}", register.function, register.register)
}

fn bits(bits: &[u8]) -> String {
    let bits: Vec<String> = bits.iter().map(u8::to_string).collect();

    bits.join(" ")
}
