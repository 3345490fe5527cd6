// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Checks whether this host accepts a list of MSRs: restores it on scratch vCPUs, and finds the
//! reason for each MSR that fails.
//!
//! The verdicts are KVM's: a list is restored as in [`state::restore`], with the result of a
//! `KVM_SET_MSRS` for each entry, in the order of the list. Reasons are found by experiments:
//! again after the others, with another CPUID, with fewer bits. The [`catalogue`] is used only if
//! no experiment gives the reason.

mod feature;
mod order;
mod report;
mod reserved;
mod target;

use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;

use crate::catalogue;
use crate::catalogue::Owner;
use crate::catalogue::Way;
use crate::cpuid::Cpuid;
use crate::cpuid::Vendor;
use crate::error::Error;
use crate::error::Result;
use crate::number::Hex;
use crate::scratch::Scratch;
use crate::snapshot::SCHEMA;
use crate::snapshot::Snapshot;
use crate::state;
use crate::state::Status;

use self::feature::Laboratory;
use self::order::Culprit;
use self::order::Move;
use self::order::Suspect;
use self::target::Target;

pub use self::report::CpuidBit;
pub use self::report::Entry;
pub use self::report::Reason;
pub use self::report::Report;
pub use self::report::Vcpu;
pub use self::report::Verdict;

/// EFER.LMA follows CR0.PG, which `KVM_SET_SREGS` sets, so restoring MSRs can't set it.
const EFER: u32 = 0xc000_0080;
const EFER_LMA: u64 = 1 << 10;

/// Options.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The vCPU's CPUID and its name. None: the file's, or all that the host supports if there is
    /// none or KVM refuses it.
    pub cpuid: Option<(String, Cpuid)>,
    /// Whether the vCPU has run before, like a vCPU after a reset.
    pub after_run: bool,
}

/// Checks whether this host accepts the MSRs of a file.
///
/// # Errors
///
/// [`Error::Kvm`] if an ioctl fails that must succeed.
pub fn check(kvm: &Kvm, file: &Snapshot, options: &Options) -> Result<Report> {
    let host = Cpuid::supported(kvm)?;
    let mut entries: Vec<_> = file
        .msrs
        .iter()
        .map(|msr| state::entry(msr.index.0, msr.value.0))
        .collect();
    let mut notes = Vec::new();
    let (name, cpuid) = match &options.cpuid {
        Some((name, cpuid)) => (name.clone(), cpuid.clone()),
        None if file.cpuid.0.is_empty() => {
            let mut cpuid = host.clone();

            for modifier in cpuid.apply(&file.cpuid_modifiers) {
                notes.push(format!(
                    "The file sets bits of CPUID {}, which this host does not have",
                    modifier.function
                ));
            }
            ("host".to_owned(), cpuid)
        }
        None => ("file".to_owned(), file.cpuid.clone()),
    };
    let mut target = Target::new(
        kvm,
        &entries,
        cpuid,
        file.mcg_cap.map(|cap| cap.0),
        options.after_run,
    );
    let mut about = Vcpu {
        cpuid: name,
        after_run: options.after_run,
        mcg_cap: file.mcg_cap,
        synic: target.synic,
        notes,
    };
    let vcpu = match target.vcpu() {
        Err(Error::Kvm {
            ioctl: "KVM_SET_CPUID2",
            source,
        }) if options.cpuid.is_none() => {
            about.notes.push(format!(
                "KVM refuses the file's CPUID ({source}), so the host's CPUID was used"
            ));
            "host".clone_into(&mut about.cpuid);
            target.cpuid.clone_from(&host);
            target.vcpu()?
        }
        vcpu => vcpu?,
    };
    let before = before(&vcpu, &entries)?;

    fill_in(file, &before, &mut entries);
    let mut check = Check {
        target,
        host,
        before,
        moving: file.msrs.iter().map(|msr| msr.moves).collect(),
        problems: Vec::new(),
        moves: Vec::new(),
        entries,
        order: None,
    };

    check.restore(&vcpu)?;
    check.explain(vcpu)?;
    Ok(check.report(file, about))
}

