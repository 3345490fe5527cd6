// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr snapshot`

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use kvmsr::formats;
use kvmsr::formats::Format;
use kvmsr::scratch;
use kvmsr::scratch::Scratch;
use kvmsr::scratch::Setup;
use kvmsr::snapshot::Snapshot;

use crate::Common;
use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::vcpu::CpuOption;

// The command line. (A doc comment would replace what the verb is said to do.)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kvmsr snapshot -o here.json             what a vCPU has on this host
  kvmsr snapshot --cpu no-pmu | less      without performance counters
  kvmsr snapshot | ssh there kvmsr check - would the other host take that?

KVM lets nobody but a VMM ask for its own VM's MSRs, so this is a vCPU that has never run. A
snapshot of a real guest comes from its VMM, with kvmsr's library: see samples/src/bin/
msr_snapshot.rs.")]
pub struct Options {
    #[command(flatten)]
    cpu: CpuOption,
    /// Write it to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Does it.
pub fn run(options: &Options, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let kvm = scratch::open(&common.device)?;
    let scratch = Scratch::new(
        &kvm,
        &Setup {
            cpuid: options.cpu.cpuid(&kvm)?,
            irqchip: true,
            ..Setup::default()
        },
    )?;
    let json = formats::write(Format::Kvmsr, &Snapshot::of_vcpu(&kvm, scratch.vcpu())?)?;

    match &options.output {
        Some(path) => write(path, json.as_bytes())
            .with_context(|| format!("can't write {}", path.display()))?,
        None => output.text(json)?,
    }
    Ok(Found::Nothing)
}

/// Writes a file, or leaves what there was as it is.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_special = fs::metadata(path).is_ok_and(|file| !file.is_file());

    if is_special {
        return fs::write(path, bytes);
    }
    let mut name = path.as_os_str().to_owned();

    name.push(".new");
    let new = PathBuf::from(name);

    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, path))
        .inspect_err(|_| {
            // What is half written helps nobody.
            let _ = fs::remove_file(&new);
        })
}
