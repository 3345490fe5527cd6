// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Counts of accesses by thread and MSR.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::ops::AddAssign;

use serde::Deserialize;
use serde::Serialize;

use super::event::Event;
use super::event::Line;
use super::histogram;
use super::histogram::Bin;
use super::pipe;
use super::pipe::Pipe;
use super::tracefs;
use super::tracefs::Instance;
use super::tracefs::Tracefs;
use crate::error::Error;
use crate::error::Result;

/// The maximum number of pairs of thread and MSR when events are read from a pipe. A guest can
/// access four billion indices.
const MAX_PAIRS: usize = 1 << 16;
/// The maximum number of comparisons per event in the kernel's filter.
const MAX_RANGES: usize = 32;

/// The way to count accesses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// By the kernel, in a histogram.
    Histogram,
    /// By reading each event from a pipe.
    Pipe,
    /// By kvm-msr.ko, in its statistics.
    Engine,
}

/// Numbers of accesses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// RDMSRs, including those with #GP.
    pub reads: u64,
    /// WRMSRs, including those with #GP.
    pub writes: u64,
    /// Accesses with #GP.
    pub gp: u64,
}

impl Count {
    /// All accesses.
    pub fn all(self) -> u64 {
        self.reads.saturating_add(self.writes)
    }

    /// The increase since `earlier`.
    pub fn since(self, earlier: Count) -> Count {
        Count {
            reads: self.reads.saturating_sub(earlier.reads),
            writes: self.writes.saturating_sub(earlier.writes),
            gp: self.gp.saturating_sub(earlier.gp),
        }
    }

    fn add(&mut self, write: bool, hits: u64, gp: u64) {
        let accesses = if write {
            &mut self.writes
        } else {
            &mut self.reads
        };

        *accesses = accesses.saturating_add(hits);
        self.gp = self.gp.saturating_add(gp);
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.add(false, other.reads, other.gp);
        self.add(true, other.writes, 0);
    }
}

/// What events tell about a thread.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    /// Its name.
    pub comm: String,
    /// Its process, if the kernel reports it.
    pub tgid: Option<u32>,
}

/// Counts since its creation.
#[derive(Debug)]
pub struct Counter {
    // Dropped in this order: an instance can't be removed while its pipe is open.
    source: Source,
    instance: Instance,
    tally: Tally,
}

#[derive(Debug)]
enum Source {
    // The instance's pipe is kept open, so that the instance can't be removed.
    Histogram { _held: File },
    Pipe(Pipe),
}

/// Counts by thread and MSR.
#[derive(Debug, Default)]
pub struct Tally {
    counts: BTreeMap<(u32, u32), Count>,
    threads: BTreeMap<u32, Thread>,
    // Accesses that were not counted, for lack of memory.
    dropped: u64,
}

impl Tally {
    fn add_event(&mut self, event: Event) {
        let full = self.counts.len() >= MAX_PAIRS;
        let key = (event.tid, event.index);

        if full && !self.counts.contains_key(&key) {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.counts
            .entry(key)
            .or_default()
            .add(event.write, 1, event.gp.into());
        let thread = self.threads.entry(event.tid).or_default();

        if event.comm != "<...>" {
            thread.comm = event.comm;
        }
        thread.tgid = event.tgid.or(thread.tgid);
    }

    fn from_histogram(text: &str) -> Self {
        let mut tally = Tally {
            dropped: histogram::dropped(text),
            ..Default::default()
        };

        for bin in text.lines().filter_map(Bin::parse) {
            tally
                .counts
                .entry((bin.tid, bin.index))
                .or_default()
                .add(bin.write, bin.hits, bin.gp);
            tally.threads.entry(bin.tid).or_default().comm = bin.comm;
        }
        tally
    }
}

impl Counter {
    /// Starts counting, in the given way or in the best one. `buffer` is the size of the buffer in
    /// KiB per CPU. If there are `indices`, only these are counted.
    pub fn new(
        tracefs: &Tracefs,
        method: Option<Method>,
        buffer: u32,
        indices: Option<&BTreeSet<u32>>,
    ) -> Result<Self> {
        let instance = Instance::new(tracefs)?;
        let filter = indices.and_then(filter);
        let filter = filter.as_deref();
        let source = match method {
            Some(Method::Histogram) if !tracefs.has_histograms() => {
                return Err(Error::Missing(
                    "this kernel has no histogram triggers (CONFIG_HIST_TRIGGERS): use the pipe"
                        .to_owned(),
                ));
            }
            Some(Method::Engine) => {
                return Err(Error::Missing(
                    "the engine counts the accesses of one VM: name its process".to_owned(),
                ));
            }
            Some(Method::Histogram) => Source::histogram(&instance, filter)?,
            Some(Method::Pipe) => Source::Pipe(Pipe::new(&instance, buffer, filter)?),
            None if tracefs.has_histograms() => match Source::histogram(&instance, filter) {
                Ok(source) => source,
                Err(_) => Source::Pipe(Pipe::new(&instance, buffer, filter)?),
            },
            None => Source::Pipe(Pipe::new(&instance, buffer, filter)?),
        };

        Ok(Counter {
            source,
            instance,
            tally: Tally::default(),
        })
    }

