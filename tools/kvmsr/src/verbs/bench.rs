// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr bench`

use std::io;
use std::io::Write;

use comfy_table::CellAlignment;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use kvmsr::bench::Figure;
use kvmsr::bench::Measurements;
use kvmsr::bench::Server;
use kvmsr::bench::Settings;
use kvmsr::bench::measure;

use crate::Common;
use crate::output;
use crate::output::DIM;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;
use crate::verbs::stop::Stop;

/// The length of the longest bar.
const WIDTH: f64 = 24.0;

// Measures an exit, an entry of KVM_GET_MSRS and KVM_SET_MSRS, and a filter on this host: nanoseconds
// with their spread, and cycles if there is a counter.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Measures, on a VM of its own, a guest's RDMSR and WRMSR (exit, KVM's work, entry), an entry of
KVM_GET_MSRS and KVM_SET_MSRS, the whole index list, and a filter of 1 and of 16 ranges: the time to
set it, and the time that it adds to an exit. Each figure is the median of its samples, with the range
of the middle 80 %. Cycles come from the CPU's counter, if this machine has one and you may use it
(kernel.perf_event_paranoid, or root).

--both compares C with kvm-msr.ko. It changes the module's parameter enable while it creates a VM, and
then restores it. A VM that another program creates at that moment is affected, too.

Examples:
  kvmsr bench
  kvmsr bench --both
  kvmsr bench --samples 101 --json")]
pub struct Options {
    /// Number of samples per figure
    #[arg(long, value_name = "N", default_value_t = 31,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    samples: u32,
    /// Compare C with kvm-msr.ko; needs root, and the module loaded
    #[arg(long)]
    both: bool,
}

/// Runs the verb.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let stop = Stop::new()?;
    let settings = Settings {
        samples: options.samples,
        both: options.both,
    };
    // Draws on standard error, if that is a terminal.
    let bar = ProgressBar::new(0);

    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let measured = measure(&common.device, settings, &mut |done, of, metric| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(metric.title());
        !stop.requested()
    });

    bar.finish_and_clear();
    output.report(&measured?, text)?;
    Ok(Found::Nothing)
}

fn text(measurements: &Measurements, to: &mut dyn Write) -> io::Result<()> {
    let host = &measurements.host;
    let mut heads = vec!["", "By", "ns", "p10..p90"];

    if measurements.cycles {
        heads.push("Cycles");
    }
    heads.push("");
    let mut table = output::table(&heads);

    for figure in &measurements.figures {
        let nanoseconds = &figure.nanoseconds;
        let mut cells = vec![
            figure.metric.title().to_owned(),
            figure.by.to_string(),
            rounded(nanoseconds.median),
            format!("{}..{}", rounded(nanoseconds.p10), rounded(nanoseconds.p90)),
        ];

        if measurements.cycles {
            cells.push(
                figure
                    .cycles
                    .map_or_else(String::new, |cycles| rounded(cycles.median)),
            );
        }
        let mut picture = bar(nanoseconds.median / longest(measurements, figure));

        if let Some(ratio) = against_c(measurements, figure) {
            picture.push_str(&format!(" {ratio:.2} x C"));
        }
        cells.push(picture);
        table.add_row(cells);
    }
    for column in 2..heads.len() - 1 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(to, "Linux {}, {}", host.kernel, host.cpu)?;
    writeln!(to, "{table}")?;
    writeln!(
        to,
        "{}",
        styled(
            DIM,
            format_args!(
                "medians of {} samples; bars compare figures of one kind{}",
                measurements.samples,
                if measurements.cycles {
                    ""
                } else {
                    "; cycles can't be counted here"
                }
            )
        )
    )
}

/// The longest time in a figure's group.
fn longest(measurements: &Measurements, figure: &Figure) -> f64 {
    measurements
        .figures
        .iter()
        .filter(|other| other.metric.group() == figure.metric.group())
        .map(|other| other.nanoseconds.median)
        .fold(f64::MIN_POSITIVE, f64::max)
}

/// The ratio to C's time.
fn against_c(measurements: &Measurements, figure: &Figure) -> Option<f64> {
    if figure.by == Server::C {
        return None;
    }
    let c = measurements
        .figures
        .iter()
        .find(|other| other.metric == figure.metric && other.by == Server::C)?;

    (c.nanoseconds.median > 0.0).then(|| figure.nanoseconds.median / c.nanoseconds.median)
}

/// A bar for a share of the longest time.
fn bar(share: f64) -> String {
    const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share.clamp(0.0, 1.0) * WIDTH * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);

    if let Some(&part) = PARTS.get(eighths % 8).filter(|&&part| part != ' ') {
        bar.push(part);
    }
    bar
}

/// Rounds to the significant digits.
fn rounded(number: f64) -> String {
    if number.abs() < 100.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_eighths() {
        assert_eq!(bar(1.0).chars().count(), 24);
        assert_eq!(bar(0.5).chars().count(), 12);
        assert_eq!(bar(1.0 / 24.0 / 8.0), "▏");
        for odd in [0.0, -1.0, f64::NAN] {
            assert_eq!(bar(odd), "");
        }
        assert_eq!(bar(f64::INFINITY).chars().count(), 24);
    }
}
