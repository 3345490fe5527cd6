// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Fresh vCPUs, and those that are as good as fresh.
//!
//! Making and ending a VM takes little work but long waits for grace periods of the kernel. So
//! they are made and ended in threads beside; each by one thread, as debugfs names VMs by the thread
//! that made them, and by their file descriptor.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::ops::DerefMut;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::mpsc::SyncSender;
use std::thread;

use kvm_ioctls::Kvm;

use crate::error::Error;
use crate::error::Result;
use crate::scratch::Scratch;
use crate::scratch::Setup;

/// Threads that make VMs and end them.
const MAKERS: usize = 3;

/// How often fresh vCPUs are looked at again, to learn which MSRs move.
const LOOKS: usize = 4;

/// MSRs that are in no list, and that others are tied to.
const UNLISTED: [u32; 4] = [0x1b, 0xc000_0080, 0xc000_0100, 0xc000_0101];

/// vCPUs to try things on.
#[derive(Debug)]
pub(super) struct Pool<'a> {
    kvm: &'a Kvm,
    setup: &'a Setup,
    made: Receiver<Result<Lent>>,
    never_ran: Kept,
    has_run: Kept,
    looks: usize,
}

/// A vCPU, to be given back to the thread that made it.
#[derive(Debug)]
pub(super) struct Lent {
    scratch: Scratch,
    maker: Sender<Scratch>,
}

impl Deref for Lent {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.scratch
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Scratch {
        &mut self.scratch
    }
}

/// A vCPU that can be taken again, and how one looks to which nothing was done.
#[derive(Debug, Default)]
struct Kept {
    lent: Option<Lent>,
    fresh: Option<BTreeMap<u32, u64>>,
}

impl<'a> Pool<'a> {
    /// Has `work` done with a pool.
    pub(super) fn with<T>(
        kvm: &Kvm,
        setup: &Setup,
        work: impl FnOnce(&mut Pool<'_>) -> Result<T>,
    ) -> Result<T> {
        thread::scope(|scope| {
            // A thread has one made while it waits to hand it over.
            let (to_made, made) = mpsc::sync_channel(1);

            for _ in 0..MAKERS {
                let to_made = to_made.clone();

                scope.spawn(move || make(kvm, setup, &to_made));
            }
            let mut pool = Pool {
                kvm,
                setup,
                made,
                never_ran: Kept::default(),
                has_run: Kept::default(),
                looks: 0,
            };

            work(&mut pool)
        })
    }

    pub(super) fn kvm(&self) -> &'a Kvm {
        self.kvm
    }

    pub(super) fn setup(&self) -> &'a Setup {
        self.setup
    }

    /// A vCPU that never ran, or one that ran once; as good as fresh.
    pub(super) fn take(&mut self, has_run: bool) -> Result<Lent> {
        let kept = if has_run {
            &mut self.has_run
        } else {
            &mut self.never_ran
        };

        match kept.lent.take() {
            Some(lent) => Ok(lent),
            None => self.fresh(has_run),
        }
    }

    /// As [`Pool::take`], and nobody has had it before.
    pub(super) fn fresh(&self, has_run: bool) -> Result<Lent> {
        let mut lent = self
            .made
            .recv()
            .map_err(|_| Error::Missing("no VM can be made any more".to_owned()))??;

        if has_run {
            lent.run_once()?;
        }
        Ok(lent)
    }

    /// Gives one back. If nothing `was_written`, or no MSR shows it, others will have it.
    pub(super) fn give(&mut self, lent: Lent, was_written: bool) -> Result<()> {
        let has_run = lent.has_run();

        if was_written && !self.is_as_fresh(&lent)? {
            lent.end();
        } else if let Some(before) = self.kept(has_run).lent.replace(lent) {
            before.end();
        }
        Ok(())
    }

    fn is_as_fresh(&mut self, lent: &Lent) -> Result<bool> {
        let has_run = lent.has_run();
        let seen = look(self.kvm, lent)?;
        let is_same = |fresh: &BTreeMap<u32, u64>| {
            fresh
                .iter()
                .all(|(index, value)| seen.get(index) == Some(value))
        };
        let mut fresh = match self.kept(has_run).fresh.take() {
            Some(fresh) => fresh,
            None => self.fresh_look(has_run)?,
        };

        // Some MSRs take long to move. If it is only these, the next one is as fresh.
        if !is_same(&fresh) && self.looks < LOOKS {
            let again = self.fresh_look(has_run)?;

            self.looks += 1;
            fresh.retain(|index, value| again.get(index) == Some(value));
        }
        let is_as_fresh = is_same(&fresh);

        self.kept(has_run).fresh = Some(fresh);
        Ok(is_as_fresh)
    }

    fn kept(&mut self, has_run: bool) -> &mut Kept {
        if has_run {
            &mut self.has_run
        } else {
            &mut self.never_ran
        }
    }

    /// What is the same on all fresh vCPUs, at all times.
    fn fresh_look(&self, has_run: bool) -> Result<BTreeMap<u32, u64>> {
        let mut same: Option<BTreeMap<u32, u64>> = None;

        for _ in 0..2 {
            let mut lent = self.fresh(has_run)?;

            for _ in 0..2 {
                let seen = look(self.kvm, &lent)?;

                same = Some(match same {
                    None => seen,
                    Some(mut same) => {
                        same.retain(|index, value| seen.get(index) == Some(value));
                        same
                    }
                });
                if has_run {
                    lent.run_once()?;
                }
            }
            lent.end();
        }
        Ok(same.unwrap_or_default())
    }
}

/// What user space reads of all MSRs that are listed.
fn look(kvm: &Kvm, scratch: &Scratch) -> Result<BTreeMap<u32, u64>> {
    let list = kvm
        .get_msr_index_list()
        .map_err(Error::kvm("KVM_GET_MSR_INDEX_LIST"))?;
    let mut seen = BTreeMap::new();

    for &index in list.as_slice().iter().chain(&UNLISTED) {
        if let Some(value) = scratch.get(index)? {
            seen.insert(index, value);
        }
    }
    Ok(seen)
}

impl Lent {
    /// Ends the VM, whenever there is time for it.
    pub(super) fn end(self) {
        // If its thread has gone, it ends here.
        let _ = self.maker.send(self.scratch);
    }
}

fn make(kvm: &Kvm, setup: &Setup, made: &SyncSender<Result<Lent>>) {
    let (maker, used) = mpsc::channel();

    loop {
        used.try_iter().for_each(drop);
        let lent = Scratch::new(kvm, setup).map(|scratch| Lent {
            scratch,
            maker: maker.clone(),
        });

        // Nobody wants them any more.
        if made.send(lent).is_err() {
            return;
        }
    }
}
