// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Counts accesses, and finds the VMs that made them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use super::NOTE;
use super::counter::Count;
use super::counter::Counter;
use super::counter::Method;
use super::engine;
use super::engine::Counters;
use super::engine::Served;
use super::owners::Owner;
use super::owners::Owners;
use super::report::Row;
use super::report::Top;
use super::tracefs::Tracefs;
use crate::catalogue;
use crate::cpuid::Vendor;
use crate::error::Result;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// Settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The path of tracefs, if it is not in one of the usual places.
    pub tracefs: Option<PathBuf>,
    /// The way to count; the default is the best one.
    pub method: Option<Method>,
    /// The size of the buffer in KiB per CPU; only the pipe needs it.
    pub buffer: u32,
    /// The accesses to count.
    pub selection: Selection,
    /// The vendor whose names to use for MSRs that differ between vendors.
    pub vendor: Option<Vendor>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            tracefs: None,
            method: None,
            buffer: 4096,
            selection: Selection::default(),
            vendor: None,
        }
    }
}

/// The accesses to count.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only those of this process.
    pub pid: Option<u32>,
    /// Only those of processes whose name contains this.
    pub guest: Option<String>,
    /// Only those to these MSRs.
    pub indices: Option<BTreeSet<u32>>,
}

impl Selection {
    /// Whether an access is to be counted.
    pub fn takes(&self, owner: &Owner, index: u32) -> bool {
        self.pid.is_none_or(|pid| owner.pid == Some(pid))
            && self
                .guest
                .as_ref()
                .is_none_or(|guest| owner.comm.contains(guest.as_str()))
            && self
                .indices
                .as_ref()
                .is_none_or(|indices| indices.contains(&index))
    }
}

pub(super) const PROC: &str = "/proc";
pub(super) const DEBUGFS_KVM: &str = "/sys/kernel/debug/kvm";

/// Counts which VM accesses which MSR, until it is dropped.
#[derive(Debug)]
pub struct Session {
    counter: Counter,
    owners: Owners,
    engine: BTreeMap<String, EngineCount>,
    selection: Selection,
    vendor: Option<Vendor>,
    // As of the start or the last reset.
    since: Instant,
    base: BTreeMap<(u32, u32), Count>,
    lost_before: u64,
}

/// The engine's counters of a VM.
#[derive(Debug)]
struct EngineCount {
    owner: Owner,
    filter: Vec<String>,
    base: Counters,
    last: Counters,
    // The counters of earlier VMs with the same folder.
    earlier: Counters,
}

impl Session {
    /// Starts counting.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Missing`] with advice, if the kernel can't count or this is not permitted;
    /// [`crate::Error::Io`] if writing to tracefs fails.
    pub fn new(settings: &Settings) -> Result<Self> {
        let tracefs = Tracefs::find(settings.tracefs.as_deref())?;
        let mut session = Session {
            counter: Counter::new(
                &tracefs,
                settings.method,
                settings.buffer,
                settings.selection.indices.as_ref(),
            )?,
            owners: Owners::new(Path::new(PROC), Path::new(DEBUGFS_KVM)),
            engine: BTreeMap::new(),
            selection: settings.selection.clone(),
            vendor: settings.vendor,
            since: Instant::now(),
            base: BTreeMap::new(),
            lost_before: 0,
        };

        session.look_at_engine(true);
        Ok(session)
    }

    /// The way it counts.
    pub fn method(&self) -> Method {
        self.counter.method()
    }

    /// Reads the events up to now. Call it about ten times per second, because threads can be
    /// looked up only before they end. Returns whether there may be more.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] if tracefs can't be read.
    pub fn poll(&mut self) -> Result<bool> {
        let more = self.counter.poll()?;

        self.owners.learn(self.counter.threads());
        self.look_at_engine(false);
        Ok(more)
    }

    /// Stops counting, and reads all events up to now.
    ///
    /// # Errors
    ///
    /// As [`Session::poll`].
    pub fn finish(&mut self) -> Result<()> {
        self.counter.stop()?;
        while self.poll()? {}
        Ok(())
    }

    /// Restarts counting from 0.
    ///
    /// # Errors
    ///
    /// As [`Session::poll`].
    pub fn reset(&mut self) -> Result<()> {
        self.poll()?;
        self.base.clone_from(self.counter.counts());
        self.lost_before = self.counter.lost()?;
        self.since = Instant::now();
        for count in self.engine.values_mut() {
            count.base = count.last;
            count.earlier = Counters::default();
        }
        Ok(())
    }

    /// The counts.
    ///
    /// # Errors
    ///
    /// As [`Session::poll`].
    pub fn report(&self) -> Result<Top> {
        let seconds = self.since.elapsed().as_secs_f64();
        let mut counts: BTreeMap<(Owner, u32), Count> = BTreeMap::new();
        let mut total = Count::default();

        for (&(tid, index), count) in self.counter.counts() {
            let owner = self.owners.of(tid);
            let count = count.since(self.base.get(&(tid, index)).copied().unwrap_or_default());

            if count.all() > 0 && self.selection.takes(&owner, index) {
                *counts.entry((owner, index)).or_default() += count;
                total += count;
            }
        }
        let mut msrs: Vec<Row> = counts
            .into_iter()
            .map(|((owner, index), count)| Row {
                pid: owner.pid,
                tid: owner.tid,
                comm: owner.comm,
                vm: owner.vm,
                index: Hex(index),
                name: catalogue::name(index, self.vendor),
                reads: count.reads,
                writes: count.writes,
                gp: count.gp,
                rate: per_second(count.all(), seconds),
            })
            .collect();

        msrs.sort_by_key(|row| std::cmp::Reverse(row.count().all()));
        Ok(Top {
            schema: SCHEMA,
            counted_by: self.method(),
            seconds,
            lost: self.counter.lost()?.saturating_sub(self.lost_before),
            total,
            msrs,
            engine: self.engine(),
            command: None,
            note: NOTE.to_owned(),
        })
    }

    fn engine(&self) -> Vec<Served> {
        self.engine
            .iter()
            .filter(|(_, count)| {
                let all = Selection {
                    indices: None,
                    ..self.selection.clone()
                };

                all.takes(&count.owner, 0)
            })
            .map(|(vm, count)| Served {
                vm: vm.clone(),
                pid: count.owner.pid,
                comm: count.owner.comm.clone(),
                counters: count
                    .last
                    .with(count.base, u64::saturating_sub)
                    .with(count.earlier, u64::saturating_add),
                filter: count.filter.clone(),
            })
            .collect()
    }

    /// Reads the engine's counters. For VMs that exist at the start, only the increase counts.
    fn look_at_engine(&mut self, start: bool) {
        let kvm = Path::new(DEBUGFS_KVM);

        for folder in engine::folders(kvm) {
            if !folder.engine {
                continue;
            }
            let Some((counters, filter)) = engine::counters(kvm, &folder.name) else {
                continue;
            };
            let count = self
                .engine
                .entry(folder.name.clone())
                .or_insert_with(|| EngineCount {
                    owner: self.owners.of_folder(&folder),
                    filter: Vec::new(),
                    base: if start { counters } else { Counters::default() },
                    last: counters,
                    earlier: Counters::default(),
                });

            count.update(counters);
            count.filter = filter;
        }
    }
}

impl EngineCount {
    fn update(&mut self, counters: Counters) {
        if counters.restarted_since(self.last) {
            let past = self.last.with(self.base, u64::saturating_sub);

            self.earlier = self.earlier.with(past, u64::saturating_add);
            self.base = Counters::default();
        }
        self.last = counters;
    }
}

/// A rate; 0 for an empty time.
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}
