// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Runs a history on C and on the engine.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Watchdog;

use crate::history::Action;
use crate::history::History;
use crate::history::Step;
use crate::history::VCPUS;
use crate::host::Host;
use crate::seen::Seen;
use crate::side::Side;

/// Where the two sides differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The number of the step. After the last one, it is in the VMs' state.
    pub step: usize,
    /// What C and the engine did.
    pub seen: [String; 2],
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [c, engine] = &self.seen;

        write!(f, "step {}:\n  C:      {c}\n  engine: {engine}", self.step)
    }
}

/// A run of a history.
pub struct Run {
    /// The number of outcomes that were compared.
    pub outcomes: u64,
    /// The first difference.
    pub difference: Option<Difference>,
}

/// What all runs need.
pub struct Runner<'a> {
    /// The host.
    pub host: &'a Host,
    watchdog: Watchdog,
}

impl<'a> Runner<'a> {
    /// For this thread, with a limit to each run of a vCPU.
    pub fn new(host: &'a Host, longest: Duration) -> Result<Self> {
        Ok(Runner {
            host,
            watchdog: Watchdog::new(longest)?,
        })
    }

    /// Runs a history, up to the first difference.
    pub fn run(&self, history: &History) -> Result<Run> {
        let mut c = Side::new(self.host, Engine::C, &history.setup)?;
        let mut engine = Side::new(self.host, Engine::Rust, &history.setup)?;
        let end = Step {
            vcpu: 0,
            action: Action::Compare,
        };
        let mut outcomes = 0;

        for (number, step) in history.steps.iter().chain([&end]).enumerate() {
            if step.vcpu >= VCPUS {
                continue;
            }
            let seen = [&mut c, &mut engine].map(|side| self.make(side, step));
            outcomes += step.action.outcomes();
            if c.is_lost() && engine.is_lost() {
                break;
            }
            if seen[0] != seen[1] {
                return Ok(Run {
                    outcomes,
                    difference: Some(Difference {
                        step: number,
                        seen: seen[0].against(&seen[1]),
                    }),
                });
            }
        }
        Ok(Run {
            outcomes,
            difference: None,
        })
    }

    fn make(&self, side: &mut Side, step: &Step) -> Seen {
        side.make(self.host, &self.watchdog, step)
            .unwrap_or_else(|error| Seen::Failed(format!("{error:#}")))
    }
}
