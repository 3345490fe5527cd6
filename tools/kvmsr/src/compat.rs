// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Computes a profile of what several hosts accept.
//!
//! A profile has the MSRs that all files have, and the CPUID and feature MSRs that all hosts
//! support. How bits combine depends on their meaning: most say what a host supports, some what it
//! lacks or requires, some are numbers. A guest's state is kept if all files agree; otherwise,
//! each host's own reset value is as good.
//!
//! A file without CPUID, lists or features, e.g. a template, does not affect these. The profile
//! does not depend on the order of the files.

pub mod features;
pub mod leaves;
pub mod rule;

mod cpuid;
mod msrs;
mod report;

use std::collections::BTreeMap;

use crate::error::Error;
use crate::error::Result;
use crate::snapshot::Host;
use crate::snapshot::Kind;
use crate::snapshot::SCHEMA;
use crate::snapshot::Snapshot;

pub use report::Lost;
pub use report::Part;
pub use report::Place;
pub use report::Report;

/// Combines snapshots, each with the name of its file.
///
/// # Errors
///
/// [`Error::Input`] if there is none.
pub fn combine(files: &[(String, Snapshot)]) -> Result<Report> {
    let snapshots: Vec<&Snapshot> = files.iter().map(|(_, snapshot)| snapshot).collect();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let Some(base) = base(&snapshots) else {
        return Err(Error::Input("there is no file to combine".to_owned()));
    };
    let mut lost = Vec::new();
    let mut warnings = Vec::new();
    let mut profile = Snapshot {
        schema: SCHEMA,
        kind: Kind::Profile,
        host: host(&snapshots),
        ..Default::default()
    };

    cpuid::combine(&snapshots, base, &names, &mut profile, &mut lost);
    msrs::combine(&snapshots, base, &names, &mut profile, &mut lost);
    warn(&snapshots, base, &names, &profile, &mut warnings);
    Ok(Report {
        schema: SCHEMA,
        files: names.into_iter().map(str::to_owned).collect(),
        profile,
        lost,
        warnings,
    })
}

/// The file from which the profile takes the order of lists, and the description of the host: the
/// one with the oldest CPU. The other criteria only make the choice independent of the files'
/// order.
fn base(snapshots: &[&Snapshot]) -> Option<usize> {
    let key = |snapshot: &Snapshot| {
        let cpuid: Vec<[u32; 7]> = snapshot
            .cpuid
            .0
            .iter()
            .map(|leaf| {
                [
                    leaf.function.0,
                    leaf.index.0,
                    leaf.flags,
                    leaf.eax.0,
                    leaf.ebx.0,
                    leaf.ecx.0,
                    leaf.edx.0,
                ]
            })
            .collect();
        let indices = |values: &[crate::snapshot::Value]| -> Vec<u32> {
            values.iter().map(|value| value.index.0).collect()
        };

        (
            snapshot.cpuid.0.is_empty(),
            cpuid::model(&snapshot.cpuid),
            cpuid,
            indices(&snapshot.msrs),
            indices(&snapshot.features),
            snapshot.saved.clone(),
            snapshot.unreadable.clone(),
        )
    };

    (0..snapshots.len()).min_by_key(|&place| snapshots.get(place).map(|snapshot| key(snapshot)))
}

/// The data of all files about their hosts.
fn host(snapshots: &[&Snapshot]) -> Host {
    let mut hosts = snapshots.iter().map(|snapshot| &snapshot.host);
    let Some(first) = hosts.next() else {
        return Host::default();
    };

    hosts.fold(first.clone(), |mut common, host| {
        if common.kernel != host.kernel {
            common.kernel.clear();
        }
        if common.cpu != host.cpu {
            common.cpu.clear();
        }
        if common.vendor != host.vendor {
            common.vendor = None;
        }
        if common.microcode != host.microcode {
            common.microcode = None;
        }
        for (module, parameters) in &mut common.parameters {
            keep_equal(parameters, host.parameters.get(module));
        }
        common.parameters.retain(|module, parameters| {
            !parameters.is_empty() || host.parameters.get(module) == Some(parameters)
        });
        keep_equal(&mut common.facts, Some(&host.facts));
        common.engine &= host.engine;
        common
    })
}

fn keep_equal(common: &mut BTreeMap<String, String>, other: Option<&BTreeMap<String, String>>) {
    common.retain(|name, value| other.and_then(|other| other.get(name)) == Some(value));
}

fn warn(
    snapshots: &[&Snapshot],
    base: usize,
    names: &[&str],
    profile: &Snapshot,
    warnings: &mut Vec<String>,
) {
    if msrs::differ_in_vendor(snapshots) {
        warnings.push(
            "the files are of different vendors: a guest of one vendor's CPU is not expected to run \
             on another vendor's CPU, even though KVM accepts these MSRs"
                .to_owned(),
        );
    }
    let models = snapshots
        .iter()
        .filter(|snapshot| !snapshot.cpuid.0.is_empty())
        .map(|snapshot| cpuid::model(&snapshot.cpuid));

    if let Some(name) = names.get(base)
        && std::collections::BTreeSet::from_iter(models).len() > 1
    {
        warnings.push(format!(
            "family, model, caches and topology are taken from {name}"
        ));
    }
    if profile.msrs.is_empty() {
        warnings.push("the files have no MSR in common".to_owned());
    }
}

#[cfg(test)]
mod tests;
