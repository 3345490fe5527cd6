// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Counts the accesses of one VM with the statistics of kvm-msr.ko.

use std::collections::BTreeMap;
use std::time::Instant;

use super::ENGINE_NOTE;
use super::counter::Count;
use super::counter::Method;
use super::owners::Owner;
use super::report::Row;
use super::report::Top;
use super::session::Selection;
use super::session::per_second;
use crate::catalogue;
use crate::cpuid::Vendor;
use crate::device::Attached;
use crate::device::Statistics;
use crate::error::Result;
use crate::filter::Access;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// Counts which MSRs a VM accesses, until it is dropped.
#[derive(Debug)]
pub struct EngineSession {
    vm: Attached,
    owner: Owner,
    selection: Selection,
    vendor: Option<Vendor>,
    since: Instant,
}

impl EngineSession {
    /// Starts counting.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Device`], e.g. `EBUSY` if another program keeps statistics of the VM.
    pub fn new(
        vm: Attached,
        owner: Owner,
        selection: Selection,
        vendor: Option<Vendor>,
    ) -> Result<Self> {
        vm.start_statistics()?;
        Ok(EngineSession {
            vm,
            owner,
            selection,
            vendor,
            since: Instant::now(),
        })
    }

    /// Stops counting.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Device`], e.g. `ENODEV` if the VM has ended.
    pub fn finish(&mut self) -> Result<()> {
        Ok(self.vm.stop_statistics()?)
    }

    /// Restarts counting from 0.
    ///
    /// # Errors
    ///
    /// As [`EngineSession::finish`].
    pub fn reset(&mut self) -> Result<()> {
        self.vm.start_statistics()?;
        self.since = Instant::now();
        Ok(())
    }

    /// The counts.
    ///
    /// # Errors
    ///
    /// As [`EngineSession::finish`].
    pub fn report(&self) -> Result<Top> {
        let seconds = self.since.elapsed().as_secs_f64();

        Ok(self.top(&self.vm.statistics()?, seconds))
    }

    fn top(&self, statistics: &Statistics, seconds: f64) -> Top {
        let counts = counts(statistics, |index| self.selection.takes(&self.owner, index));
        let mut total = Count::default();
        let mut msrs = Vec::new();

        for (index, count) in counts {
            total += count;
            msrs.push(Row {
                pid: self.owner.pid,
                tid: None,
                comm: self.owner.comm.clone(),
                vm: self.owner.vm.clone(),
                index: Hex(index),
                name: catalogue::name(index, self.vendor),
                reads: count.reads,
                writes: count.writes,
                gp: count.gp,
                rate: per_second(count.all(), seconds),
            });
        }
        msrs.sort_by_key(|row| std::cmp::Reverse(row.count().all()));
        Top {
            schema: SCHEMA,
            counted_by: Method::Engine,
            seconds,
            lost: statistics.lost,
            total,
            msrs,
            engine: Vec::new(),
            command: None,
            note: ENGINE_NOTE.to_owned(),
        }
    }
}

/// The counts by MSR, reads and writes together.
fn counts(statistics: &Statistics, takes: impl Fn(u32) -> bool) -> BTreeMap<u32, Count> {
    let mut counts: BTreeMap<u32, Count> = BTreeMap::new();

    for stat in &statistics.stats {
        if stat.count > 0 && takes(stat.index) {
            *counts.entry(stat.index).or_default() += Count {
                reads: if stat.access == Access::Read {
                    stat.count
                } else {
                    0
                },
                writes: if stat.access == Access::Write {
                    stat.count
                } else {
                    0
                },
                gp: stat.gp,
            };
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Stat;

    #[test]
    fn reads_and_writes_of_an_msr_are_one_row() {
        let stat = |index, access, count, gp| Stat {
            index,
            access,
            count,
            denied: 0,
            unsupported: 0,
            user_exits: 0,
            gp,
            buckets: [0; 32],
        };
        let statistics = Statistics {
            stats: vec![
                stat(0x10, Access::Read, 5, 1),
                stat(0x10, Access::Write, 7, 2),
                stat(0x11, Access::Read, 0, 0),
                stat(0x12, Access::Write, 3, 0),
            ],
            lost: 0,
            tsc_khz: 1,
        };
        let counts = counts(&statistics, |index| index != 0x12);

        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            [(
                0x10,
                Count {
                    reads: 5,
                    writes: 7,
                    gp: 3
                }
            )]
        );
    }
}
