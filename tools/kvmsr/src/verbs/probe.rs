// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr probe`

use std::io;
use std::io::IsTerminal;
use std::io::Write;

use anyhow::Context;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use kvmsr::number::bit_ranges;
use kvmsr::probe;
use kvmsr::probe::Access;
use kvmsr::probe::CauseKind;
use kvmsr::probe::Need;
use kvmsr::probe::ProbeReport;
use kvmsr::probe::Probed;
use kvmsr::probe::Thoroughness;
use kvmsr::probe::What;
use kvmsr::probe::When;
use kvmsr::probe::Who;

use crate::Common;
use crate::output;
use crate::output::BAD;
use crate::output::BOLD;
use crate::output::DIM;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;
use crate::verbs::vcpu::MsrOptions;
use crate::verbs::vcpu::VcpuOptions;

/// The first part of the help.
pub const ABOUT: &str = "\
Tests what user space and the guest can do with MSRs, before the vCPU has run and after: which MSRs can \
be read and written, which bits are stored, ignored or refused, and why.

Each bit is inverted alone, starting from the current value, on scratch vCPUs. No other VM is changed. \
Bits that would hang the machine are not tried.";

/// For up to this number of MSRs, try each bit with the guest's first instruction by default.
const FEW: usize = 2;

/// For more MSRs than this, try nothing with the guest's first instruction.
const MANY: usize = 256;

/// The columns of the table, and the sections of the details.
const STAGES: [(Who, When, &str); 4] = [
    (
        Who::User,
        When::BeforeRun,
        "User space, before the first run",
    ),
    (Who::User, When::AfterRun, "User space, after a run"),
    (
        Who::Guest,
        When::BeforeRun,
        "Guest, with its first instruction",
    ),
    (Who::Guest, When::AfterRun, "Guest, later"),
];

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
                  kvmsr probe 0x10a                    IA32_ARCH_CAPABILITIES, in detail\n  \
                  kvmsr probe 0x480-0x491              a table of the VMX capabilities\n  \
                  kvmsr probe 0x48 --cpu none          on a vCPU without CPUID\n\n\
                  Exit code: 0 all can be accessed in some way; 1 some can't; 2 error.")]
pub struct Options {
    #[command(flatten)]
    msrs: MsrOptions,
    #[command(flatten)]
    vcpu: VcpuOptions,
    /// Try each bit with the guest's first instruction, too. This needs a vCPU for each bit, and
    /// is the default for one or two MSRs. For up to 256 MSRs, one read and one write are tried;
    /// for more, nothing
    #[arg(long)]
    thorough: bool,
}

/// Runs the verb.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let indices = options.msrs.indices()?;
    let kvm = kvmsr::scratch::open(&common.device)?;
    let setup = options.vcpu.setup(&kvm)?;
    let count = indices.len();
    let thoroughness = if options.thorough || count <= FEW {
        Thoroughness::Thorough
    } else if count <= MANY {
        Thoroughness::Normal
    } else {
        Thoroughness::Quick
    };
    let bar = progress(count);
    let report = probe::probe(
        &kvm,
        &setup,
        &options.vcpu.cpu.cpu,
        &indices,
        thoroughness,
        || bar.inc(1),
    )
    .with_context(|| options.vcpu.what());

    bar.finish_and_clear();
    let report = report?;

    output.report(&report, text)?;
    Ok(report.msrs.iter().any(is_out_of_reach).into())
}

fn progress(count: usize) -> ProgressBar {
    if count <= FEW || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count as u64);
    let template = "{bar:40} {pos} of {len} MSRs, {eta} left";

    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn is_out_of_reach(msr: &Probed) -> bool {
    !STAGES.iter().any(|&(who, when, _)| {
        msr.access(who, when)
            .is_some_and(|access| access.readable || access.writable)
    })
}

fn text(report: &ProbeReport, to: &mut dyn Write) -> io::Result<()> {
    match report.msrs.as_slice() {
        [msr] => details(msr, to),
        msrs => rows(msrs, to),
    }
}

fn rows(msrs: &[Probed], to: &mut dyn Write) -> io::Result<()> {
    let mut table = output::table(&[
        "Index",
        "Name",
        "User before",
        "User after",
        "Guest first",
        "Guest later",
        "Refused",
    ]);

    for msr in msrs {
        let mut row = vec![msr.index.to_string(), msr.name.clone().unwrap_or_default()];

        row.extend(STAGES.map(|(who, when, _)| cell(msr.access(who, when))));
        row.push(causes(msr));
        table.add_row(row);
    }
    writeln!(to, "{table}")?;
    writeln!(
        to,
        "\n{}",
        styled(
            DIM,
            "r: can be read; w: can be written, and the number of bits that are stored"
        )
    )
}

