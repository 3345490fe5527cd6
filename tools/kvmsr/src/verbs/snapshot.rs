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

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kvmsr snapshot -o here.json             a vCPU on this host
  kvmsr snapshot --cpu no-pmu | less      without performance counters
  kvmsr snapshot | ssh there kvmsr check - does the other host accept it?

KVM lets only a VMM read its VMs' MSRs, so this is a new vCPU that has never run. A VMM can write a
snapshot of a real guest with kvmsr's library: see samples/src/bin/msr_snapshot.rs.")]
pub struct Options {
    #[command(flatten)]
    cpu: CpuOption,
    /// Write to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the verb.
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

/// Writes a file completely, or leaves the existing one unchanged.
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
            // Do not leave an incomplete file.
            let _ = fs::remove_file(&new);
        })
}
