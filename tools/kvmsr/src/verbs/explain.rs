// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr explain`

use std::io;
use std::io::Write;

use kvmsr::Error;
use kvmsr::catalogue;
use kvmsr::cpuid::Vendor;
use kvmsr::explain;
use kvmsr::explain::Explanation;
use kvmsr::explain::FieldReport;
use kvmsr::explain::Kvm;
use kvmsr::explain::Match;
use kvmsr::explain::Report;
use kvmsr::number::Hex;
use kvmsr::snapshot::SCHEMA;

use crate::Common;
use crate::output;
use crate::output::BOLD;
use crate::output::DIM;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;

// The command line.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Terms: host is user space, by KVM_GET_MSRS, KVM_SET_MSRS, KVM_GET_ONE_REG or KVM_SET_ONE_REG. An \
invalid access fails: the guest gets #GP, or user space KVM_MSR_EXIT_REASON_INVAL. An unknown MSR is \
treated as if it did not exist: the access fails with KVM_MSR_EXIT_REASON_UNKNOWN, unless kvm's \
parameter ignore_msrs is set; if it is in KVM_GET_MSR_INDEX_LIST, the host reads 0, and can write 0. \
A dropped write succeeds without effect.

Examples:
  kvmsr explain 0xc0000080
  kvmsr explain IA32_MC3_CTL ia32_tsc_adjust
  kvmsr explain mtrr              all MSRs with this in their names
  kvmsr explain 0x480-0x491 --json")]
pub struct Options {
    /// Index, name, part of a name, or first-last
    #[arg(required = true, value_name = "MSR")]
    msrs: Vec<String>,
    /// The vendor, if an index has different meanings
    #[arg(long, value_enum)]
    vendor: Option<Vendor>,
}

/// Runs the verb.
pub fn run(options: &Options, _common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let mut report = Report {
        schema: SCHEMA,
        msrs: Vec::new(),
        matches: Vec::new(),
    };

    for text in &options.msrs {
        add(&mut report, text, options)?;
    }
    output.report(&report, print)?;
    Ok(Found::Nothing)
}

fn add(report: &mut Report, text: &str, options: &Options) -> anyhow::Result<()> {
    let vendor = options.vendor;
    let mut explain = |index| report.msrs.push(explain::explain(index, vendor));

    // Text that is neither an index, a name nor a range may be part of a name.
    let is_part = catalogue::index_of(text).is_none()
        && !text.contains(['-', '{'])
        && !text.trim().starts_with(|c: char| c.is_ascii_digit());

    if is_part {
        match catalogue::find(text).as_slice() {
            // The error lists similar names.
            [] => catalogue::parse_indices(text).map(|_| ())?,
            [one] => explain(one.first),
            many => report
                .matches
                .extend(many.iter().map(|&msr| Match::from(msr))),
        }
        return Ok(());
    }
    match catalogue::parse_indices(text)?.as_slice() {
        &[index, ..] if text.contains("{n}") => explain(index),
        &[index] => explain(index),
        many => {
            let known = |index: &u32| {
                catalogue::msr(*index, vendor).is_some() || catalogue::rule(*index).is_declared()
            };
            let mut known = many.iter().copied().filter(known).peekable();

            if known.peek().is_none() {
                return Err(Error::Input(format!("{text} has no known MSR")).into());
            }
            known.for_each(explain);
        }
    }
    Ok(())
}

fn print(report: &Report, to: &mut dyn Write) -> io::Result<()> {
    for (at, msr) in report.msrs.iter().enumerate() {
        if at > 0 {
            writeln!(to)?;
        }
        print_msr(msr, to)?;
    }
    if report.matches.is_empty() {
        return Ok(());
    }
    if !report.msrs.is_empty() {
        writeln!(to)?;
    }
    let mut table = output::table(&["MSR", "Name", "Owner", "Also"]);

    for found in &report.matches {
        let name = match found.count {
            1 => found.name.to_owned(),
            count => format!("{} ({count})", found.name),
        };

        table.add_row([
            found.index.to_string(),
            name,
            found.owner.to_owned(),
            found
                .aliases
                .first()
                .copied()
                .unwrap_or_default()
                .to_owned(),
        ]);
    }
    writeln!(to, "{}", table.trim_fmt())
}

