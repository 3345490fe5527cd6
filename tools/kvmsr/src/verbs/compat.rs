// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr compat`

use std::collections::HashSet;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use kvmsr::compat;
use kvmsr::compat::Lost;
use kvmsr::compat::Part;
use kvmsr::compat::Report;
use kvmsr::formats;
use kvmsr::number::Hex;

use crate::Common;
use crate::output;
use crate::output::ODD;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;
use crate::verbs::snapshot;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kvmsr compat host1.json host2.json host3.json -o fleet.json\n  \
                  kvmsr compat host1.json host2.json --format firecracker > template.json\n  \
                  kvmsr compat template.json --format kvmsr\n\nWithout -o, the profile goes to \
                  standard output, and what it leaves out to standard error; --json then prints \
                  both as one document. The profile passes 'kvmsr check' on each of the hosts."
)]
pub struct Options {
    /// Snapshots of hosts, profiles or templates; - is standard input. A single file is converted
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The file to write the profile to
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The format of the profile
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Do not print what the profile leaves out
    #[arg(short, long)]
    quiet: bool,
}

/// Formats of profiles.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Format {
    /// kvmsr's own
    #[default]
    Kvmsr,
    /// A CPU template of Firecracker
    Firecracker,
    /// A fingerprint of Firecracker
    FirecrackerFingerprint,
    /// The MSR file of a CPU profile of cloud-hypervisor
    CloudHypervisor,
    /// The CPUID file of a CPU profile of cloud-hypervisor
    CloudHypervisorCpuid,
}

impl From<Format> for formats::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Kvmsr => formats::Format::Kvmsr,
            Format::Firecracker => formats::Format::Firecracker,
            Format::FirecrackerFingerprint => formats::Format::FirecrackerFingerprint,
            Format::CloudHypervisor => formats::Format::CloudHypervisor,
            Format::CloudHypervisorCpuid => formats::Format::CloudHypervisorCpuid,
        }
    }
}

/// Runs the verb.
pub fn run(options: &Options, _common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let stdin = options
        .files
        .iter()
        .filter(|file| file.as_os_str() == formats::STDIN);

    if stdin.count() > 1 {
        bail!("standard input can be used only once: use files for the others");
    }
    if output.json() && options.output.is_none() && options.format != Format::Kvmsr {
        bail!("--json prints a profile of kvmsr: use -o FILE for another format");
    }
    let files = options
        .files
        .iter()
        .map(|file| Ok((name(file), formats::read(file)?)))
        .collect::<kvmsr::Result<Vec<_>>>()?;
    let report = compat::combine(&files)?;
    let profile = formats::write(options.format.into(), &report.profile)?;

    match &options.output {
        Some(file) => {
            snapshot::write(file, profile.as_bytes())
                .with_context(|| format!("can't write {}", file.display()))?;
            output.report(&report, |report, to| match options.quiet {
                true => Ok(()),
                false => explain(report, to),
            })?;
        }
        None if output.json() => output.report(&report, |_, _| Ok(()))?,
        None => {
            output.text(profile)?;
            if !options.quiet {
                let mut text = Vec::new();

                explain(&report, &mut text)?;
                output.aside(String::from_utf8_lossy(&text));
            }
        }
    }
    Ok(Found::Nothing)
}

fn name(file: &Path) -> String {
    match file.as_os_str() == formats::STDIN {
        true => formats::STDIN_NAME.to_owned(),
        false => file.display().to_string(),
    }
}

fn explain(report: &Report, to: &mut dyn Write) -> io::Result<()> {
    for warning in &report.warnings {
        writeln!(to, "{} {warning}", styled(ODD, "warning:"))?;
    }
    if report.lost.is_empty() {
        return Ok(());
    }
    let mut table = output::table(&["Not from all files", "Bits", "Why", "File"]);

    let again = SaidAgain::new(report);

    for lost in report.lost.iter().filter(|lost| !again.has(lost)) {
        table.add_row([
            what(lost),
            lost.bits.map_or(String::new(), |bits| bits.to_string()),
            why(lost),
            lost.files.join(", "),
        ]);
    }
    writeln!(to, "{table}")
}

fn why(lost: &Lost) -> String {
    match lost.fields.is_empty() {
        true => lost.reason.clone(),
        false => format!("{}: {}", lost.reason, lost.fields.join(", ")),
    }
}

/// Finds losses of the vCPU's MSRs that repeat a loss of a feature MSR, and losses of the list
/// that repeat a loss of the vCPU's MSRs.
struct SaidAgain<'a> {
    msrs: HashSet<(InFiles<'a>, Option<Hex<u64>>, &'a str)>,
    lists: HashSet<InFiles<'a>>,
}

/// An MSR, and the files that cause its loss.
type InFiles<'a> = (Option<Hex<u32>>, &'a [String]);

impl<'a> SaidAgain<'a> {
    fn new(report: &'a Report) -> Self {
        let by = |part| report.lost.iter().filter(move |lost| lost.part == part);

        SaidAgain {
            msrs: by(Part::Msrs)
                .map(|lost| (in_files(lost), lost.bits, &lost.reason[..]))
                .collect(),
            lists: by(Part::Saved).map(in_files).collect(),
        }
    }

    fn has(&self, lost: &Lost) -> bool {
        match lost.part {
            Part::Features => self
                .msrs
                .contains(&(in_files(lost), lost.bits, &lost.reason)),
            Part::Msrs => lost.is_missing() && self.lists.contains(&in_files(lost)),
            Part::Cpuid | Part::Saved => false,
        }
    }
}

fn in_files(lost: &Lost) -> InFiles<'_> {
    (lost.msr, &lost.files)
}

fn what(lost: &Lost) -> String {
    let part = match lost.part {
        Part::Cpuid => "CPUID",
        Part::Saved => "saved",
        Part::Features => "feature",
        Part::Msrs => "MSR",
    };
    let mut words = vec![part.to_owned()];

    if let Some(place) = lost.cpuid {
        words.extend([place.function.to_string(), place.index.to_string()]);
        words.extend(place.register.map(|register| register.to_string()));
    }
    words.extend(lost.msr.map(|index| index.to_string()));
    words.extend(lost.name.clone());
    words.join(" ")
}
