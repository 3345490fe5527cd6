// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr doctor`

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::PathBuf;

use anstyle::Style;
use kvmsr::doctor::Findings;
use kvmsr::doctor::Places;
use kvmsr::doctor::Topic;
use kvmsr::doctor::Verdict;
use kvmsr::doctor::examine;

use crate::Common;
use crate::output::BAD;
use crate::output::BOLD;
use crate::output::DIM;
use crate::output::GOOD;
use crate::output::ODD;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;

// Checks KVM, its modules, tracing, kvm-msr.ko and its device on this machine, who may use them,
// and how to fix what is missing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checks the CPU, the kernel, access to /dev/kvm, KVM's parameters and capabilities, the requirements of
top and log, and kvm-msr.ko with /dev/kvm-msr, and says how to fix what is missing. It changes
nothing: it creates a VM, runs it once and closes it.

Exit code: 0 KVM can be used; 1 something important is missing; 2 error.

Examples:
  kvmsr doctor
  kvmsr doctor --report > report.txt        for a bug report; it contains no secrets
  kvmsr doctor --json | jq '.checks[] | select(.verdict == \"bad\")'")]
pub struct Options {
    /// Add details for a bug report
    #[arg(long)]
    report: bool,
    /// Where tracefs is mounted
    #[arg(long, value_name = "DIR", hide = true)]
    tracefs: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let places = Places {
        device: common.device.clone(),
        tracefs: options.tracefs.clone(),
    };
    let findings = examine(&places, options.report);

    output.report(&findings, text)?;
    Ok(Found::from(!findings.usable))
}

/// The sign of a verdict, and its style.
fn sign(verdict: Verdict, unicode: bool) -> (&'static str, Style) {
    match (verdict, unicode) {
        (Verdict::Good, true) => ("✓", GOOD),
        (Verdict::Good, false) => ("ok ", GOOD),
        (Verdict::Note, true) => ("•", DIM),
        (Verdict::Note, false) => ("-  ", DIM),
        (Verdict::Lacking, true) => ("!", ODD),
        (Verdict::Lacking, false) => ("!  ", ODD),
        (Verdict::Bad, true) => ("✗", BAD),
        (Verdict::Bad, false) => ("BAD", BAD),
    }
}

fn title(topic: Topic) -> &'static str {
    match topic {
        Topic::Machine => "Machine",
        Topic::Kvm => "KVM",
        Topic::Parameters => "Parameters",
        Topic::Tracing => "Tracing",
        Topic::Engine => "Engine",
    }
}

/// Whether the locale has characters other than ASCII.
fn has_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_default()
        .to_ascii_lowercase();

    io::stdout().is_terminal() && (locale.contains("utf-8") || locale.contains("utf8"))
}

fn text(findings: &Findings, to: &mut dyn Write) -> io::Result<()> {
    let unicode = has_unicode();
    let mut topic = None;

    for check in &findings.checks {
        if topic != Some(check.topic) {
            topic = Some(check.topic);
            writeln!(to, "{}", styled(BOLD, title(check.topic)))?;
        }
        let (sign, style) = sign(check.verdict, unicode);

        writeln!(
            to,
            "  {} {}: {}",
            styled(style, sign),
            check.name,
            check.found
        )?;
        if let Some(advice) = &check.advice {
            let arrow = if unicode { "→" } else { ">" };

            writeln!(to, "    {arrow} {advice}")?;
        }
    }
    if let Some(details) = &findings.details {
        writeln!(to, "{}", styled(BOLD, "Details"))?;
        for (name, value) in details {
            writeln!(to, "  {name}: {value}")?;
        }
        for (module, parameters) in &findings.host.parameters {
            for (name, value) in parameters {
                writeln!(to, "  {module}.{name}: {value}")?;
            }
        }
        if let Some(microcode) = &findings.host.microcode {
            writeln!(to, "  microcode: {microcode}")?;
        }
    }
    if findings.usable {
        writeln!(to, "{}", styled(GOOD, "KVM can be used."))
    } else {
        writeln!(to, "{}", styled(BAD, "KVM can't be used."))
    }
}