/// The vCPU's values of the entries. MSRs outside KVM's rules are left out: each would need an
/// ioctl.
/// an ioctl.
fn before(vcpu: &Scratch, entries: &[kvm_msr_entry]) -> Result<Vec<Option<u64>>> {
    let is_known = |entry: &&kvm_msr_entry| catalogue::rule(entry.index).is_declared();
    let known: Vec<_> = entries
        .iter()
        .filter(is_known)
        .map(|entry| entry.index)
        .collect();
    let mut values = state::read(vcpu.vcpu(), &known)?.into_iter();

    Ok(entries
        .iter()
        .map(|entry| is_known(&entry).then(|| values.next()).flatten().flatten())
        .collect())
}

/// A template gives some bits, and leaves the others unchanged.
fn fill_in(file: &Snapshot, before: &[Option<u64>], entries: &mut [kvm_msr_entry]) {
    for ((entry, msr), before) in entries.iter_mut().zip(&file.msrs).zip(before) {
        entry.data = msr.apply(before.unwrap_or(0));
    }
}

/// An entry that fails.
struct Problem {
    position: usize,
    entry: kvm_msr_entry,
    verdict: Verdict,
    before: Option<u64>,
    reads: Option<u64>,
    reasons: Vec<Reason>,
}

impl Problem {
    fn is_changed(&self) -> bool {
        self.verdict == Verdict::Changed
    }
}

struct Check<'a> {
    target: Target<'a>,
    host: Cpuid,
    entries: Vec<kvm_msr_entry>,
    /// The values of the entries' MSRs before.
    before: Vec<Option<u64>>,
    /// Whether the file says that an entry changes by itself.
    moving: Vec<bool>,
    problems: Vec<Problem>,
    /// Entries that would succeed at another position.
    moves: Vec<Move>,
    order: Option<Vec<usize>>,
}

