// SPDX-License-Identifier: Apache-2.0 OR MIT

//! File formats: kvmsr's own, and those of VMMs with MSRs or CPUID.
//!
//! All are JSON, and are read as a [`Snapshot`]. The members of a file tell its format. kvmsr's
//! own format is [`Snapshot`], which documents each member; for the others see
//! `formats/firecracker.rs` and `formats/cloud_hypervisor.rs`, which name their sources.

mod bitmap;
mod cloud_hypervisor;
mod firecracker;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::IgnoredAny;

use crate::error::Error;
use crate::error::Result;
use crate::input;
pub use crate::input::LIMIT;
pub use crate::input::STDIN;
pub use crate::input::STDIN_NAME;
use crate::snapshot::SCHEMA;
use crate::snapshot::Snapshot;

/// The formats.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// kvmsr's own, of `snapshot` and `compat`.
    Kvmsr,
    /// A CPU template of Firecracker.
    Firecracker,
    /// A file of Firecracker's `cpu-template-helper fingerprint dump`.
    FirecrackerFingerprint,
    /// The MSR file of a CPU profile of cloud-hypervisor.
    CloudHypervisor,
    /// The CPUID file of a CPU profile of cloud-hypervisor.
    CloudHypervisorCpuid,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Kvmsr => "a snapshot or profile of kvmsr",
            Format::Firecracker => "a CPU template of Firecracker",
            Format::FirecrackerFingerprint => "a fingerprint of Firecracker",
            Format::CloudHypervisor => "an MSR file of a CPU profile of cloud-hypervisor",
            Format::CloudHypervisorCpuid => "a CPUID file of a CPU profile of cloud-hypervisor",
        })
    }
}

/// Reads a file of any format; `-` is standard input.
///
/// # Errors
///
/// [`Error::Io`] if it can't be read, and [`Error::Input`] with the position if it is invalid.
pub fn read(path: &Path) -> Result<Snapshot> {
    let (name, bytes) = input::bytes(path)?;

    read_bytes(&bytes, &name)
}

/// Reads the content of a file. `name` is for errors.
///
/// # Errors
///
/// [`Error::Input`] with the position if it is invalid.
pub fn read_bytes(bytes: &[u8], name: &str) -> Result<Snapshot> {
    let format = detect(bytes, name)?;
    let snapshot = match format {
        Format::Kvmsr => own(bytes, name)?,
        Format::Firecracker => parse::<firecracker::Template>(bytes, name, format)?.into(),
        Format::FirecrackerFingerprint => {
            parse::<firecracker::Fingerprint>(bytes, name, format)?.into()
        }
        Format::CloudHypervisor => {
            parse::<cloud_hypervisor::MsrProfile>(bytes, name, format)?.into()
        }
        Format::CloudHypervisorCpuid => {
            parse::<cloud_hypervisor::CpuidProfile>(bytes, name, format)?.into()
        }
    };

    within(name, "CPUID leaves", snapshot.cpuid.0.len(), LEAVES)?;
    within(
        name,
        "changes to CPUID",
        snapshot.cpuid_modifiers.registers.len(),
        MODIFIERS,
    )?;
    for (list, values) in [("msrs", &snapshot.msrs), ("features", &snapshot.features)] {
        let mut seen = HashSet::new();

        if let Some(twice) = values.iter().find(|value| !seen.insert(value.index)) {
            return Err(Error::Input(format!(
                "{name} has MSR {} twice in {list}: keep one of them",
                twice.index
            )));
        }
    }
    Ok(snapshot)
}

/// KVM accepts no more leaves, each with four registers, in ranges of subleaves.
const LEAVES: usize = KVM_MAX_CPUID_ENTRIES;
const MODIFIERS: usize = 4 * 4 * LEAVES;

fn within(name: &str, what: &str, count: usize, most: usize) -> Result<()> {
    if count <= most {
        return Ok(());
    }
    Err(Error::Input(format!(
        "{name} has {count} {what}; the limit is {most}"
    )))
}

