// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Statistics of a guest's accesses.

use super::Attached;
use super::Error;
use super::Result;
use super::raw;
use super::uapi;
use super::uapi::kmsr_stat;
use crate::filter::Access;

const IOCTL: &str = "KMSR_STATS";

/// The statistics of a VM.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// For each MSR and kind of access.
    pub stats: Vec<Stat>,
    /// Accesses that were not counted.
    pub lost: u64,
    /// The frequency of the TSC in kHz, to convert cycles to time.
    pub tsc_khz: u32,
}

/// The statistics of one kind of access to an MSR.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stat {
    /// The MSR.
    pub index: u32,
    /// The kind of access.
    pub access: Access,
    /// The number of accesses.
    pub count: u64,
    /// Accesses that the filter or a rule denied.
    pub denied: u64,
    /// Accesses for which KVM had no such MSR.
    pub unsupported: u64,
    /// Accesses that exited to user space.
    pub user_exits: u64,
    /// Accesses that ended with #GP.
    pub gp: u64,
    /// The number of accesses by duration: bucket `i` is for 2^i to 2^(i+1) - 1 cycles of the TSC,
    /// the last one also for all longer ones.
    pub buckets: [u64; uapi::KMSR_NR_BUCKETS as usize],
}

impl From<&kmsr_stat> for Stat {
    fn from(raw: &kmsr_stat) -> Self {
        Stat {
            index: raw.index,
            access: if raw.access == uapi::KMSR_ACCESS_WRITE {
                Access::Write
            } else {
                Access::Read
            },
            count: raw.count,
            denied: raw.denied,
            unsupported: raw.unsupported,
            user_exits: raw.user_exits,
            gp: raw.gp,
            buckets: raw.buckets,
        }
    }
}

impl Attached {
    /// Starts statistics (`KMSR_STATS`), for which [`super::Rights::OBSERVE`] is needed, from 0.
    /// They end when this file is closed.
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`]: `EBUSY` if another file keeps statistics of the VM.
    pub fn start_statistics(&self) -> Result<()> {
        self.stats(uapi::KMSR_OP_START)
    }

    /// Stops statistics, and keeps the records.
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`].
    pub fn stop_statistics(&self) -> Result<()> {
        self.stats(uapi::KMSR_OP_STOP)
    }

    fn stats(&self, op: u32) -> Result<()> {
        raw::stats(&self.file, op, &mut []).map_err(Error::ioctl(IOCTL))?;
        Ok(())
    }

    /// The statistics so far.
    ///
    /// # Errors
    ///
    /// [`Error::Ioctl`].
    pub fn statistics(&self) -> Result<Statistics> {
        /// Enough for a guest that accesses only MSRs that exist.
        const ROOM: usize = 512;
        let mut statistics = Statistics::default();
        let records = super::attached::list(ROOM, |records| {
            let stats = raw::stats(&self.file, uapi::KMSR_OP_READ, records)?;

            statistics.lost = stats.lost;
            statistics.tsc_khz = stats.tsc_khz;
            Ok(stats.nr_records)
        })
        .map_err(Error::ioctl(IOCTL))?;

        statistics.stats = records.iter().map(Stat::from).collect();
        Ok(statistics)
    }
}
