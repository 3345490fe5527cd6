// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr stats`

use std::io;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

use comfy_table::CellAlignment;
use kvmsr::device::Attached;
use kvmsr::device::Rights;
use kvmsr::device::Statistics;
use kvmsr::filter::Access;
use kvmsr::snapshot::Host;
use kvmsr::stats::StatRow;
use kvmsr::stats::StatsReport;

use crate::Common;
use crate::output;
use crate::output::BAD;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;
use crate::verbs::period;
use crate::verbs::period::Period;
use crate::verbs::vm;

/// How often to read the statistics. If the VM ends, the last reading is the result.
const INTERVAL: Duration = Duration::from_secs(1);

/// The first column with numbers.
const FIRST_NUMBER: usize = 3;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Counts until --time is over, the command ends, or Ctrl-C. The VM has to be one that kvm-msr.ko
serves. Accesses to MSRs that KVM passes through to the CPU (e.g. FS_BASE, often SPEC_CTRL and TSC)
are not counted. Times are rounded up to a power of two of TSC cycles.

Examples:
  kvmsr stats -p 4711 --time 10             ten seconds, as a table
  kvmsr stats -p 4711 --json -- ./tests     while a command runs; with histograms of the times
  kvmsr top -p 4711                         the same counts, live")]
pub struct Options {
    #[command(flatten)]
    vm: vm::Options,
    #[command(flatten)]
    period: period::Options,
}

/// Runs the verb.
pub fn run(options: &Options, _common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let vm = options.vm.attach(Rights::OBSERVE)?;

    vm.start_statistics()?;
    // Scripts wait for this line.
    output.note("counting");
    let mut period = Period::start(&options.period)?;
    let (statistics, seconds) = count(&vm, &mut period, output)?;

    drop(vm);
    period.note_end(output)?;
    let report = StatsReport::new(&statistics, seconds, Host::this().vendor);

    output.report(&report, text)?;
    Ok(Found::Nothing)
}

/// Counts until the end of the time or of the VM.
fn count(vm: &Attached, period: &mut Period, output: &Output) -> anyhow::Result<(Statistics, f64)> {
    let mut last: Option<(Statistics, f64)> = None;
    let mut read = Instant::now();

    while period.goes_on()? {
        if last.is_some() && read.elapsed() < INTERVAL {
            continue;
        }
        read = Instant::now();
        match (vm.statistics(), last.take()) {
            (Ok(statistics), _) => last = Some((statistics, period.seconds())),
            (Err(error), Some(before)) if error.is_vm_gone() => {
                output.note("the VM has ended; these are the counts shortly before");
                return Ok(before);
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    let seconds = period.seconds();
    let statistics = vm.stop_statistics().and_then(|()| vm.statistics());

    match (statistics, last) {
        (Ok(statistics), _) => Ok((statistics, seconds)),
        (Err(error), Some(before)) if error.is_vm_gone() => Ok(before),
        (Err(error), _) => Err(error.into()),
    }
}

fn text(report: &StatsReport, to: &mut dyn Write) -> io::Result<()> {
    let mut table = output::table(&[
        "Index",
        "Name",
        "Access",
        "Count",
        "Denied",
        "Unsupported",
        "User exits",
        "#GP",
        "Median",
        "99 %",
    ]);

    for row in &report.msrs {
        table.add_row(cells(row));
    }
    for column in FIRST_NUMBER..10 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if !report.msrs.is_empty() {
        writeln!(to, "{table}\n")?;
    }
    let of = |access| {
        report
            .msrs
            .iter()
            .filter(|row| row.access == access)
            .fold(0u64, |sum, row| sum.saturating_add(row.count))
    };

    writeln!(
        to,
        "{} reads and {} writes in {:.1} s",
        of(Access::Read),
        of(Access::Write),
        report.seconds
    )?;
    if report.lost > 0 {
        writeln!(
            to,
            "{}",
            styled(BAD, format_args!("{} more were not counted", report.lost))
        )?;
    }
    Ok(())
}

fn cells(row: &StatRow) -> Vec<String> {
    let bad = |count: u64| match count {
        0 => "0".to_owned(),
        count => styled(BAD, count),
    };
    let time = |time: Option<u64>| time.map_or_else(String::new, |time| format!("≤ {time} ns"));

    vec![
        row.index.to_string(),
        row.name.clone().unwrap_or_default(),
        row.access.to_string(),
        row.count.to_string(),
        bad(row.denied),
        row.unsupported.to_string(),
        row.user_exits.to_string(),
        bad(row.gp),
        time(row.median_ns),
        time(row.p99_ns),
    ]
}