/// The format of a file.
///
/// # Errors
///
/// [`Error::Input`] with the reason if it is none.
pub fn detect(bytes: &[u8], name: &str) -> Result<Format> {
    let input = |what: &dyn fmt::Display| Error::Input(format!("{name} {what}"));

    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(input(&"is empty"));
    }
    let keys: BTreeMap<String, IgnoredAny> =
        serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            serde_json::error::Category::Eof => input(&format_args!(
                "is incomplete: the JSON ends at line {} column {}",
                error.line(),
                error.column()
            )),
            serde_json::error::Category::Data => {
                input(&format_args!("is JSON, but {NONE_OF_THESE}: {error}"))
            }
            _ => input(&format_args!("is not JSON: {error}")),
        })?;
    let has = |key: &str| keys.contains_key(key);

    if has("schema") {
        Ok(Format::Kvmsr)
    } else if has("guest_cpu_config") {
        let outline: firecracker::Outline = parse(bytes, name, Format::FirecrackerFingerprint)?;

        match outline.is_for_arm() {
            true => Err(input(&FOR_ARM)),
            false => Ok(Format::FirecrackerFingerprint),
        }
    } else if has("reg_modifiers") || has("vcpu_features") {
        Err(input(&FOR_ARM))
    } else if has("cpuid_modifiers") || has("msr_modifiers") || has("kvm_capabilities") {
        Ok(Format::Firecracker)
    } else if has("required_msrs") || has("permitted_msrs") {
        Ok(Format::CloudHypervisor)
    } else if has("adjustments") {
        let outline: cloud_hypervisor::Outline = parse(bytes, name, Format::CloudHypervisorCpuid)?;

        Ok(if outline.is_of_msrs() {
            Format::CloudHypervisor
        } else {
            Format::CloudHypervisorCpuid
        })
    } else {
        Err(input(&format_args!("is JSON, but {NONE_OF_THESE}")))
    }
}

const FOR_ARM: &str = "is for Arm, which has no MSRs";

const NONE_OF_THESE: &str = "none of: a snapshot or profile of kvmsr, a CPU template or \
                             fingerprint of Firecracker, a CPU profile of cloud-hypervisor";

fn parse<T: DeserializeOwned>(bytes: &[u8], name: &str, format: Format) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Input(format!("{name} is not {format}: {error}")))
}

fn own(bytes: &[u8], name: &str) -> Result<Snapshot> {
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }

    let Version { schema } = parse(bytes, name, Format::Kvmsr)?;

    if schema != SCHEMA {
        return Err(Error::Input(format!(
            "{name} has schema {schema}, but this kvmsr supports schema {SCHEMA}: use the kvmsr \
             that wrote it, or write it again"
        )));
    }
    parse(bytes, name, Format::Kvmsr)
}

/// Writes a snapshot in a format, with a line break at its end.
///
/// # Errors
///
/// [`Error::Input`] with what the format can't express.
pub fn write(format: Format, snapshot: &Snapshot) -> Result<String> {
    let cannot = |what: String| Error::Input(format!("this can't be written as {format}: {what}"));

    match format {
        Format::Kvmsr => pretty(snapshot),
        Format::Firecracker => pretty(&firecracker::template(snapshot).map_err(cannot)?),
        Format::FirecrackerFingerprint => {
            pretty(&firecracker::fingerprint(snapshot).map_err(cannot)?)
        }
        Format::CloudHypervisor => pretty(&cloud_hypervisor::msr_profile(snapshot)),
        Format::CloudHypervisorCpuid => {
            pretty(&cloud_hypervisor::cpuid_profile(snapshot).map_err(cannot)?)
        }
    }
}

fn pretty(document: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string_pretty(document)
        .map_err(|error| Error::Input(format!("this can't be written as JSON: {error}")))?;

    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
