// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Signals that end the program, turned into a question, so that all is tidied up first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGQUIT;
use signal_hook::consts::SIGTERM;
use signal_hook::flag;

/// Whether one of SIGINT, SIGTERM, SIGHUP and SIGQUIT has come.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on, the first of them does not end the program; a second one does.
    pub fn new() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));

        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            flag::register_conditional_shutdown(signal, 2, Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Stop(stop))
    }

    /// Whether one has come.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
