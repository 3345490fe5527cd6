// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr top`

mod counting;
mod live;
mod once;
mod screen;
mod view;

use std::io;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::bail;

use crate::Common;
use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::tracing;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Counts events of the tracepoint kvm:kvm_msr, which needs root. With histogram triggers
(CONFIG_HIST_TRIGGERS), the kernel counts, and no event is lost. Otherwise each event is read, and lost
events are reported.

The kernel does not trace accesses to MSRs that KVM passes through to the CPU (e.g. FS_BASE, often
SPEC_CTRL and TSC), nor accesses that user space answers: they are not counted.

For VMs that kvm-msr.ko serves, it also shows the engine's own counters, and the VM's filter. With
--pid, if the engine serves the process's VM, its statistics of /dev/kvm-msr are used instead of the
tracepoint, and also count accesses that user space answers.

Keys, as in kvm_stat: q quit, h help, r reset, p and g filter by guest, f by MSR, c clear filters,
o order by rate or total, b guests separately or together, x with or without MSRs, s set the delay.

Examples:
  kvmsr top                                 live, until q is pressed
  kvmsr top -p 4711 --msr 0x6e0             one VM, one MSR
  kvmsr top --once --for 10 --json          ten seconds, as JSON
  kvmsr top --once -- ./boot-test.sh        while a command runs")]
pub struct Options {
    #[command(flatten)]
    tracing: tracing::Options,
    /// Print one table and end: after a second, after --for, or when the command ends
    #[arg(long, short = '1', visible_alias = "batch")]
    once: bool,
    /// Count for this time; with --once
    #[arg(long = "for", value_name = "SECONDS", value_parser = tracing::parse_seconds,
          conflicts_with = "command")]
    duration: Option<Duration>,
    /// The refresh interval of the live table
    #[arg(long, short = 's', visible_alias = "set-delay", value_name = "SECONDS",
          default_value = "1", value_parser = tracing::parse_seconds)]
    interval: Duration,
    /// The descriptor of the VM, if the process has several; with --by engine
    #[arg(long, value_name = "N", requires = "pid")]
    fd: Option<i32>,
    /// How to count; the default is engine for a VM of kvm-msr.ko with --pid, or else histogram if
    /// the kernel supports it
    #[arg(long, value_enum, value_name = "WAY")]
    by: Option<By>,
    /// A command to run; counts until it ends
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// How to count.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum By {
    /// The kernel counts
    Histogram,
    /// kvmsr reads every event
    Pipe,
    /// kvm-msr.ko counts, for the VM of --pid
    Engine,
}

/// Runs the verb.
pub fn run(options: &Options, _common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let mut settings = options.tracing.settings()?;

    settings.method = options.by.map(|by| match by {
        By::Histogram => kvmsr::trace::Method::Histogram,
        By::Pipe => kvmsr::trace::Method::Pipe,
        By::Engine => kvmsr::trace::Method::Engine,
    });
    if options.once || options.duration.is_some() || output.json() {
        return once::run(options, &settings, output);
    }
    if !io::stdout().is_terminal() {
        bail!("the live table needs a terminal: use --once or --json");
    }
    live::run(options, &settings, output)
}
