// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Measures the time of a piece of work.

use std::time::Instant;

use crate::error::Result;

/// The time of a piece of work.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// In nanoseconds.
    pub nanoseconds: f64,
    /// In cycles, if there is a counter.
    pub cycles: Option<f64>,
}

impl Cost {
    /// A share of it.
    pub fn per(self, count: f64) -> Self {
        Cost {
            nanoseconds: self.nanoseconds / count,
            cycles: self.cycles.map(|cycles| cycles / count),
        }
    }

    /// The difference to `other`. It can be below 0 for a sample.
    pub fn minus(self, other: Self) -> Self {
        Cost {
            nanoseconds: self.nanoseconds - other.nanoseconds,
            cycles: self
                .cycles
                .zip(other.cycles)
                .map(|(one, other)| one - other),
        }
    }
}

/// A clock, and a counter of this thread's cycles if the kernel allows one: most virtual machines
/// have none, and users may not use it if `kernel.perf_event_paranoid` is above 1.
#[derive(Debug)]
pub struct Meter {
    cycles: counter::Cycles,
}

impl Meter {
    pub fn new() -> Self {
        Meter {
            cycles: counter::Cycles::new(),
        }
    }

    pub fn has_cycles(&mut self) -> bool {
        self.cycles.read().is_some()
    }

    /// The cost of `work`.
    pub fn of(&mut self, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
        let cycles = self.cycles.read();
        let start = Instant::now();

        work()?;
        let nanoseconds = start.elapsed().as_nanos() as f64;
        let cycles = cycles
            .zip(self.cycles.read())
            .map(|(before, after)| after.saturating_sub(before) as f64);

        Ok(Cost {
            nanoseconds,
            cycles,
        })
    }
}

#[cfg(feature = "cli")]
mod counter {
    use perf_event::Builder;
    use perf_event::Counter;
    use perf_event::events::Hardware;

    #[derive(Debug)]
    pub struct Cycles(Option<Counter>);

    impl Cycles {
        pub fn new() -> Self {
            let counter = Builder::new(Hardware::CPU_CYCLES)
                .include_kernel()
                .include_hv()
                .build()
                .and_then(|mut counter| counter.enable().map(|()| counter));

            Cycles(counter.ok())
        }

        pub fn read(&mut self) -> Option<u64> {
            self.0.as_mut()?.read().ok()
        }
    }
}

#[cfg(not(feature = "cli"))]
mod counter {
    #[derive(Debug)]
    pub struct Cycles;

    impl Cycles {
        pub fn new() -> Self {
            Cycles
        }

        pub fn read(&mut self) -> Option<u64> {
            None
        }
    }
}
