// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds the entry that another entry needs first, or that undoes it.

use std::collections::BTreeSet;

use kvm_bindings::kvm_msr_entry;

use crate::check::target::Target;
use crate::error::Result;
use crate::scratch::Scratch;
use crate::state;

/// The number of entries between two checks of the suspects.
const STRIDE: usize = 32;

/// An entry that succeeds if it is written again after the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    pub(super) position: usize,
    /// Whether KVM accepts it, but its final value is another.
    pub(super) silent: bool,
}

/// The position of the entry that causes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Culprit {
    /// The suspect succeeds if it comes after this entry.
    After(usize),
    /// This entry undoes it.
    UndoneBy(usize),
}

/// The state of a suspect while the list is restored again.
#[derive(Clone, Copy)]
enum Seen {
    /// It was not written yet.
    Nothing,
    /// It failed at the last check.
    Bad,
    /// It has succeeded so far.
    Good,
    /// It changed between these positions.
    Decided(Culprit, usize),
}

/// Finds the cause for each suspect; none if it can't be found.
pub(super) fn culprits(
    target: &Target<'_>,
    entries: &[kvm_msr_entry],
    suspects: &[Suspect],
) -> Result<Vec<Option<Culprit>>> {
    let own = suspects.iter().map(|suspect| suspect.position + 1);
    let mut stops: BTreeSet<_> = (0..entries.len())
        .step_by(STRIDE)
        .chain(own)
        .chain([entries.len()])
        .collect();

    // First finds the interval, and then the position in it.
    for seen in replay(target, entries, suspects, &stops)? {
        if let Seen::Decided(Culprit::After(last) | Culprit::UndoneBy(last), first) = seen {
            stops.extend(first..=last);
        }
    }
    Ok(replay(target, entries, suspects, &stops)?
        .into_iter()
        .map(|seen| match seen {
            Seen::Decided(culprit, _) => Some(culprit),
            _ => None,
        })
        .collect())
}

/// Restores the list, and checks the suspects at each stop. A culprit is the last entry before the
/// stop.
/// the stop.
fn replay(
    target: &Target<'_>,
    entries: &[kvm_msr_entry],
    suspects: &[Suspect],
    stops: &BTreeSet<usize>,
) -> Result<Vec<Seen>> {
    let vcpu = target.vcpu()?;
    let mut seen = vec![Seen::Nothing; suspects.len()];
    let mut from = 0;

    for &to in stops {
        let Some(last) = to.checked_sub(1) else {
            continue;
        };

        state::write(vcpu.vcpu(), entries.get(from..to).unwrap_or_default())?;
        for (suspect, seen) in suspects.iter().zip(&mut seen) {
            let Some(entry) = entries.get(suspect.position) else {
                continue;
            };

            *seen = match *seen {
                Seen::Nothing if to <= suspect.position => Seen::Nothing,
                Seen::Nothing if suspect.silent && is_kept(&vcpu, entry)? => Seen::Good,
                Seen::Nothing => Seen::Bad,
                Seen::Bad if is_fine(&vcpu, entry, suspect.silent)? => {
                    Seen::Decided(Culprit::After(last), from)
                }
                Seen::Good if !is_kept(&vcpu, entry)? => {
                    Seen::Decided(Culprit::UndoneBy(last), from)
                }
                seen => seen,
            };
        }
        from = to;
    }
    Ok(seen)
}

/// Whether an MSR has the value of the entry.
pub(super) fn is_kept(vcpu: &Scratch, entry: &kvm_msr_entry) -> Result<bool> {
    Ok(vcpu.get(entry.index)? == Some(entry.data))
}

/// Writes an entry. Returns whether KVM accepts it, and if requested, keeps it.
pub(super) fn is_fine(vcpu: &Scratch, entry: &kvm_msr_entry, kept: bool) -> Result<bool> {
    Ok(vcpu.set(entry.index, entry.data)? && (!kept || is_kept(vcpu, entry)?))
}

/// Finds the entry before `position` because of which KVM refuses the entry there, which it
/// accepts on a new vCPU.
pub(super) fn hindrance(
    target: &Target<'_>,
    entries: &[kvm_msr_entry],
    position: usize,
) -> Result<Option<usize>> {
    let Some(entry) = entries.get(position) else {
        return Ok(None);
    };
    // It is accepted after this number of them, but not after that number.
    let (mut few, mut many) = (0, position);

    while few + 1 < many {
        let middle = usize::midpoint(few, many);
        let vcpu = target.vcpu()?;

        state::write(vcpu.vcpu(), entries.get(..middle).unwrap_or_default())?;
        if is_fine(&vcpu, entry, false)? {
            few = middle;
        } else {
            many = middle;
        }
    }
    Ok(many.checked_sub(1))
}

/// An entry that has to be moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) position: usize,
    /// The position of the entry next to which it has to be.
    pub(super) beside: usize,
    /// Whether it has to be before that entry, and not after it.
    pub(super) in_front: bool,
}

/// The positions of `count` entries, with some of them moved.
pub(super) fn reordered(count: usize, moves: &[Move]) -> Vec<usize> {
    let is_moved = |position: &usize| moves.iter().any(|entry| entry.position == *position);
    let mut order: Vec<_> = (0..count).filter(|at| !is_moved(at)).collect();
    let mut moves = moves.to_vec();

    // The last first: if several are moved to the same place, the first is inserted last and comes
    // first.
    moves.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.position));
    while !moves.is_empty() {
        let left = moves.len();

        moves.retain(
            |entry| match order.iter().position(|&position| position == entry.beside) {
                Some(at) => {
                    order.insert(at + usize::from(!entry.in_front), entry.position);
                    false
                }
                None => true,
            },
        );
        if moves.len() == left {
            // They wait for each other.
            order.extend(moves.drain(..).map(|entry| entry.position));
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_another_stands_behind_it() {
        let behind = |position, beside| Move {
            position,
            beside,
            in_front: false,
        };
        let in_front = |position, beside| Move {
            in_front: true,
            ..behind(position, beside)
        };

        assert_eq!(reordered(5, &[behind(0, 3), behind(1, 3)]), [2, 3, 0, 1, 4]);
        assert_eq!(reordered(3, &[behind(0, 1), behind(1, 2)]), [2, 1, 0]);
        assert_eq!(reordered(3, &[in_front(2, 0)]), [2, 0, 1]);
        assert_eq!(reordered(3, &[]), [0, 1, 2]);
        // A cycle.
        let mut order = reordered(3, &[behind(0, 1), behind(1, 0)]);

        order.sort_unstable();
        assert_eq!(order, [0, 1, 2]);
    }
}
