// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What of the kernel's code histories have reached: pairs of places that followed each other.

use std::io;

use kvm_msr_guest::kcov::Trace;

/// Pages for the addresses of a history, 512 each. The kernel drops the rest.
const PAGES: usize = 1024;
/// The number of pairs that are told apart, a power of two.
const PAIRS: usize = 1 << 20;

/// The code that was reached so far.
pub struct Coverage {
    trace: Trace,
    reached: Vec<bool>,
    /// The pairs that were new when they were taken last.
    new: Vec<u32>,
}

fn mixed(number: u64) -> u64 {
    (number ^ number >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Coverage {
    /// Starts with nothing reached; none if the kernel has no kcov.
    pub fn start() -> io::Result<Option<Self>> {
        Ok(Trace::start(PAGES)?.map(|trace| Coverage {
            trace,
            reached: vec![false; PAIRS],
            new: Vec::new(),
        }))
    }

    /// Forgets what this thread has done since the last history.
    pub fn skip(&mut self) {
        self.trace.take(|_| {});
    }

    /// Forgets everything that was reached.
    pub fn forget(&mut self) {
        self.reached.fill(false);
    }

    /// What was reached, for [`Coverage::set_reached`].
    pub fn clone_reached(&self) -> Vec<bool> {
        self.reached.clone()
    }

    /// Goes back to what was reached earlier.
    pub fn set_reached(&mut self, reached: Vec<bool>) {
        self.reached = reached;
    }

    /// Whether a pair was reached.
    pub fn has(&self, pair: u32) -> bool {
        self.reached[pair as usize % PAIRS]
    }

    /// The number of pairs that were reached.
    pub fn pairs(&self) -> usize {
        self.reached.iter().filter(|&&reached| reached).count()
    }

    /// The pairs that were reached since the last call, and not before.
    pub fn take(&mut self) -> &[u32] {
        let mut last = 0;

        self.new.clear();
        self.trace.take(|address| {
            let place = mixed(address) >> 40;
            let pair = (place ^ last) as usize % PAIRS;

            if !self.reached[pair] {
                self.reached[pair] = true;
                self.new.push(pair as u32);
            }
            last = place >> 1;
        });
        &self.new
    }
}
