// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests on this host's KVM what `explain` says about every MSR that KVM knows.
//!
//! The library's scratch VM makes the accesses; the suite `access` tests it.

use std::path::Path;

use anyhow::Context;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvmsr::catalogue;
use kvmsr::catalogue::Check;
use kvmsr::catalogue::Initiator;
use kvmsr::catalogue::Needs;
use kvmsr::catalogue::Otherwise;
use kvmsr::catalogue::Rule;
use kvmsr::catalogue::Server;
use kvmsr::catalogue::Way;
use kvmsr::cpuid::Cpuid;
use kvmsr::cpuid::Vendor;
use kvmsr::scratch;
use kvmsr::scratch::DEVICE;
use kvmsr::scratch::Outcome;
use kvmsr::scratch::Reason;
use kvmsr::scratch::Scratch;
use kvmsr::scratch::Setup;

use crate::report::Report;
use crate::run::Kvmsr;

type Test = fn(&Host, &mut Said) -> anyhow::Result<()>;

/// Runs the tests.
pub fn run(_kvmsr: &Kvmsr, report: &mut Report) {
    let tests: [(&str, Test); 5] = [
        ("CPUID features that an access needs", Host::features),
        ("accesses that only the host can make", Host::host_only),
        ("reserved bits", Host::reserved),
        ("constant values", Host::constants),
        ("MSRs that can't change once the vCPU has run", Host::fixed),
    ];

    for (name, test) in tests {
        report.test(name, || {
            let mut said = Said::default();

            test(&Host::new()?, &mut said)?;
            said.verdict()
        });
    }
}

/// The statements, and those that are wrong.
#[derive(Default)]
struct Said {
    count: usize,
    wrong: Vec<String>,
}

impl Said {
    fn is(&mut self, right: bool, what: impl FnOnce() -> String) {
        self.count += 1;
        if !right {
            self.wrong.push(what());
        }
    }

    fn verdict(self) -> anyhow::Result<String> {
        ensure!(
            self.wrong.is_empty(),
            "{} of {} are wrong: {}",
            self.wrong.len(),
            self.count,
            self.wrong.get(..5).unwrap_or(&self.wrong).join("; ")
        );
        ensure!(self.count > 0, "there are no statements");
        Ok(format!("{} statements", self.count))
    }
}

struct Host {
    kvm: Kvm,
    cpuid: Cpuid,
    vendor: Vendor,
}

impl Host {
    fn new() -> anyhow::Result<Self> {
        let kvm = scratch::open(Path::new(DEVICE))?;
        let cpuid = Cpuid::supported(&kvm)?;
        let vendor = cpuid.vendor().context("the CPU's vendor is unknown")?;

        Ok(Host { kvm, cpuid, vendor })
    }

    fn scratch(&self, cpuid: &Cpuid) -> anyhow::Result<Scratch> {
        Ok(Scratch::new(
            &self.kvm,
            &Setup {
                cpuid: cpuid.clone(),
                irqchip: true,
                reasons: true,
            },
        )?)
    }

    /// The statements that this host can test.
    fn checks(&self) -> impl Iterator<Item = (u32, &'static Rule, &'static Check)> {
        let vendor = self.vendor;

        indices()
            .flat_map(|(index, rule)| {
                catalogue::checks(index).map(move |check| (index, rule, check))
            })
            .filter(|(_, _, check)| check.only_with.is_none())
            .filter(move |(_, _, check)| check.vendor.is_none_or(|of| of == vendor))
    }

    /// Without any of the features, KVM refuses an access that needs one, for the given reason.
    fn features(&self, said: &mut Said) -> anyhow::Result<()> {
        for (index, rule, check) in self.checks() {
            let (Needs::AnyOf(features), Some(reason)) = (check.needs, reason(check)) else {
                continue;
            };
            let mut cpuid = self.cpuid.clone();

            for of in features {
                cpuid.set_bit(of.function, of.index, of.register, of.bit, false);
            }
            let mut scratch = self.scratch(&cpuid)?;
            let name = features.first().map_or("", |feature| feature.name);

            for (way, value) in accesses(check) {
                if check.by != Some(Initiator::Host) {
                    let outcome = match way {
                        Way::Read => scratch.rdmsr(index)?,
                        Way::Write => scratch.wrmsr(index, value)?,
                    };

                    // Another check may come first.
                    let refused = self.refusal(index, way, value, &cpuid).unwrap_or(reason);

                    said.is(outcome == Outcome::Refused(refused), || {
                        format!("{index:#x}: guest, {way:?} {value:#x} without {name}: {outcome:?}")
                    });
                }
                if check.by != Some(Initiator::Guest) {
                    // Listed MSRs read as 0, and accept a write of 0.
                    let excused = reason == Reason::Unknown && rule.list.is_some();
                    let done = match way {
                        Way::Read => scratch
                            .get(index)?
                            .is_some_and(|value| !excused || value != 0),
                        Way::Write => scratch.set(index, value.max(1))?,
                    };

                    said.is(!done, || {
                        format!("{index:#x}: host, {way:?} {value:#x} without {name}: done")
                    });
                }
            }
        }
        Ok(())
    }

