// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What is there of KVM on this machine, and what to do about what is not.

mod access;
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

/// What was found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Findings {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Whether nothing is missing that matters.
    pub usable: bool,
    /// The machine.
    pub host: Host,
    /// One by one.
    pub checks: Vec<Check>,
    /// More, for a report of a bug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<BTreeMap<String, String>>,
}

/// A thing that was looked at.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What it is about.
    pub topic: Topic,
    /// Its name.
    pub name: String,
    /// Whether it is as it should be.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What a [`Check`] is about.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// The CPU and the kernel.
    Machine,
    /// KVM: its device, its modules, what it can do.
    Kvm,
    /// Parameters of KVM's modules that change what happens to MSRs.
    Parameters,
    /// What top and log need.
    Tracing,
    /// kvm-msr.ko, which serves MSRs from Rust.
    Engine,
}

/// How a [`Check`] went.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Not there; only some verbs need it.
    Lacking,
    /// Not there, or not right, and KVM can't be used like this.
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

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// KVM's device.
    pub device: PathBuf,
    /// tracefs, if not in one of the usual places.
    pub tracefs: Option<PathBuf>,
}

/// Looks at everything. Nothing is changed; a VM is created and closed.
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

/// What else those want to know who are to find a bug. Nothing in it is secret: no command line,
/// no names of machines or users.
fn details(device: &Path) -> BTreeMap<String, String> {
    let mut details = kvm::details(device);

    details.extend(host::details());
    details.insert("kvmsr".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    details
}

/// The first part of a small file of the kernel's, without white space around it.
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