fn cell(access: Option<&Access>) -> String {
    let Some(access) = access else {
        return String::new();
    };
    let mut text = String::from(if access.readable { "r" } else { "-" });

    text.push(if access.writable { 'w' } else { '-' });
    if let Some(bits) = access.bits.filter(|_| access.writable) {
        text.push_str(&format!(" {}", bits.sticks.0.count_ones()));
    }
    text
}

/// What refuses accesses, without repetitions.
fn causes(msr: &Probed) -> String {
    let mut kinds: Vec<CauseKind> = Vec::new();

    for cause in &msr.causes {
        if !kinds.contains(&cause.kind) {
            kinds.push(cause.kind);
        }
    }
    let words: Vec<_> = kinds
        .into_iter()
        .map(|kind| match kind {
            CauseKind::UnknownHere => "unknown here",
            CauseKind::CpuidBitMissing => "CPUID bit missing",
            CauseKind::ReservedBits => "reserved bits",
            CauseKind::FixedAfterRun => "fixed after run",
            CauseKind::HostOnly => "host only",
            CauseKind::GuestOnly => "guest only",
            CauseKind::NotX2apic => "not in x2APIC mode",
            CauseKind::LeavesGuest => "leaves the guest",
            CauseKind::Filter => "filter",
            CauseKind::NotThisAccess => "not this access",
        })
        .collect();

    words.join(", ")
}

fn details(msr: &Probed, to: &mut dyn Write) -> io::Result<()> {
    let name = msr.name.as_deref().unwrap_or("(unknown)");

    writeln!(to, "{} {name}", styled(BOLD, msr.index))?;
    for (who, when, title) in STAGES {
        writeln!(to, "\n{}", styled(BOLD, title))?;
        match msr.access(who, when) {
            Some(access) => stage(access, to)?,
            None => writeln!(to, "  not tried, as KVM does not know the MSR")?,
        }
    }
    if !msr.needs.is_empty() {
        writeln!(to, "\n{}", styled(BOLD, "Depends on CPUID"))?;
        for each in &msr.needs {
            writeln!(to, "  {}", need(each))?;
        }
    }
    if !msr.causes.is_empty() {
        writeln!(to, "\n{}", styled(BOLD, "Causes of refusals"))?;
        for cause in &msr.causes {
            writeln!(to, "  {cause}")?;
        }
    }
    Ok(())
}

fn stage(access: &Access, to: &mut dyn Write) -> io::Result<()> {
    match (&access.value, &access.read_refused) {
        (Some(value), _) if access.moves => writeln!(to, "  reads {value}, and changes by itself")?,
        (Some(value), _) => writeln!(to, "  reads {value}")?,
        (None, Some(refusal)) => writeln!(to, "  can't be read: {}", styled(BAD, refusal))?,
        (None, None) => writeln!(to, "  can't be read")?,
    }
    match &access.write_refused {
        Some(refusal) if !access.writable => {
            writeln!(to, "  can't be written: {}", styled(BAD, refusal))?;
        }
        Some(refusal) => writeln!(
            to,
            "  can be written, but not with the current value: {refusal}"
        )?,
        None => writeln!(to, "  can be written")?,
    }
    let Some(bits) = access.bits.filter(|_| access.writable) else {
        return Ok(());
    };

    for (what, mask) in [
        ("stored", bits.sticks),
        ("ignored", bits.ignored),
        ("refused", bits.refused),
        ("accepted, hidden", bits.unclear),
        ("leave the guest", bits.left),
        ("change others", bits.dragged),
        ("may hang, not tried", bits.untried),
    ] {
        if mask.0 != 0 {
            writeln!(to, "  {what:<18} {}", bit_ranges(mask.0))?;
        }
    }
    Ok(())
}

fn need(need: &Need) -> String {
    let who = match need.who {
        Who::User => "user space",
        Who::Guest => "the guest",
    };
    let what = match need.what {
        What::Read => "reads",
        What::Write => "writes",
    };
    let proof = match (need.present, need.proven) {
        (true, Some(true)) => "; tried: not possible without it",
        (true, Some(false)) => "; tried: also possible without it on this host",
        (false, Some(true)) => "; tried: possible with it",
        (false, Some(false)) => "; tried: not possible with it on this host",
        (_, None) => "; not tried: KVM refuses such a vCPU",
    };

    format!(
        "{who} {what} it with {}, which this vCPU {}{proof}",
        need.features.join(" or "),
        if need.present { "has" } else { "lacks" }
    )
}