impl Check<'_> {
    /// Restores the list, and collects the entries that fail.
    fn restore(&mut self, vcpu: &Scratch) -> Result<()> {
        let restored = state::restore(vcpu.vcpu(), &self.entries)?;
        let refused: Vec<_> = restored.refused().collect();

        for position in refused {
            self.problems.push(Problem {
                position,
                entry: self.entries[position],
                verdict: Verdict::Refused,
                before: self.before[position],
                reads: None,
                reasons: Vec::new(),
            });
        }
        for change in state::changed(vcpu.vcpu(), &self.entries, &restored)? {
            if self.is_excused(&change) {
                continue;
            }
            self.problems.push(Problem {
                position: change.position,
                entry: self.entries[change.position],
                verdict: Verdict::Changed,
                before: self.before[change.position],
                reads: change.reads,
                reasons: Vec::new(),
            });
        }
        self.problems.sort_by_key(|problem| problem.position);
        Ok(())
    }

    fn is_excused(&self, change: &state::Change) -> bool {
        self.moving.get(change.position).copied().unwrap_or(false)
            || change.index == EFER
                && change
                    .reads
                    .is_some_and(|reads| reads ^ change.wrote == EFER_LMA)
    }

    /// Finds the reasons. The list was restored on `vcpu`.
    fn explain(&mut self, vcpu: Scratch) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        // The experiments change CPUID, which needs a vCPU that has not run.
        let fresh = if self.target.after_run {
            let fresh = self.target.fresh()?;

            self.explain_fixed(&vcpu, &fresh)?;
            fresh
        } else {
            vcpu
        };

        self.explain_unknown(&fresh)?;
        self.explain_order(&fresh)?;
        self.explain_features(&fresh)?;
        self.explain_hindered()?;
        self.prove_order()?;
        for problem in &mut self.problems {
            if problem.reasons.is_empty() {
                problem.reasons = match problem.verdict {
                    Verdict::Changed => not_kept(problem),
                    _ => refused(problem, &fresh, &self.host)?,
                };
            }
        }
        Ok(())
    }

    /// Tests the entries on a vCPU that has not run.
    fn explain_fixed(&mut self, vcpu: &Scratch, fresh: &Scratch) -> Result<()> {
        let restored = state::restore(fresh.vcpu(), &self.entries)?;

        for problem in &mut self.problems {
            if problem.verdict == Verdict::Refused
                && restored.statuses.get(problem.position) == Some(&Status::Done)
            {
                let reads = vcpu.get(problem.entry.index)?.unwrap_or_default();

                // The basis of all experiments has to be the same.
                fresh.set(problem.entry.index, reads)?;
                problem
                    .reasons
                    .push(Reason::FixedAfterRun { reads: Hex(reads) });
            }
        }
        Ok(())
    }

    /// MSRs that KVM neither reads nor accepts 0 for, and that belong to the other vendor or to
    /// nobody. There may be many, and no experiment would help.
    fn explain_unknown(&mut self, vcpu: &Scratch) -> Result<()> {
        let vendor = self.host.vendor();

        for problem in &mut self.problems {
            let index = problem.entry.index;
            // MSRs that KVM's common code serves exist on every host.
            let of = owner(index).filter(|of| {
                Some(*of) != vendor && catalogue::rule(index).is_unsupported(Way::Write)
            });

            if problem.verdict == Verdict::Refused
                && problem.reasons.is_empty()
                && (of.is_some() || is_nobodys(index))
                && vcpu.get(index)?.is_none()
                && (problem.entry.data == 0 || !vcpu.set(index, 0)?)
            {
                problem.reasons.push(Reason::Unknown { of });
            }
        }
        Ok(())
    }

    /// Finds entries that succeed after all others were written.
    fn explain_order(&mut self, vcpu: &Scratch) -> Result<()> {
        let mut suspects = Vec::new();

        for problem in self.open() {
            let silent = problem.is_changed();

            if order::is_fine(vcpu, &problem.entry, silent)? {
                suspects.push(Suspect {
                    position: problem.position,
                    silent,
                });
            }
        }
        if suspects.is_empty() {
            return Ok(());
        }
        let culprits = order::culprits(&self.target, &self.entries, &suspects)?;

        for (suspect, culprit) in suspects.iter().zip(culprits) {
            let Some(culprit) = culprit else {
                continue;
            };
            let (Culprit::After(at) | Culprit::UndoneBy(at)) = culprit;
            let index = Hex(self.entries[at].index);

            self.moves.push(Move {
                position: suspect.position,
                beside: at,
                in_front: false,
            });
            for problem in &mut self.problems {
                if problem.position == suspect.position {
                    problem.reasons.push(match culprit {
                        Culprit::After(_) => Reason::Order {
                            after: index,
                            after_position: at,
                        },
                        Culprit::UndoneBy(_) => Reason::OverwrittenBy {
                            by: index,
                            by_position: at,
                        },
                    });
                }
            }
        }
        Ok(())
    }

    /// Finds entries that fail because of an earlier entry.
    fn explain_hindered(&mut self) -> Result<()> {
        let is_open =
            |problem: &Problem| problem.reasons.is_empty() && problem.verdict == Verdict::Refused;

        if !self.problems.iter().any(is_open) {
            return Ok(());
        }
        let vcpu = self.target.vcpu()?;

        for problem in self.problems.iter_mut().filter(|problem| is_open(problem)) {
            if !order::is_fine(&vcpu, &problem.entry, false)? {
                continue;
            }
            let Some(at) = order::hindrance(&self.target, &self.entries, problem.position)? else {
                continue;
            };

            problem.reasons.push(Reason::TooLate {
                before: Hex(self.entries[at].index),
                before_position: at,
            });
            self.moves.push(Move {
                position: problem.position,
                beside: at,
                in_front: true,
            });
        }
        Ok(())
    }

    /// Tries an order with these entries at other positions.
    fn prove_order(&mut self) -> Result<()> {
        if self.moves.is_empty() {
            return Ok(());
        }
        let order = order::reordered(self.entries.len(), &self.moves);
        let entries: Vec<_> = order
            .iter()
            .filter_map(|&position| self.entries.get(position).copied())
            .collect();
        let vcpu = self.target.vcpu()?;
        let restored = state::restore(vcpu.vcpu(), &entries)?;
        let problems = restored.refused().count()
            + state::changed(vcpu.vcpu(), &entries, &restored)?
                .iter()
                .filter(|change| {
                    let position = order.get(change.position).copied();

                    !self.is_excused(&state::Change {
                        position: position.unwrap_or(usize::MAX),
                        ..**change
                    })
                })
                .count();

        if problems < self.problems.len() {
            self.order = Some(order);
        }
        Ok(())
    }

    /// Finds entries that succeed with a CPUID that has all features of the host.
    fn explain_features(&mut self, vcpu: &Scratch) -> Result<()> {
        let entries: Vec<_> = self
            .open()
            .map(|problem| (problem.entry, problem.is_changed()))
            .collect();
        let found = Laboratory::new(vcpu, &self.target.cpuid, &self.host).bits(&entries)?;
        let mut found = found.into_iter();

        for problem in &mut self.problems {
            if !problem.reasons.is_empty() {
                continue;
            }
            match found.next() {
                Some(bits) if !bits.is_empty() => {
                    problem.reasons.push(Reason::Cpuid { bits, proven: true });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn open(&self) -> impl Iterator<Item = &Problem> {
        self.problems
            .iter()
            .filter(|problem| problem.reasons.is_empty())
    }

    fn report(self, file: &Snapshot, vcpu: Vcpu) -> Report {
        let vendor = file.vendor();
        let mut problems = self.problems.into_iter().peekable();
        let mut msrs = Vec::with_capacity(self.entries.len());

        for (position, (entry, msr)) in self.entries.iter().zip(&file.msrs).enumerate() {
            let problem = problems.next_if(|problem| problem.position == position);
            let (verdict, reads, reasons) = problem
                .map_or((Verdict::Fine, None, Vec::new()), |problem| {
                    (problem.verdict, problem.reads, problem.reasons)
                });

            msrs.push(Entry {
                index: Hex(entry.index),
                name: msr
                    .name
                    .clone()
                    .or_else(|| catalogue::name(entry.index, vendor)),
                value: Hex(entry.data),
                verdict,
                reads: reads.map(Hex),
                reasons,
            });
        }
        let count = |verdict| msrs.iter().filter(|entry| entry.verdict == verdict).count();

        Report {
            schema: SCHEMA,
            vcpu,
            fine: count(Verdict::Fine),
            refused: count(Verdict::Refused),
            changed: count(Verdict::Changed),
            msrs,
            order: self.order,
        }
    }
}

/// Why KVM changes a value, as far as the value shows it.
fn not_kept(problem: &Problem) -> Vec<Reason> {
    let reads = problem.reads.unwrap_or_default();

    vec![if problem.before == Some(reads) {
        Reason::Ignored { reads: Hex(reads) }
    } else {
        Reason::NotKept {
            lost: Hex(problem.entry.data & !reads),
            gained: Hex(reads & !problem.entry.data),
        }
    }]
}

/// Why KVM refuses a value at any position, with all features of the host.
fn refused(problem: &Problem, vcpu: &Scratch, host: &Cpuid) -> Result<Vec<Reason>> {
    let kvm_msr_entry { index, data, .. } = problem.entry;
    let reads = vcpu.get(index)?;
    // KVM accepts 0 for most MSRs that it knows, and for all that it lists.
    let mut taken = None;

    for other in [Some(0), reads].into_iter().flatten() {
        if taken.is_none() && other != data && vcpu.set(index, other)? {
            taken = Some(other);
        }
    }
    let bits = feature::not_offered(index, host);

    if !bits.is_empty() {
        return Ok(vec![Reason::Cpuid {
            bits,
            proven: false,
        }]);
    }
    Ok(vec![match (taken, reads) {
        (Some(taken), _) => {
            let changed = reserved::bits_to_change(data, taken, |value| vcpu.set(index, value))?;

            Reason::ReservedBits {
                clear: Hex(changed & data),
                set: Hex(changed & !data),
                takes: Hex(data ^ changed),
            }
        }
        (None, Some(reads)) => Reason::ReadOnly { reads: Hex(reads) },
        (None, None) => Reason::Unknown { of: None },
    }])
}

/// Whether it has neither rules in KVM nor a known name; performance counters are such MSRs.
fn is_nobodys(index: u32) -> bool {
    !catalogue::rule(index).is_declared() && catalogue::name(index, None).is_none()
}

/// The vendor of the MSR, if only one has it.
fn owner(index: u32) -> Option<Vendor> {
    let of = |vendor| Some(catalogue::msr(index, Some(vendor))?.owner);

    match (of(Vendor::Amd), of(Vendor::Intel)) {
        (Some(Owner::Amd), None | Some(Owner::Amd)) => Some(Vendor::Amd),
        (None | Some(Owner::Intel), Some(Owner::Intel)) => Some(Vendor::Intel),
        _ => None,
    }
}
