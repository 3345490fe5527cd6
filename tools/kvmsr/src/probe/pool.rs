// SPDX-License-Identifier: Apache-2.0 OR MIT

//! vCPUs that nothing was done to, as few of them as possible.

use kvm_ioctls::Kvm;

use crate::error::Result;
use crate::scratch::Scratch;
use crate::scratch::Setup;

/// Makes vCPUs, and keeps those on which every write was refused: nothing can have changed there.
#[derive(Debug)]
pub(super) struct Pool<'a> {
    kvm: &'a Kvm,
    setup: Setup,
    never_ran: Option<Scratch>,
    has_run: Option<Scratch>,
}

impl<'a> Pool<'a> {
    pub(super) fn new(kvm: &'a Kvm, setup: Setup) -> Self {
        Pool {
            kvm,
            setup,
            never_ran: None,
            has_run: None,
        }
    }

    pub(super) fn kvm(&self) -> &'a Kvm {
        self.kvm
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// A vCPU that never ran, or one that ran once.
    pub(super) fn take(&mut self, has_run: bool) -> Result<Scratch> {
        let kept = if has_run {
            &mut self.has_run
        } else {
            &mut self.never_ran
        };

        match kept.take() {
            Some(scratch) => Ok(scratch),
            None => self.fresh(has_run),
        }
    }

    /// As [`Pool::take`], and nobody has had it before.
    pub(super) fn fresh(&self, has_run: bool) -> Result<Scratch> {
        let mut scratch = Scratch::new(self.kvm, &self.setup)?;

        if has_run {
            scratch.run_once()?;
        }
        Ok(scratch)
    }

    /// Gives one back on which no write went through.
    pub(super) fn give(&mut self, scratch: Scratch) {
        if scratch.has_run() {
            self.has_run = Some(scratch);
        } else {
            self.never_ran = Some(scratch);
        }
    }
}
