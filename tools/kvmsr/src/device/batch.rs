// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Batches: any number of registers of a vCPU, with a status for each.

use std::io;
use std::time::Duration;

use super::Attached;
use super::Error;
use super::Result;
use super::Status;
use super::raw;
use super::uapi;
use super::uapi::kmsr_entry;

/// What an entry names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Id {
    /// An MSR of the vCPU, as for `KVM_GET_MSRS`.
    Msr(u32),
    /// A feature MSR, as for `KVM_GET_MSRS` on `/dev/kvm`. It can't be set.
    Feature(u32),
    /// A register, as for `KVM_GET_ONE_REG`.
    Register(u64),
}

/// A register and its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The register.
    pub id: Id,
    /// Its value: to set, or as it was read.
    pub value: u64,
}

impl From<Entry> for kmsr_entry {
    fn from(entry: Entry) -> Self {
        let (kind, id) = match entry.id {
            Id::Msr(index) => (uapi::KMSR_ENTRY_MSR, index.into()),
            Id::Feature(index) => (uapi::KMSR_ENTRY_FEATURE, index.into()),
            Id::Register(id) => (uapi::KMSR_ENTRY_REG, id),
        };

        kmsr_entry {
            kind,
            id,
            data: entry.value,
            ..Default::default()
        }
    }
}

impl Attached {
    /// Reads registers of a vCPU, in their order (`KMSR_BATCH`), for which
    /// [`super::Rights::STATE`] is needed. `vcpu` is the argument of `KVM_CREATE_VCPU`. Waits up
    /// to `timeout` for a vCPU that is in use, e.g. in `KVM_RUN`.
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`]: `ENOENT` if there is no such vCPU, `EBUSY` if it was in use for
    /// `timeout`, `EINTR` for a signal meanwhile.
    pub fn get(
        &self,
        vcpu: u32,
        timeout: Duration,
        ids: &[Id],
    ) -> Result<Vec<std::result::Result<u64, Status>>> {
        let entries = ids.iter().map(|&id| Entry { id, value: 0 });

        self.batch(uapi::KMSR_BATCH_GET, vcpu, timeout, entries)
    }

    /// Sets registers of a vCPU, in their order; see [`Attached::get`]. An entry that fails does
    /// not end the batch.
    ///
    /// # Errors
    ///
    /// As [`Attached::get`]. Then no register, or only the first ones, are set.
    pub fn set(
        &self,
        vcpu: u32,
        timeout: Duration,
        entries: &[Entry],
    ) -> Result<Vec<std::result::Result<(), Status>>> {
        let done = self.batch(uapi::KMSR_BATCH_SET, vcpu, timeout, entries.iter().copied())?;

        Ok(done.into_iter().map(|done| done.map(|_| ())).collect())
    }

    fn batch(
        &self,
        op: u32,
        vcpu: u32,
        timeout: Duration,
        entries: impl Iterator<Item = Entry>,
    ) -> Result<Vec<std::result::Result<u64, Status>>> {
        let mut entries: Vec<kmsr_entry> = entries.map(kmsr_entry::from).collect();

        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let done = raw::batch(&self.file, op, vcpu, milliseconds(timeout), &mut entries)
            .map_err(|(source, _)| Error::ioctl("KMSR_BATCH")(source))?;

        if (done as usize) < entries.len() {
            return Err(Error::ioctl("KMSR_BATCH")(
                io::ErrorKind::Interrupted.into(),
            ));
        }
        Ok(entries.iter().map(outcome).collect())
    }
}

fn outcome(entry: &kmsr_entry) -> std::result::Result<u64, Status> {
    match Status::of_errno(entry.status) {
        None => Ok(entry.data),
        Some(status) => Err(status),
    }
}

/// A time for the module, which takes up to 49 days.
pub(super) fn milliseconds(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_a_status() {
        let entry = |status| kmsr_entry {
            status,
            data: 7,
            ..Default::default()
        };

        assert_eq!(outcome(&entry(0)), Ok(7));
        for (status, outcome_is) in [
            (-2, Status::NoSuchRegister),
            (-22, Status::Denied),
            (-5, Status::GuestMemory),
            (-95, Status::NotPossible),
            (-12, Status::Other(12)),
        ] {
            assert_eq!(outcome(&entry(status)), Err(outcome_is));
        }
    }

    #[test]
    fn times_that_are_too_long_are_cut() {
        assert_eq!(milliseconds(Duration::from_millis(1500)), 1500);
        assert_eq!(milliseconds(Duration::MAX), u32::MAX);
    }
}
