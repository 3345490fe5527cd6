// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Checks KVM on this machine, and how to fix what is missing.

mod access;
mod device;
mod engine;
mod host;
mod kvm;
mod tracing;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

pub use host::cpu_flags;

use crate::snapshot::Host;
use crate::snapshot::SCHEMA;

/// The results.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Findings {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Whether nothing important is missing.
    pub usable: bool,
    /// The machine.
    pub host: Host,
    /// The checks.
    pub checks: Vec<Check>,
    /// Details for a bug report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<BTreeMap<String, String>>,
}

/// One check.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its topic.
    pub topic: Topic,
    /// Its name.
    pub name: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// The finding.
    pub found: String,
    /// The advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// The topic of a [`Check`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// The CPU and the kernel.
    Machine,
    /// KVM: its device, modules and capabilities.
    Kvm,
    /// Parameters of KVM's modules that affect MSRs.
    Parameters,
    /// The requirements of top and log.
    Tracing,
    /// kvm-msr.ko, the MSR engine in Rust.
    Engine,
}

/// The verdict of a [`Check`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Good.
    Good,
    /// Worth knowing.
    Note,
    /// Missing; only some verbs need it.
    Lacking,
    /// Missing or wrong, and KVM can't be used.
    Bad,
}

impl Check {
    fn new(topic: Topic, name: &str, verdict: Verdict, found: impl Into<String>) -> Self {
        Check {
            topic,
            name: name.to_owned(),
            verdict,
            found: found.into(),
            advice: None,
        }
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// The paths to check.
#[derive(Clone, Debug)]
pub struct Places {
    /// KVM's device.
    pub device: PathBuf,
    /// tracefs, if it is not in one of the usual places.
    pub tracefs: Option<PathBuf>,
}

/// Makes all checks. Changes nothing; creates a VM and closes it.
pub fn examine(places: &Places, report: bool) -> Findings {
    let host = Host::this();
    let (of_kvm, works) = kvm::checks(&places.device, &host);
    let mut checks = host::checks(&host, works);

    checks.extend(of_kvm);
    checks.extend(kvm::parameters());
    checks.extend(tracing::checks(places.tracefs.as_deref()));
    checks.extend(engine::checks());
    Findings {
        schema: SCHEMA,
        usable: !checks.iter().any(|check| check.verdict == Verdict::Bad),
        details: report.then(|| details(&places.device)),
        host,
        checks,
    }
}

/// Details for people who search a bug. They contain no secrets: no command line, and no names of
/// machines or users.
fn details(device: &Path) -> BTreeMap<String, String> {
    let mut details = kvm::details(device);

    details.extend(host::details());
    details.insert("kvmsr".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    details
}

/// The first part of a small kernel file, without surrounding white space.
fn text_of(path: impl AsRef<Path>) -> Option<String> {
    let mut bytes = Vec::new();

    File::open(path)
        .ok()?
        .take(1 << 20)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_advice() {
        let places = Places {
            device: PathBuf::from("/nonexistent"),
            tracefs: Some(PathBuf::from("/nonexistent")),
        };
        let findings = examine(&places, true);

        assert!(!findings.usable);
        for check in &findings.checks {
            let faulty = matches!(check.verdict, Verdict::Bad | Verdict::Lacking);

            assert!(!faulty || check.advice.is_some(), "{check:?}");
            assert!(!check.found.is_empty(), "{check:?}");
        }
    }
}
