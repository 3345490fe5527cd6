// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr log`

use std::io;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use kvmsr::trace::Access;
use kvmsr::trace::Entry;
use kvmsr::trace::Log;

use crate::Common;
use crate::output::BAD;
use crate::output::DIM;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;
use crate::verbs::stop::Stop;
use crate::verbs::tracing;
use crate::verbs::tracing::Running;

/// How long to wait for more events.
const TICK: Duration = Duration::from_millis(20);

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads the tracepoint kvm:kvm_msr, which needs root. If events are faster than they can be read, some
are lost; a line says how many. A larger --buffer and --msr help.

The kernel does not trace accesses to MSRs that KVM passes through to the CPU (e.g. FS_BASE, often
SPEC_CTRL and TSC), nor accesses that user space answers.

Examples:
  kvmsr log -p 4711                         one process's VMs, until Ctrl-C
  kvmsr log --msr 0x6e0 --count 10          the next ten accesses to TSC_DEADLINE
  kvmsr log --json -- ./boot-test.sh        while a command runs, one JSON object per line")]
pub struct Options {
    #[command(flatten)]
    tracing: tracing::Options,
    /// End after this number of accesses
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// End after this time
    #[arg(long = "for", value_name = "SECONDS", value_parser = tracing::parse_seconds)]
    duration: Option<Duration>,
    /// A command to run; the log ends when it ends
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the verb.
pub fn run(options: &Options, _common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let settings = options.tracing.settings()?;
    let stop = Stop::new()?;
    let mut log = Log::new(&settings)?;

    // Scripts wait for this line.
    output.note("logging");
    // Standard output is for the log only.
    let mut command = Running::start(&options.command, || Stdio::from(io::stderr()))?;
    let start = Instant::now();
    let mut left = options.count.unwrap_or(u64::MAX);
    let mut entries = Vec::new();

    while left > 0 {
        // Checked before reading, so that all events up to now are read.
        let ended = stop.requested()
            || options
                .duration
                .is_some_and(|duration| start.elapsed() >= duration)
            || match &mut command {
                Some(command) => command.has_ended()?,
                None => false,
            };
        let more = log.read(|entry| entries.push(entry))?;

        for entry in entries.drain(..) {
            if left == 0 {
                break;
            }
            if entry.access != Access::Lost {
                left -= 1;
            }
            print(&entry, output)?;
        }
        if more {
            continue;
        }
        if ended {
            break;
        }
        thread::sleep(TICK);
    }
    let lost = log.lost()?;

    if lost > 0 {
        output.note(format_args!(
            "{lost} events were lost: use a larger --buffer, or select MSRs with --msr"
        ));
    }
    Ok(Found::Nothing)
}

fn print(entry: &Entry, output: &mut Output) -> anyhow::Result<()> {
    if output.json() {
        return output.json_line(entry);
    }
    output.text(format_args!("{}\n", line(entry)))
}

fn line(entry: &Entry) -> String {
    let access = match entry.access {
        Access::Read => "read ",
        Access::Write => "write",
        Access::Lost => {
            let count = entry
                .lost
                .map_or_else(|| "some".to_owned(), |count| count.to_string());

            return styled(
                BAD,
                format_args!("{count} events of CPU {} lost", entry.cpu),
            );
        }
    };
    let number = |number: Option<u32>| number.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let shown = |text: Option<String>| text.unwrap_or_default();
    let name = entry.name.clone().map(|name| format!(" {name}"));
    let value = entry.value.map(|value| format!(" = {value}"));
    let gp = entry.gp.then(|| styled(BAD, " #GP"));
    // A process's name can contain terminal escapes.
    let comm: String = shown(entry.comm.clone())
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let thread = styled(
        DIM,
        format_args!(
            "({}/{}) cpu {}",
            number(entry.pid),
            number(entry.tid),
            entry.cpu
        ),
    );

    format!(
        "{:.6} {comm} {thread}  {access} {}{}{}{}",
        entry.time.unwrap_or_default(),
        shown(entry.index.map(|index| index.to_string())),
        shown(name),
        shown(value),
        shown(gp),
    )
}