    /// The way it counts.
    pub fn method(&self) -> Method {
        match self.source {
            Source::Histogram { .. } => Method::Histogram,
            Source::Pipe(_) => Method::Pipe,
        }
    }

    /// Reads the events up to now. Returns whether there may be more.
    pub fn poll(&mut self) -> Result<bool> {
        match &mut self.source {
            Source::Histogram { .. } => {
                self.tally = Tally::from_histogram(&tracefs::read(&self.instance.event("hist"))?);
                Ok(false)
            }
            Source::Pipe(pipe) => {
                let tally = &mut self.tally;

                pipe.read(|line| {
                    if let Line::Event(event) = line {
                        tally.add_event(event);
                    }
                })
            }
        }
    }

    /// Disables further events, so that reading ends.
    pub fn stop(&mut self) -> Result<()> {
        match self.source {
            Source::Histogram { .. } => Ok(()),
            Source::Pipe(_) => tracefs::write(&self.instance.event("enable"), "0"),
        }
    }

    /// Counts by thread and MSR, as of the last [`Counter::poll`].
    pub fn counts(&self) -> &BTreeMap<(u32, u32), Count> {
        &self.tally.counts
    }

    /// The threads that were seen.
    pub fn threads(&self) -> &BTreeMap<u32, Thread> {
        &self.tally.threads
    }

    /// Accesses that were not counted.
    pub fn lost(&self) -> Result<u64> {
        let lost = match self.source {
            Source::Histogram { .. } => 0,
            Source::Pipe(_) => pipe::lost(&self.instance)?,
        };

        Ok(lost.saturating_add(self.tally.dropped))
    }
}

impl Source {
    fn histogram(instance: &Instance, filter: Option<&str>) -> Result<Self> {
        let held = instance.open_pipe()?;

        // Events are not stored.
        let _ = tracefs::write(&instance.path("buffer_size_kb"), "4");
        tracefs::write(&instance.event("trigger"), &histogram::trigger(filter))?;
        Ok(Source::Histogram { _held: held })
    }
}

/// A filter for these MSRs in the kernel's syntax; none if there are so many that dropping the
/// others here is cheaper.
pub fn filter(indices: &BTreeSet<u32>) -> Option<String> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();

    for &index in indices {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(index) => *last = index,
            _ => ranges.push((index, index)),
        }
        if ranges.len() > MAX_RANGES {
            return None;
        }
    }
    let terms: Vec<String> = ranges
        .iter()
        .map(|&(first, last)| {
            if first == last {
                format!("ecx == {first:#x}")
            } else {
                format!("(ecx >= {first:#x} && ecx <= {last:#x})")
            }
        })
        .collect();

    (!terms.is_empty()).then(|| terms.join(" || "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_of_ranges() {
        let of = |indices: &[u32]| filter(&indices.iter().copied().collect());

        assert_eq!(of(&[]), None);
        assert_eq!(of(&[0x10]).as_deref(), Some("ecx == 0x10"));
        assert_eq!(
            of(&[0x800, 0x801, 0x802, u32::MAX, u32::MAX - 1]).as_deref(),
            Some("(ecx >= 0x800 && ecx <= 0x802) || (ecx >= 0xfffffffe && ecx <= 0xffffffff)")
        );
        assert_eq!(of(&(0..1000).map(|i| 2 * i).collect::<Vec<_>>()), None);
    }

    #[test]
    fn a_histogram_is_tallied() {
        let line = |tid: u32, write: u32, hits: u64, gp: u64| {
            format!(
                "{{ common_pid: vcpu            [{tid:10}], ecx: 10, write: {write:10} }} \
                 hitcount: {hits:10}  exception: {gp:10}\n"
            )
        };
        let text = [
            line(7, 0, 10_000, 0),
            line(7, 1, 5_000, 2),
            line(8, 0, 1, 1),
        ]
        .concat()
            + "\nTotals:\n    Hits: 15001\n    Entries: 3\n    Dropped: 4\n";
        let tally = Tally::from_histogram(&text);

        assert_eq!(
            tally.counts[&(7, 0x10)],
            Count {
                reads: 10_000,
                writes: 5_000,
                gp: 2
            }
        );
        assert_eq!(tally.counts[&(8, 0x10)].gp, 1);
        assert_eq!(tally.threads[&8].comm, "vcpu");
        assert_eq!(tally.dropped, 4);
    }

    #[test]
    fn many_indices_are_dropped_and_counted() {
        let mut tally = Tally::default();
        let event = |index| Event {
            comm: "x".to_owned(),
            tid: 1,
            tgid: None,
            cpu: 0,
            micros: 0,
            write: false,
            index,
            value: 0,
            gp: true,
        };

        for index in 0..MAX_PAIRS as u32 + 10 {
            tally.add_event(event(index));
        }
        tally.add_event(event(0));
        assert_eq!(tally.counts.len(), MAX_PAIRS);
        assert_eq!(tally.dropped, 10);
        assert_eq!(tally.counts[&(1, 0)].reads, 2);
    }
}