fn print_msr(msr: &Explanation, to: &mut dyn Write) -> io::Result<()> {
    let name = match (&msr.name, msr.kvm.known) {
        (Some(name), _) => name,
        (None, true) => "(no manual defines it)",
        (None, false) => "(unknown)",
    };

    writeln!(to, "{}  {}", styled(BOLD, msr.index), styled(BOLD, name))?;
    line(to, "also", msr.aliases.join(", "))?;
    line(to, "owner", msr.owner.unwrap_or_default())?;
    if let Some(series) = &msr.series {
        line(
            to,
            "one of",
            format_args!(
                "{}, n = 0 to {}: {} + {:#x} * n",
                series.name,
                series.count.saturating_sub(1),
                series.first,
                series.stride
            ),
        )?;
    }
    if !msr.fields.is_empty() {
        writeln!(to)?;
        print_fields(&msr.fields, msr.owner.unwrap_or_default(), to)?;
    }
    writeln!(to, "\n{}", styled(BOLD, "In KVM 7.3"))?;
    print_kvm(&msr.kvm, to)
}

/// The columns are formatted directly, because building a table would take longer than the rest.
fn print_fields(fields: &[FieldReport], owner: &str, to: &mut dyn Write) -> io::Result<()> {
    let width = fields
        .iter()
        .map(|field| field.name.len())
        .max()
        .unwrap_or_default();

    writeln!(to, "  {BOLD}{:<6} Field{BOLD:#}", "Bits")?;
    for field in fields {
        let text = remarks(field, owner);

        if text.is_empty() {
            writeln!(to, "  {:<6} {}", field.bits, field.name)?;
        } else {
            writeln!(to, "  {:<6} {:<width$} {text}", field.bits, field.name)?;
        }
    }
    Ok(())
}

/// The meanings of values, and the CPUs or vendors that have the field if not all do.
fn remarks(field: &FieldReport, owner: &str) -> String {
    let values = field
        .values
        .iter()
        .map(|value| format!("{}={}", value.value.0, value.meaning));
    let mut remarks: Vec<_> = values.collect();

    if field.address {
        remarks.push("address".to_owned());
    }
    let of_owner = (field.owner != owner).then_some(field.owner);

    if of_owner.is_some() || field.variant.is_some() {
        let mut only: Vec<_> = of_owner.into_iter().chain(field.variant).collect();

        only.extend(field.when.as_deref());
        remarks.push(format!("{DIM}only {}{DIM:#}", only.join(", ")));
    }
    remarks.join(", ")
}

fn print_kvm(kvm: &Kvm, to: &mut dyn Write) -> io::Result<()> {
    if !kvm.known {
        line(to, "", "KVM's common code does not know it")?;
    }
    if kvm.known && kvm.first != kvm.last {
        line(
            to,
            "as one of",
            format_args!("{} to {}, from {} on", kvm.first, kvm.last, kvm.name),
        )?;
    }
    line(to, "read", &kvm.read)?;
    line(to, "write", &kvm.write)?;
    for (at, sentence) in kvm.checked.iter().enumerate() {
        line(to, if at == 0 { "checked" } else { "" }, sentence)?;
    }
    let mut bits: Vec<_> = kvm
        .checks
        .iter()
        .flat_map(|check| check.cpuid.iter().map(move |bit| (bit, check.only_with)))
        .collect();

    bits.sort_by_key(|(bit, _)| bit.name);
    bits.dedup_by_key(|(bit, _)| bit.name);
    for (at, (bit, only_with)) in bits.into_iter().enumerate() {
        let condition = only_with
            .map(|capability| format!(", only checked with {capability}"))
            .unwrap_or_default();

        line(
            to,
            if at == 0 { "needs" } else { "" },
            format_args!("{}{condition}", bit.text),
        )?;
    }
    for (mask, host) in [
        (kvm.reserved, ""),
        (kvm.reserved_amd, " on AMD"),
        (kvm.reserved_intel, " on Intel"),
    ] {
        if let Some(Hex(mask)) = mask {
            line(
                to,
                "refused",
                format_args!("any of the bits {mask:#x}{host}"),
            )?;
        }
    }
    line(
        to,
        "lists",
        if kvm.lists.is_empty() {
            "none"
        } else {
            &kvm.lists
        },
    )?;
    if kvm.moves {
        line(to, "value", "changes by itself")?;
    }
    line(
        to,
        "filter",
        if kvm.filtered {
            "KVM_X86_SET_MSR_FILTER can deny it to the guest"
        } else {
            "x2APIC's MSRs are never filtered"
        },
    )
}

/// Prints a line with a name and a text, unless the text is empty.
fn line(to: &mut dyn Write, name: &str, text: impl std::fmt::Display) -> io::Result<()> {
    let text = text.to_string();

    if text.is_empty() {
        return Ok(());
    }
    writeln!(to, "  {DIM}{name:<9}{DIM:#} {text}")
}
