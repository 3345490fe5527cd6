// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Turns signals that end the program into a flag, so that it can clean up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGQUIT;
use signal_hook::consts::SIGTERM;
use signal_hook::flag;

/// Whether SIGINT, SIGTERM, SIGHUP or SIGQUIT was received.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on, the first signal only sets the flag; a second one ends the program.
    pub fn new() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));

        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            flag::register_conditional_shutdown(signal, 2, Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Stop(stop))
    }

    /// Whether a signal was received.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
