// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The statistics of a VM, as `kvmsr stats` prints them.

use serde::Serialize;

use crate::catalogue;
use crate::cpuid::Vendor;
use crate::device::Stat;
use crate::device::Statistics;
use crate::filter::Access;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// The statistics.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatsReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The time, in seconds.
    pub seconds: f64,
    /// Accesses that were not counted.
    pub lost: u64,
    /// The frequency of the TSC in kHz.
    pub tsc_khz: u32,
    /// For each MSR and kind of access, sorted by the number of accesses.
    pub msrs: Vec<StatRow>,
}

/// The statistics of one kind of access to an MSR.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatRow {
    /// The MSR.
    pub index: Hex<u32>,
    /// Its name.
    pub name: Option<String>,
    /// The kind of access.
    pub access: Access,
    /// The number of accesses.
    pub count: u64,
    /// Accesses that the filter or the policy denied.
    pub denied: u64,
    /// Accesses for which KVM had no such MSR.
    pub unsupported: u64,
    /// Accesses that exited to user space.
    pub user_exits: u64,
    /// Accesses that ended with #GP.
    pub gp: u64,
    /// Half of the accesses took at most this time, in nanoseconds; none without accesses.
    pub median_ns: Option<u64>,
    /// 99 of 100 accesses took at most this time, in nanoseconds.
    pub p99_ns: Option<u64>,
    /// The number of accesses by duration: element i is for 2^i to 2^(i+1) - 1 cycles of the TSC,
    /// the last one also for all longer ones.
    pub buckets: Vec<u64>,
}

impl StatsReport {
    /// A report of what the module counted.
    pub fn new(statistics: &Statistics, seconds: f64, vendor: Option<Vendor>) -> Self {
        let mut msrs: Vec<StatRow> = statistics
            .stats
            .iter()
            .filter(|stat| stat.count > 0)
            .map(|stat| row(stat, statistics.tsc_khz, vendor))
            .collect();

        msrs.sort_by_key(|row| (std::cmp::Reverse(row.count), row.index));
        StatsReport {
            schema: SCHEMA,
            seconds,
            lost: statistics.lost,
            tsc_khz: statistics.tsc_khz,
            msrs,
        }
    }
}

fn row(stat: &Stat, tsc_khz: u32, vendor: Option<Vendor>) -> StatRow {
    let quantile =
        |percent| quantile(&stat.buckets, percent).and_then(|cycles| nanoseconds(cycles, tsc_khz));

    StatRow {
        index: Hex(stat.index),
        name: catalogue::name(stat.index, vendor),
        access: stat.access,
        count: stat.count,
        denied: stat.denied,
        unsupported: stat.unsupported,
        user_exits: stat.user_exits,
        gp: stat.gp,
        median_ns: quantile(50),
        p99_ns: quantile(99),
        buckets: stat.buckets.to_vec(),
    }
}

/// The most cycles of the bucket in which the slowest of `percent` per cent of the accesses is.
fn quantile(buckets: &[u64], percent: u64) -> Option<u64> {
    let sum = |buckets: &[u64]| buckets.iter().copied().map(u128::from).sum::<u128>();
    let wanted = (sum(buckets) * u128::from(percent)).div_ceil(100);
    let bucket = (0..buckets.len()).find(|&last| sum(&buckets[..=last]) >= wanted)?;

    (wanted > 0).then(|| (2u64 << bucket) - 1)
}

fn nanoseconds(cycles: u64, tsc_khz: u32) -> Option<u64> {
    (u128::from(cycles) * 1_000_000)
        .checked_div(tsc_khz.into())
        .and_then(|time| u64::try_from(time).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_buckets() {
        let mut buckets = [0; 32];

        assert_eq!(quantile(&buckets, 50), None);
        buckets[10] = 98;
        buckets[12] = 1;
        buckets[31] = 1;
        assert_eq!(quantile(&buckets, 50), Some(2047));
        assert_eq!(quantile(&buckets, 99), Some(8191));
        assert_eq!(quantile(&buckets, 100), Some((1 << 32) - 1));
        assert_eq!(quantile(&[u64::MAX; 32], 100), Some((1 << 32) - 1));
    }

    #[test]
    fn cycles_are_converted() {
        assert_eq!(nanoseconds(2047, 2_000_000), Some(1023));
        assert_eq!(nanoseconds(2047, 0), None);
    }

    #[test]
    fn the_most_frequent_comes_first() {
        let stat = |index, count| Stat {
            index,
            access: Access::Read,
            count,
            denied: 0,
            unsupported: 0,
            user_exits: 0,
            gp: 0,
            buckets: [0; 32],
        };
        let statistics = Statistics {
            stats: vec![stat(1, 5), stat(2, 0), stat(3, 9)],
            lost: 0,
            tsc_khz: 1000,
        };
        let report = StatsReport::new(&statistics, 1.0, None);
        let indices: Vec<u32> = report.msrs.iter().map(|row| row.index.0).collect();

        assert_eq!(indices, [3, 1]);
    }
}