    /// Why a guest's access is refused, as far as its CPUID decides.
    fn refusal(&self, index: u32, way: Way, value: u64, cpuid: &Cpuid) -> Option<Reason> {
        let lacks = |check: &&Check| match check.needs {
            Needs::AnyOf(features) => !features
                .iter()
                .any(|of| cpuid.register(of.function, of.index, of.register) >> of.bit & 1 != 0),
            Needs::Host | Needs::Nobody => true,
            Needs::Kvm(_) | Needs::Words(_) => false,
        };

        catalogue::checks(index)
            .filter(|check| check.only_with.is_none() && check.by != Some(Initiator::Host))
            .filter(|check| check.vendor.is_none_or(|of| of == self.vendor))
            .filter(|check| check.way.is_none_or(|of| of == way))
            .filter(|check| check.bits == u64::MAX || check.bits & value != 0)
            .find(lacks)
            .and_then(reason)
    }

    /// Accesses that guests can't make, or nobody.
    fn host_only(&self, said: &mut Said) -> anyhow::Result<()> {
        let mut scratch = self.scratch(&self.cpuid)?;

        for (index, _, check) in self.checks() {
            let Some(value) = scratch.get(index)? else {
                continue;
            };

            for way in ways(check) {
                match (check.needs, reason(check)) {
                    (Needs::Host, Some(reason)) => {
                        let outcome = match way {
                            Way::Read => scratch.rdmsr(index)?,
                            Way::Write => scratch.wrmsr(index, value)?,
                        };

                        // Some depend on KVM's own features, which are checked first.
                        let right = outcome == Outcome::Refused(reason)
                            || outcome == Outcome::Refused(Reason::Unknown);

                        said.is(right, || format!("{index:#x}: guest, {way:?}: {outcome:?}"));
                    }
                    (Needs::Nobody, _) => {
                        let taken = scratch.set(index, value)?;

                        said.is(!taken, || format!("{index:#x}: host, {way:?}: done"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// KVM refuses a reserved bit, with all others unchanged.
    fn reserved(&self, said: &mut Said) -> anyhow::Result<()> {
        let scratch = self.scratch(&self.cpuid)?;

        for (index, _) in indices() {
            let mask = catalogue::reserved(index, Some(self.vendor));
            let value = scratch.get(index)?.unwrap_or(0);

            for bit in (0..u64::BITS).filter(|&bit| mask >> bit & 1 != 0) {
                let taken = scratch.set(index, value | 1 << bit)?;

                said.is(!taken, || format!("{index:#x}: bit {bit} is accepted"));
            }
        }
        Ok(())
    }

    fn constants(&self, said: &mut Said) -> anyhow::Result<()> {
        let scratch = self.scratch(&self.cpuid)?;

        for (index, rule) in indices() {
            let of_common_code = rule.served(self.vendor).read == Server::Kvm;

            if let Some(constant) = rule.read.value.filter(|_| of_common_code) {
                let value = scratch.get(index)?;

                said.is(value == Some(constant), || {
                    format!("{index:#x}: {value:x?}")
                });
            }
        }
        Ok(())
    }

    fn fixed(&self, said: &mut Said) -> anyhow::Result<()> {
        let mut scratch = self.scratch(&self.cpuid)?;

        scratch.run_once()?;
        for (index, _) in indices().filter(|&(index, _)| catalogue::is_fixed_after_run(index)) {
            let Some(value) = scratch.get(index)? else {
                continue;
            };

            for bit in 0..u64::BITS {
                let taken = scratch.set(index, value ^ 1 << bit)?;

                said.is(!taken, || format!("{index:#x}: bit {bit} changes"));
            }
        }
        Ok(())
    }
}

/// All MSRs that KVM's common code knows.
fn indices() -> impl Iterator<Item = (u32, &'static Rule)> {
    catalogue::declared()
        .flat_map(|(first, last, rule)| (first..=last).map(move |index| (index, rule)))
}

fn reason(check: &Check) -> Option<Reason> {
    match check.otherwise? {
        Otherwise::Unknown => Some(Reason::Unknown),
        Otherwise::Invalid => Some(Reason::Invalid),
        Otherwise::Dropped => None,
    }
}

fn ways(check: &Check) -> impl Iterator<Item = Way> {
    [Way::Read, Way::Write]
        .into_iter()
        .filter(|&way| check.way.is_none_or(|of| of == way))
}

/// The accesses for a check: for a check of some written bits, one for each bit.
fn accesses(check: &Check) -> Vec<(Way, u64)> {
    if check.bits == u64::MAX {
        return ways(check).map(|way| (way, 0)).collect();
    }
    (0..u64::BITS)
        .map(|bit| 1 << bit)
        .filter(|bit| check.bits & bit != 0)
        .map(|bit| (Way::Write, bit))
        .collect()
}
