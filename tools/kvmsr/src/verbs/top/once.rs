// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Counts for some time, and prints one table.

use std::io;
use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use kvmsr::trace::Method;
use kvmsr::trace::Settings;
use kvmsr::trace::Top;

use super::Options;
use super::counting::Counting;
use crate::output;
use crate::output::BAD;
use crate::output::BOLD;
use crate::output::DIM;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;
use crate::verbs::stop::Stop;
use crate::verbs::tracing::Running;

/// How often threads are looked up, so that short-lived ones are found.
const TICK: Duration = Duration::from_millis(50);

/// Runs the verb.
pub fn run(options: &Options, settings: &Settings, output: &mut Output) -> anyhow::Result<Found> {
    let stop = Stop::new()?;
    let mut session = Counting::new(options, settings)?;

    // Scripts wait for this line.
    output.note(format_args!("counting by {}", way(session.method())));
    let json = output.json();
    let mut command = Running::start(&options.command, || {
        // Standard output is for the JSON only.
        if json {
            io::stderr().into()
        } else {
            Stdio::inherit()
        }
    })?;
    let end = match (options.duration, &command) {
        (Some(duration), _) => Some(duration),
        (None, None) => Some(Duration::from_secs(1)),
        (None, Some(_)) => None,
    };
    let start = Instant::now();

    loop {
        let left = end.map_or(TICK, |end| end.saturating_sub(start.elapsed()));
        let ended = match &mut command {
            Some(command) => command.has_ended()?,
            None => left.is_zero(),
        };

        if ended || stop.requested() {
            break;
        }
        if !session.poll()? {
            thread::sleep(left.min(TICK));
        }
    }
    session.finish()?;
    let mut top = session.report()?;

    drop(session);
    if let Some(command) = &mut command {
        let end = command.end();

        if !command.has_ended()? {
            output.note(format_args!(
                "'{}' continues as process {}",
                end.program,
                command.pid()
            ));
        } else if end.exit_code != Some(0) {
            output.note(match end.exit_code {
                Some(code) => format!("'{}' exited with {code}", end.program),
                None => format!("a signal ended '{}'", end.program),
            });
        }
        top.command = Some(end);
    }
    output.report(&top, text)?;
    Ok(Found::Nothing)
}

/// A way to count, as text.
pub fn way(method: Method) -> &'static str {
    match method {
        Method::Histogram => "the kernel's histogram",
        Method::Pipe => "events from a pipe",
        Method::Engine => "the engine's statistics",
    }
}

fn text(top: &Top, to: &mut dyn Write) -> io::Result<()> {
    if top.msrs.is_empty() {
        writeln!(to, "No access to an MSR in {:.1} s.", top.seconds)?;
    } else {
        let mut table =
            output::table(&["VM", "MSR", "Name", "Reads", "Writes", "#GP", "per second"]);

        for row in &top.msrs {
            table.add_row([
                row.guest(),
                row.index.to_string(),
                row.name.clone().unwrap_or_default(),
                row.reads.to_string(),
                row.writes.to_string(),
                gp(row.gp),
                format!("{:.0}", row.rate),
            ]);
        }
        for column in 3..7 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        writeln!(to, "{table}")?;
        writeln!(
            to,
            "\n{} reads, {} writes, {} of them #GP, in {:.1} s; counted by {}",
            top.total.reads,
            top.total.writes,
            top.total.gp,
            top.seconds,
            way(top.counted_by)
        )?;
    }
    if top.lost > 0 {
        writeln!(
            to,
            "{}",
            styled(
                BAD,
                format_args!(
                    "{} more were lost: use a larger --buffer, or select MSRs with --msr",
                    top.lost
                )
            )
        )?;
    }
    for vm in &top.engine {
        let counters = &vm.counters;

        writeln!(
            to,
            "\n{} {} (VM {}), by the engine's own counters: {} reads, {} writes, {} filtered, \
             {} to user space, {} #GP; by user space {} reads, {} writes",
            styled(BOLD, &vm.comm),
            vm.pid.map_or_else(String::new, |pid| pid.to_string()),
            vm.vm,
            counters.reads,
            counters.writes,
            counters.filtered,
            counters.user_space,
            counters.gp,
            counters.host_reads,
            counters.host_writes,
        )?;
        for line in &vm.filter {
            writeln!(to, "  {line}")?;
        }
    }
    writeln!(to, "{}", styled(DIM, &top.note))
}

fn gp(count: u64) -> String {
    if count == 0 {
        count.to_string()
    } else {
        styled(BAD, count)
    }
}
