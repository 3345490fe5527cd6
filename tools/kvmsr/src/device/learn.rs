// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Learning: which MSRs a guest accesses.

use serde::Deserialize;
use serde::Serialize;

use super::Attached;
use super::Error;
use super::Result;
use super::raw;
use super::uapi;
use super::uapi::kmsr_learned;

const IOCTL: &str = "KMSR_LEARN";

/// What was learned.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Learning {
    /// The MSRs.
    pub msrs: Vec<Learned>,
    /// The number of accesses to further MSRs, for which there was no room.
    pub lost: u64,
}

/// What is known of an MSR.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Learned {
    /// Its index.
    pub index: u32,
    /// The number of reads.
    pub reads: u64,
    /// The number of writes.
    pub writes: u64,
    /// The bits that writes changed.
    pub changed: u64,
    /// The first and the last value of the MSR that was read or written; none if no access had
    /// one, e.g. if all were denied.
    pub values: Option<(u64, u64)>,
    /// How the guest accessed it.
    pub paths: Vec<Path>,
    /// Whether KVM lacked the MSR at some access.
    pub unsupported: bool,
    /// Whether an access was denied.
    pub denied: bool,
}

/// How a guest accesses an MSR.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// RDMSR or WRMSR.
    Exit,
    /// RDMSR or WRMSRNS with an immediate index.
    Immediate,
    /// The instruction emulator.
    Emulator,
    /// The MSR list of a nested VM-entry or VM-exit.
    Nested,
}

impl Path {
    const BITS: [(u32, Path); 4] = [
        (uapi::KMSR_PATH_EXIT, Path::Exit),
        (uapi::KMSR_PATH_IMMEDIATE, Path::Immediate),
        (uapi::KMSR_PATH_EMULATOR, Path::Emulator),
        (uapi::KMSR_PATH_NESTED, Path::Nested),
    ];
}

impl From<&kmsr_learned> for Learned {
    fn from(raw: &kmsr_learned) -> Self {
        Learned {
            index: raw.index,
            reads: raw.reads,
            writes: raw.writes,
            changed: raw.changed,
            values: (raw.flags & uapi::KMSR_LEARNED_VALUE != 0).then_some((raw.first, raw.last)),
            paths: Path::BITS
                .iter()
                .filter(|(bit, _)| raw.paths & bit != 0)
                .map(|&(_, path)| path)
                .collect(),
            unsupported: raw.flags & uapi::KMSR_LEARNED_UNSUPPORTED != 0,
            denied: raw.flags & uapi::KMSR_LEARNED_DENIED != 0,
        }
    }
}

impl Attached {
    /// Starts learning (`KMSR_LEARN`), for which [`super::Rights::OBSERVE`] is needed, and discards
    /// earlier records. It ends when this file is closed. Meanwhile, KVM intercepts MSRs that it
    /// would pass through, so the guest is slower.
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`]: `EBUSY` if another file learns.
    pub fn start_learning(&self) -> Result<()> {
        self.learn(uapi::KMSR_OP_START)
    }

    /// Stops learning, and keeps the records.
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`].
    pub fn stop_learning(&self) -> Result<()> {
        self.learn(uapi::KMSR_OP_STOP)
    }

    fn learn(&self, op: u32) -> Result<()> {
        raw::learn(&self.file, op, &mut []).map_err(Error::ioctl(IOCTL))?;
        Ok(())
    }

    /// What was learned so far.
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`].
    pub fn learned(&self) -> Result<Learning> {
        let mut lost = 0;
        let records = super::attached::list(uapi::KMSR_MAX_LEARNED as usize, |records| {
            let learn = raw::learn(&self.file, uapi::KMSR_OP_READ, records)?;

            lost = learn.lost;
            Ok(learn.nr_records)
        })
        .map_err(Error::ioctl(IOCTL))?;

        Ok(Learning {
            msrs: records.iter().map(Learned::from).collect(),
            lost,
        })
    }
}
