// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr learn`

use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use indicatif::ProgressBar;
use kvmsr::device::Attached;
use kvmsr::device::Learning;
use kvmsr::device::Rights;
use kvmsr::learned::LearnedFile;
use kvmsr::learned::LearnedMsr;
use kvmsr::number::bit_ranges;
use kvmsr::snapshot::Host;

use crate::Common;
use crate::output;
use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::period;
use crate::verbs::period::Period;
use crate::verbs::snapshot::write;
use crate::verbs::vm;

/// How often to read what was learned. If the VM ends, the last reading is the result.
const INTERVAL: Duration = Duration::from_secs(1);

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Learns which MSRs the guest reads and writes, until --time is over, the command ends, or Ctrl-C.
The VM has to be one that kvm-msr.ko serves. Meanwhile KVM intercepts MSRs that it would pass
through, so the guest is slower.

Examples:
  kvmsr learn -p 4711 --time 60 -o learned.json     learn for a minute
  kvmsr learn -p 4711 -o learned.json -- ./tests    while a command runs
  kvmsr filter compile learned.json                 a filter for any KVM
  kvmsr policy compile learned.json                 a policy for kvm-msr.ko")]
pub struct Options {
    #[command(flatten)]
    vm: vm::Options,
    /// Write the result to this file; without it, print a table, or the file's content with --json
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    period: period::Options,
}

/// Runs the verb.
pub fn run(options: &Options, _common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let vm = options.vm.attach(Rights::OBSERVE)?;

    vm.start_learning()?;
    // Scripts wait for this line.
    output.note("learning");
    let mut period = Period::start(&options.period)?;
    let (learning, seconds) = learn(&vm, &mut period, output)?;

    drop(vm);
    period.note_end(output)?;
    let file = LearnedFile::new(&learning, seconds, Host::this().vendor);

    for warning in file.warnings() {
        output.note(warning);
    }
    match &options.output {
        Some(path) => {
            let mut json = serde_json::to_vec_pretty(&file)?;

            json.push(b'\n');
            write(path, &json).with_context(|| format!("can't write {}", path.display()))?;
            output.note(format_args!(
                "{} MSRs in {seconds:.1} s, written to {}",
                file.learned.len(),
                path.display()
            ));
        }
        None => output.report(&file, text)?,
    }
    Ok(Found::Nothing)
}

/// Learns until the end of the time or of the VM.
fn learn(vm: &Attached, period: &mut Period, output: &Output) -> anyhow::Result<(Learning, f64)> {
    // Draws on standard error, if that is a terminal.
    let bar = ProgressBar::new_spinner();
    let mut last: Option<(Learning, f64)> = None;
    let mut read = Instant::now();

    while period.goes_on()? {
        if last.is_some() && read.elapsed() < INTERVAL {
            continue;
        }
        read = Instant::now();
        match (vm.learned(), last.take()) {
            (Ok(learning), _) => {
                bar.set_message(progress(&learning, period.seconds()));
                bar.tick();
                last = Some((learning, period.seconds()));
            }
            (Err(error), Some(before)) if error.is_vm_gone() => {
                bar.finish_and_clear();
                output.note("the VM has ended; this is what was learned shortly before");
                return Ok(before);
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    bar.finish_and_clear();
    let seconds = period.seconds();
    let learning = vm.stop_learning().and_then(|()| vm.learned());

    match (learning, last) {
        (Ok(learning), _) => Ok((learning, seconds)),
        (Err(error), Some(before)) if error.is_vm_gone() => Ok(before),
        (Err(error), _) => Err(error.into()),
    }
}

fn progress(learning: &Learning, seconds: f64) -> String {
    let accesses = learning.msrs.iter().fold(0u64, |sum, msr| {
        sum.saturating_add(msr.reads).saturating_add(msr.writes)
    });

    format!(
        "{} MSRs, {accesses} accesses in {seconds:.0} s",
        learning.msrs.len()
    )
}

fn text(file: &LearnedFile, to: &mut dyn Write) -> io::Result<()> {
    let mut table = output::table(&[
        "Index",
        "Name",
        "Reads",
        "Writes",
        "Changed bits",
        "Last value",
        "Notes",
    ]);

    for msr in &file.learned {
        table.add_row([
            msr.index.to_string(),
            msr.name.clone().unwrap_or_default(),
            msr.reads.to_string(),
            msr.writes.to_string(),
            bit_ranges(msr.changed.0),
            msr.last.map(|last| last.to_string()).unwrap_or_default(),
            notes(msr),
        ]);
    }
    if !file.learned.is_empty() {
        writeln!(to, "{table}")?;
    }
    writeln!(to, "{} MSRs in {:.1} s", file.learned.len(), file.seconds)
}

fn notes(msr: &LearnedMsr) -> String {
    let notes = [(msr.unsupported, "KVM lacks it"), (msr.denied, "denied")];
    let notes: Vec<&str> = notes
        .iter()
        .filter(|(is, _)| *is)
        .map(|&(_, note)| note)
        .collect();

    notes.join(", ")
}
