// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr check`

use std::io;
use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use kvmsr::check;
use kvmsr::check::Entry;
use kvmsr::check::Reason;
use kvmsr::check::Report;
use kvmsr::check::Verdict;
use kvmsr::formats;
use kvmsr::scratch;

use crate::Common;
use crate::output::BAD;
use crate::output::DIM;
use crate::output::GOOD;
use crate::output::ODD;
use crate::output::Output;
use crate::output::styled;
use crate::output::table;
use crate::verbs::Found;
use crate::verbs::vcpu::CpuOption;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kvmsr check guest.json                can this guest be restored here?
  kvmsr check guest.json --cpu host     on a vCPU with all features that KVM supports here
  kvmsr check guest.json --after-run    on a vCPU that has run, as after a reset

Only scratch VMs are changed. Exit code 1: an MSR is refused, or silently changed.")]
pub struct Options {
    /// A snapshot or profile of kvmsr, or a CPU template, fingerprint or profile of a VMM
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The vCPU's CPUID: file (the file's CPUID if KVM accepts it, else as host), host (all that
    /// KVM supports here), none, no-pmu, other-vendor, or another file that has one (a snapshot of
    /// kvmsr, or the output of 'cpuid -r')
    #[arg(long, value_name = "PRESET|FILE", default_value = "file")]
    cpu: String,
    /// Restore on a vCPU that has run: then feature MSRs can't change
    #[arg(long)]
    after_run: bool,
    /// Also list MSRs that are fine
    #[arg(long)]
    all: bool,
}

/// Runs the verb.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let file = formats::read(&options.file)?;
    let kvm = scratch::open(&common.device)?;
    let cpuid = match options.cpu.as_str() {
        "file" => None,
        name => {
            let cpu = name.to_owned();
            let option = CpuOption { cpu: cpu.clone() };

            Some((cpu, option.cpuid(&kvm)?))
        }
    };
    if file.msrs.is_empty() && file.cpuid.0.is_empty() && file.cpuid_modifiers.registers.is_empty()
    {
        bail!(
            "{} has no MSRs: use a snapshot, a template, or the MSR file of a \
             profile",
            options.file.display()
        );
    }
    let report = check::check(
        &kvm,
        &file,
        &check::Options {
            cpuid,
            after_run: options.after_run,
        },
    )?;
    let all = options.all;
    let coloured = output.colour();

    output.report(&report, |report, to| text(report, all, coloured, to))?;
    Ok((report.refused + report.changed != 0).into())
}

fn text(report: &Report, all: bool, coloured: bool, to: &mut dyn Write) -> io::Result<()> {
    let mut shown: Vec<_> = report
        .msrs
        .iter()
        .filter(|entry| all || entry.verdict != Verdict::Fine)
        .collect();
    let mut unknown: Vec<_> = shown
        .iter()
        .filter(|entry| is_unknown(entry))
        .map(|entry| entry.index.0)
        .collect();

    if all || unknown.len() <= UNKNOWN {
        unknown.clear();
    } else {
        shown.retain(|entry| !is_unknown(entry));
    }

    if !shown.is_empty() {
        let mut table = table(&["MSR", "Name", "Value", "Verdict", "Why"]);

        for entry in shown {
            table.add_row(row(entry, coloured));
        }
        writeln!(to, "{table}\n")?;
    }
    if !unknown.is_empty() {
        writeln!(
            to,
            "{} are unknown here (--all lists them one by one): {}\n",
            unknown.len(),
            ranges(unknown)
        )?;
    }
    for note in &report.vcpu.notes {
        writeln!(to, "{note}.")?;
    }
    if report.order.is_some() {
        writeln!(to, "{}\n", working_order(report))?;
    }
    writeln!(
        to,
        "{}: {}, {}, {} (on a vCPU with the CPUID of the {}{})",
        match report.msrs.len() {
            1 => "1 MSR".to_owned(),
            count => format!("{count} MSRs"),
        },
        styled(GOOD, format_args!("{} fine", report.fine)),
        counted(report.refused, "refused", BAD),
        counted(report.changed, "silently changed", ODD),
        report.vcpu.cpuid,
        if report.vcpu.after_run {
            ", after it ran"
        } else {
            ""
        },
    )
}

/// From this number of unknown MSRs on, they are summarised.
const UNKNOWN: usize = 16;

fn is_unknown(entry: &Entry) -> bool {
    matches!(entry.reasons[..], [Reason::Unknown { .. }])
}

/// Indices as ranges: `0x10-0x12, 0x20`.
fn ranges(mut indices: Vec<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();

    indices.sort_unstable();
    for index in indices {
        match ranges.last_mut() {
            Some((_, last)) if index == last.wrapping_add(1) => *last = index,
            _ => ranges.push((index, index)),
        }
    }
    let ranges: Vec<_> = ranges
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                format!("{first:#x}")
            } else {
                format!("{first:#x}-{last:#x}")
            }
        })
        .collect();

    ranges.join(", ")
}

fn counted(count: usize, what: &str, style: anstyle::Style) -> String {
    let text = format!("{count} {what}");

    if count == 0 {
        text
    } else {
        styled(style, text)
    }
}

/// A row of the table. Styles are slow to remove, so they are only added if there is colour.
fn row(entry: &Entry, coloured: bool) -> [String; 5] {
    let styled = |style, text: String| {
        if coloured { styled(style, text) } else { text }
    };
    let why: Vec<_> = entry.reasons.iter().map(ToString::to_string).collect();
    let (style, verdict) = match entry.verdict {
        Verdict::Fine => (GOOD, "fine".to_owned()),
        Verdict::Refused => (BAD, "refused".to_owned()),
        Verdict::Changed => (
            ODD,
            entry
                .reads
                .map_or_else(|| "changed".to_owned(), |reads| format!("becomes {reads}")),
        ),
    };

    [
        entry.index.to_string(),
        entry
            .name
            .clone()
            .unwrap_or_else(|| styled(DIM, "-".to_owned())),
        entry.value.to_string(),
        styled(style, verdict),
        why.join("; "),
    ]
}

/// The entries to move, and their new positions.
fn working_order(report: &Report) -> String {
    let moved: Vec<_> = report
        .msrs
        .iter()
        .filter_map(|entry| match entry.reasons.first() {
            Some(Reason::Order { after: other, .. } | Reason::OverwrittenBy { by: other, .. }) => {
                Some(format!("{} after {other}", entry.index))
            }
            Some(Reason::TooLate { before, .. }) => {
                Some(format!("{} before {before}", entry.index))
            }
            _ => None,
        })
        .collect();

    format!(
        "This order was tried, and works better: {}. --json prints the whole order.",
        moved.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        assert_eq!(ranges(vec![0x12, 0x20, 0x10, 0x11]), "0x10-0x12, 0x20");
        assert_eq!(ranges(vec![u32::MAX, 0]), "0x0, 0xffffffff");
    }
}
