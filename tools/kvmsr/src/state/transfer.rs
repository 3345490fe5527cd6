// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `KVM_GET_MSRS` and `KVM_SET_MSRS` for any number of MSRs.

use std::io;

use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;

use crate::error::Error;
use crate::error::Result;
use crate::ioctl::MAX_ENTRIES;

/// The result for one entry.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Status {
    /// KVM read or wrote it.
    Done,
    /// KVM refused it.
    Refused,
}

/// The results for each entry of a list, in its order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// One for each entry: the result of a `KVM_GET_MSRS` or `KVM_SET_MSRS` call with this entry
    /// only.
    pub statuses: Vec<Status>,
    /// The number of ioctls.
    pub calls: usize,
}

impl Outcome {
    /// Whether no entry was refused.
    pub fn is_complete(&self) -> bool {
        self.refused().next().is_none()
    }

    /// Positions of the refused entries.
    pub fn refused(&self) -> impl Iterator<Item = usize> {
        self.statuses
            .iter()
            .enumerate()
            .filter(|(_, status)| **status == Status::Refused)
            .map(|(position, _)| position)
    }
}

/// An entry for `KVM_SET_MSRS`.
pub fn entry(index: u32, value: u64) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        data: value,
        ..Default::default()
    }
}

/// Reads any number of a vCPU's MSRs; none for MSRs that KVM refuses.
///
/// # Errors
///
/// [`Error::Kvm`] if the ioctl as a whole fails.
pub fn read(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<Option<u64>>> {
    read_with(indices, |msrs| vcpu.get_msrs(msrs))
}

/// Reads feature MSRs of KVM's device: the host's features.
///
/// # Errors
///
/// As [`read`].
pub fn read_features(kvm: &Kvm, indices: &[u32]) -> Result<Vec<Option<u64>>> {
    read_with(indices, |msrs| kvm.get_msrs(msrs))
}

/// Writes any number of a vCPU's MSRs, in the given order.
///
/// # Errors
///
/// As [`read`]. Earlier entries may have been written.
pub fn write(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<Outcome> {
    transfer(entries.len(), |from, to| {
        let msrs = fam(entries.get(from..to).unwrap_or_default())?;

        Ok(vcpu.set_msrs(&msrs)?)
    })
    .map_err(Error::kvm("KVM_SET_MSRS"))
}

fn read_with(
    indices: &[u32],
    mut get: impl FnMut(&mut Msrs) -> Result<usize, kvm_ioctls::Error>,
) -> Result<Vec<Option<u64>>> {
    let mut values = vec![None; indices.len()];

    transfer(indices.len(), |from, to| {
        let entries: Vec<_> = indices
            .get(from..to)
            .unwrap_or_default()
            .iter()
            .map(|&index| entry(index, 0))
            .collect();
        let mut msrs = fam(&entries)?;
        let done = get(&mut msrs)?;

        for (value, entry) in values[from..to].iter_mut().zip(msrs.as_slice()).take(done) {
            *value = Some(entry.data);
        }
        Ok(done)
    })
    .map_err(Error::kvm("KVM_GET_MSRS"))?;
    Ok(values)
}

fn fam(entries: &[kvm_msr_entry]) -> io::Result<Msrs> {
    Msrs::from_entries(entries).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))
}

/// Runs `call` on `count` entries. It gets a range of them, and returns the number of entries
/// before the first refused one; the next range starts after that entry.
fn transfer(
    count: usize,
    mut call: impl FnMut(usize, usize) -> io::Result<usize>,
) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let statuses = &mut outcome.statuses;

    while statuses.len() < count {
        let from = statuses.len();
        let to = count.min(from + MAX_ENTRIES);
        let done = call(from, to)?.min(to - from);

        outcome.calls += 1;
        statuses.resize(from + done, Status::Done);
        if from + done < to {
            statuses.push(Status::Refused);
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A model of KVM: it stops at entries that it refuses.
    fn kvm(bad: &BTreeSet<usize>, from: usize, to: usize) -> usize {
        assert!(to - from <= MAX_ENTRIES && from < to);
        (from..to).take_while(|at| !bad.contains(at)).count()
    }

    proptest! {
        #[test]
        fn each_entry_is_tried_once(
            count in 0..2000usize,
            bad in proptest::collection::btree_set(0..2000usize, 0..200),
        ) {
            let bad: BTreeSet<_> = bad.into_iter().filter(|&at| at < count).collect();
            let mut tried = 0;
            let outcome = transfer(count, |from, to| {
                let done = kvm(&bad, from, to);

                // The next range starts after the refused entry, so no entry is tried twice.
                prop_assert_eq_io(from, tried)?;
                tried += done + usize::from(from + done < to);
                Ok(done)
            })
            .unwrap();

            prop_assert_eq!(outcome.refused().collect::<BTreeSet<_>>(), bad.clone());
            prop_assert_eq!(outcome.statuses.len(), count);
            prop_assert!(outcome.calls <= count.div_ceil(MAX_ENTRIES) + bad.len());
        }
    }

    fn prop_assert_eq_io(left: usize, right: usize) -> io::Result<()> {
        if left == right {
            Ok(())
        } else {
            Err(io::Error::other(format!("{left} is not {right}")))
        }
    }

    #[test]
    fn a_hundred_refused_of_4096_take_116_calls_at_most() {
        let bad: BTreeSet<_> = (0..100).map(|i| i * 40 + 7).collect();
        let outcome = transfer(4096, |from, to| Ok(kvm(&bad, from, to))).unwrap();

        assert_eq!(outcome.refused().count(), 100);
        assert!(outcome.calls <= 100 + 17, "{}", outcome.calls);
    }

    #[test]
    fn a_kernel_that_claims_too_much_is_not_believed() {
        let outcome = transfer(300, |_, _| Ok(1000)).unwrap();

        assert_eq!(outcome.statuses.len(), 300);
        assert_eq!(outcome.calls, 2);
    }
}
