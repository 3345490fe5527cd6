// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Reports each access as it happens.

use std::collections::BTreeMap;
use std::path::Path;

use super::counter;
use super::counter::Thread;
use super::event::Event;
use super::event::Line;
use super::owners::Owner;
use super::owners::Owners;
use super::pipe;
use super::pipe::Pipe;
use super::report::Access;
use super::report::Entry;
use super::session::DEBUGFS_KVM;
use super::session::PROC;
use super::session::Selection;
use super::session::Settings;
use super::tracefs::Instance;
use super::tracefs::Tracefs;
use crate::catalogue;
use crate::cpuid::Vendor;
use crate::error::Result;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// Reports accesses until it is dropped.
#[derive(Debug)]
pub struct Log {
    // Dropped in this order: an instance can't be removed while its pipe is open.
    pipe: Pipe,
    instance: Instance,
    owners: Owners,
    selection: Selection,
    vendor: Option<Vendor>,
}

impl Log {
    /// Starts tracing.
    ///
    /// # Errors
    ///
    /// As [`super::Session::new`].
    pub fn new(settings: &Settings) -> Result<Self> {
        let tracefs = Tracefs::find(settings.tracefs.as_deref())?;
        let instance = Instance::new(&tracefs)?;
        let filter = settings
            .selection
            .indices
            .as_ref()
            .and_then(counter::filter);

        Ok(Log {
            pipe: Pipe::new(&instance, settings.buffer, filter.as_deref())?,
            instance,
            owners: Owners::new(Path::new(PROC), Path::new(DEBUGFS_KVM)),
            selection: settings.selection.clone(),
            vendor: settings.vendor,
        })
    }

    /// Reports the accesses up to now. Returns whether there may be more.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] if tracefs can't be read.
    pub fn read(&mut self, mut each: impl FnMut(Entry)) -> Result<bool> {
        let (owners, selection, vendor) = (&mut self.owners, &self.selection, self.vendor);

        self.pipe.read(|line| match line {
            Line::Event(event) => {
                let owner = owner(owners, &event);

                if selection.takes(&owner, event.index) {
                    each(access(event, owner, vendor));
                }
            }
            Line::Lost { cpu, count } => each(lost(cpu, count)),
        })
    }

    /// The number of events for which the kernel had no room.
    ///
    /// # Errors
    ///
    /// As [`Log::read`].
    pub fn lost(&self) -> Result<u64> {
        pipe::lost(&self.instance)
    }
}

fn owner(owners: &mut Owners, event: &Event) -> Owner {
    if !owners.knows(event.tid) {
        let thread = Thread {
            comm: event.comm.clone(),
            tgid: event.tgid,
        };

        owners.learn(&BTreeMap::from([(event.tid, thread)]));
    }
    owners.of(event.tid)
}

fn access(event: Event, owner: Owner, vendor: Option<Vendor>) -> Entry {
    Entry {
        schema: SCHEMA,
        time: Some(event.micros as f64 / 1e6),
        pid: owner.pid,
        tid: Some(event.tid),
        comm: Some(owner.comm),
        cpu: event.cpu,
        access: if event.write {
            Access::Write
        } else {
            Access::Read
        },
        index: Some(Hex(event.index)),
        name: catalogue::name(event.index, vendor),
        value: (event.write || !event.gp).then_some(Hex(event.value)),
        gp: event.gp,
        lost: None,
    }
}

fn lost(cpu: u32, count: Option<u64>) -> Entry {
    Entry {
        schema: SCHEMA,
        time: None,
        pid: None,
        tid: None,
        comm: None,
        cpu,
        access: Access::Lost,
        index: None,
        name: None,
        value: None,
        gp: false,
        lost: count,
    }
}
