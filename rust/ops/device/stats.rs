// SPDX-License-Identifier: GPL-2.0

//! `KMSR_STATS`: how often the guest accesses each MSR, with which outcome, and how long it takes.

use super::Attached;
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
        Parts,
        Stats,
        Totals, //
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
        bindings::KMSR_OP_STOP => stop(attached),
        bindings::KMSR_OP_READ => read(attached, &mut arg),
        _ => Err(EINVAL),
    }
}

/// Starts with counters that are 0. On failure, the counters of before are kept.
fn start(attached: &Attached) -> Result {
    let vm = attached.vm()?;
    // It fits: the number is not negative.
    let stats = Arc::new(Stats::new(vm.nr_vcpus() as usize)?, GFP_KERNEL_ACCOUNT)?;
    let mut claims = attached.state.claims.lock();

    if claims.stats_file.is_some_and(|file| file != attached.file) {
        return Err(EBUSY);
    }
    let overlay = Parts {
        stats: Some(stats.clone()),
        ..claims.parts()
    }
    .overlay()?;

    claims.stats_file = Some(attached.file);
    claims.stats = Some(stats);
    claims.is_counting = true;
    attached.state.replace_overlay(&vm, overlay);
    Ok(())
}

/// Stops, and keeps the counters.
fn stop(attached: &Attached) -> Result {
    let vm = attached.vm()?;
    let mut claims = attached.state.claims.lock();

    if claims.stats_file != Some(attached.file) {
        return Err(EINVAL);
    }
    if claims.is_counting {
        let overlay = Parts {
            stats: None,
            ..claims.parts()
        }
        .overlay()?;

        claims.is_counting = false;
        attached.state.replace_overlay(&vm, overlay);
    }
    Ok(())
}

fn read(attached: &Attached, arg: &mut Sized<bindings::kmsr_stats>) -> Result {
    let _vm = attached.vm()?;
    let stats = {
        let claims = attached.state.claims.lock();

        if claims.stats_file != Some(attached.file) {
            return Err(EINVAL);
        }
        claims.stats.clone().ok_or(EINVAL)?
    };
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

/// Ends the statistics of a file that is being closed.
pub(super) fn close(attached: &Attached) {
    let vm = attached.vm();
    let mut claims = attached.state.claims.lock();

    if claims.stats_file != Some(attached.file) {
        return;
    }
    claims.stats_file = None;
    let stats = claims.stats.take();

    if core::mem::take(&mut claims.is_counting) {
        // If the VM has ended, its overlay is gone. If there is no memory for a new overlay, the
        // old one stays, and nobody reads what it counts.
        if let (Ok(vm), Ok(overlay)) = (&vm, claims.parts().overlay()) {
            attached.state.replace_overlay(vm, overlay);
        }
    }
    drop(stats);
}
