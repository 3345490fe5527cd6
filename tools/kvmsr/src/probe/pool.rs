// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A pool of new vCPUs, and of used ones that are as good as new.
//!
//! Creating and closing a VM takes little CPU time, but waits for the kernel's grace periods. So
//! threads do it in the background. The same thread creates and closes a VM, because debugfs names
//! VMs by the thread and the file descriptor.

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

/// The number of threads that create and close VMs.
const MAKERS: usize = 3;

/// How often new vCPUs are read again, to find MSRs that change by themselves.
const LOOKS: usize = 4;

/// MSRs in no list that others depend on.
const UNLISTED: [u32; 4] = [0x1b, 0xc000_0080, 0xc000_0100, 0xc000_0101];

/// The pool of vCPUs.
#[derive(Debug)]
pub(super) struct Pool<'a> {
    kvm: &'a Kvm,
    setup: &'a Setup,
    made: Receiver<Result<Lent>>,
    never_ran: Kept,
    has_run: Kept,
    looks: usize,
}

/// A vCPU, with the thread that created it.
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

/// A vCPU that can be reused, and the state of an unused one.
#[derive(Debug, Default)]
struct Kept {
    lent: Option<Lent>,
    fresh: Option<BTreeMap<u32, u64>>,
}

impl<'a> Pool<'a> {
    /// Runs `work` with a pool.
    pub(super) fn with<T>(
        kvm: &Kvm,
        setup: &Setup,
        work: impl FnOnce(&mut Pool<'_>) -> Result<T>,
    ) -> Result<T> {
        thread::scope(|scope| {
            // Each thread creates the next vCPU while it waits to hand one over.
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

    /// A vCPU that has never run, or that has run once; as good as new.
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

    /// Like [`Pool::take`], but never used before.
    pub(super) fn fresh(&self, has_run: bool) -> Result<Lent> {
        let mut lent = self
            .made
            .recv()
            .map_err(|_| Error::Missing("no more VMs can be created".to_owned()))??;

        if has_run {
            lent.run_once()?;
        }
        Ok(lent)
    }

    /// Returns a vCPU. If nothing `was_written`, or no MSR shows a change, it is reused.
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

        // Some MSRs change slowly. If only these differ, the vCPU is as good as new.
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

    /// The values that are equal on all new vCPUs at all times.
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

/// The values of all listed MSRs in user space.
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
    /// Closes the VM in the background.
    pub(super) fn end(self) {
        // If its thread has ended, it is closed here.
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

        // Nobody needs them any more.
        if made.send(lent).is_err() {
            return;
        }
    }
}
