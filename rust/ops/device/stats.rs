// SPDX-License-Identifier: GPL-2.0

//! `KMSR_STATS`: how often the guest accesses each MSR, with which outcome, and how long it takes.

use super::{
    watch::{
        self,
        Records, //
    },
    Attached, //
};
use crate::{
    bindings,
    engine::{
        access::Access,
        stats::{
            Event,
            Row,
            MAX_MSRS,
            NR_BUCKETS, //
        },
    },
    kvm::{
        tsc_khz,
        user::{
            Sized,
            UserArray, //
        },
        Claims,
        Stats,
        Totals,
        Watch, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};

const _: () = assert!(NR_BUCKETS == bindings::KMSR_NR_BUCKETS as usize);
const _: () = assert!(2 * MAX_MSRS == bindings::KMSR_MAX_STATS as usize);

/// Starts or stops counting, or reads the counters.
///
/// # Errors
///
/// `EINVAL` if the operation is undefined, or there is nothing to stop or to read; `EBUSY` if
/// another file counts; `E2BIG` if the records do not fit, after writing their number; `ENODEV` if
/// the VM has ended; `ENOMEM`; and those of [`Sized::read`] and [`Sized::write`].
pub(super) fn stats(attached: &Attached, argp: UserPtr) -> Result {
    let mut arg = Sized::<bindings::kmsr_stats>::read(argp)?;

    match arg.value.op {
        bindings::KMSR_OP_START => start(attached),
        bindings::KMSR_OP_STOP => watch::stop::<Stats>(attached),
        bindings::KMSR_OP_READ => read(attached, &mut arg),
        _ => Err(EINVAL),
    }
}

impl Records for Stats {
    fn watch(claims: &mut Claims) -> &mut Option<Watch<Arc<Self>>> {
        &mut claims.stats
    }
}

/// Starts with counters that are 0.
fn start(attached: &Attached) -> Result {
    let vm = attached.vm()?;
    // It fits: the number is not negative.
    let stats = Arc::new(Stats::new(vm.nr_vcpus() as usize)?, GFP_KERNEL_ACCOUNT)?;

    watch::start(attached, &vm, stats)
}

fn read(attached: &Attached, arg: &mut Sized<bindings::kmsr_stats>) -> Result {
    let stats = watch::records::<Stats>(attached)?;
    let mut records = KVVec::new();
    let room = arg.value.nr_records as usize;

    for (index, row) in sorted_rows(&stats)? {
        for access in [Access::Read, Access::Write] {
            let totals = stats.totals(row, access);

            if totals.count() != 0 {
                records.push(record(index, access, &totals), GFP_KERNEL)?;
            }
        }
    }
    arg.value.lost = [Access::Read, Access::Write]
        .into_iter()
        .fold(0, |lost: u64, access| {
            lost.wrapping_add(stats.totals(Row::LOST, access).count())
        });
    // It fits: there are at most KMSR_MAX_STATS records.
    arg.value.nr_records = records.len() as u32;
    arg.value.tsc_khz = tsc_khz();
    arg.write()?;
    if room < records.len() {
        return Err(E2BIG);
    }
    UserArray::new(arg.value.records).write(&records)
}

/// The rows in use, sorted by their MSRs' indices.
fn sorted_rows(stats: &Stats) -> Result<KVec<(u32, Row)>> {
    let mut sorted = KVec::<(u32, Row)>::with_capacity(MAX_MSRS, GFP_KERNEL)?;

    for (row, index) in stats.rows() {
        let position = sorted.partition_point(|(other, _)| *other < index);

        // This does not allocate: there are no more rows than the vector has room for.
        sorted
            .insert_within_capacity(position, (index, row))
            .map_err(|_| ENOMEM)?;
    }
    Ok(sorted)
}

fn record(index: u32, access: Access, totals: &Totals) -> bindings::kmsr_stat {
    bindings::kmsr_stat {
        index,
        access: match access {
            Access::Read => bindings::KMSR_ACCESS_READ,
            Access::Write => bindings::KMSR_ACCESS_WRITE,
        },
        count: totals.count(),
        denied: totals.events[Event::Denied as usize],
        unsupported: totals.events[Event::Unsupported as usize],
        user_exits: totals.events[Event::UserSpaceExit as usize],
        gp: totals.events[Event::GeneralProtection as usize],
        buckets: totals.buckets,
    }
}
