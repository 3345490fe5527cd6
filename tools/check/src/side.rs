// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One side of a comparison: an engine, and the observations made with it.

use std::fmt::Display;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::engine;
use kvm_msr_guest::ioctl;

/// An engine, and the transcript of a scenario.
pub struct Side {
    /// What serves this side's VMs.
    pub engine: Engine,
    kvm: Kvm,
    transcript: Vec<String>,
}

/// A scenario: steps and observations on one side.
pub type Scenario<'a> = &'a dyn Fn(&mut Side) -> Result<()>;

impl Side {
    fn new(engine: Engine) -> Result<Self> {
        // This also decides what serves the ioctls of /dev/kvm.
        if engine::loaded() {
            engine::set_enabled(engine == Engine::Rust)?;
        }
        Ok(Side {
            engine,
            kvm: Kvm::new().context("open /dev/kvm")?,
            transcript: Vec::new(),
        })
    }

    /// `/dev/kvm`.
    pub fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// A guest with full CPUID and without in-kernel irqchip.
    pub fn guest(&self) -> Result<Guest> {
        Guest::new(&self.kvm, Options::new(self.engine))
    }

    /// A guest that this side's engine serves, with other options.
    pub fn guest_with(&self, change: impl FnOnce(&mut Options)) -> Result<Guest> {
        let mut options = Options::new(self.engine);

        change(&mut options);
        Guest::new(&self.kvm, options)
    }

    /// Adds an observation to the transcript.
    pub fn note(&mut self, step: impl Display, observed: impl Display) {
        self.transcript.push(format!("{step}: {observed}"));
    }

    /// Adds an ioctl's result, which has to be `expected`.
    pub fn ioctl(
        &mut self,
        step: impl Display,
        result: ioctl::Result,
        expected: ioctl::Result,
    ) -> Result<()> {
        self.note(&step, show(result));
        if result != expected {
            bail!("{step}: {} instead of {}", show(result), show(expected));
        }
        Ok(())
    }

    /// Adds an observation, which has to be `expected`.
    pub fn expect<T: Display + PartialEq>(
        &mut self,
        step: impl Display,
        observed: T,
        expected: T,
    ) -> Result<()> {
        self.note(&step, &observed);
        if observed != expected {
            bail!("{step}: {observed} instead of {expected}");
        }
        Ok(())
    }
}

/// An ioctl's result as text.
pub fn show(result: ioctl::Result) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(errno) => errno.to_string(),
    }
}

/// Runs a scenario on both engines and compares the transcripts.
///
/// Returns a remark with the number of steps.
pub fn compare(engines: [Engine; 2], verbose: bool, scenario: Scenario<'_>) -> Result<String> {
    let mut ends = Vec::new();

    for engine in engines {
        let mut side = Side::new(engine)?;
        let end = scenario(&mut side);

        ends.push((side.transcript, end));
    }
    let (engine, c) = (ends.pop().expect("two"), ends.pop().expect("two"));

    if verbose {
        println!();
        for line in &c.0 {
            println!("    {line}");
        }
    }

    let failure = |(transcript, end): &(Vec<String>, Result<()>), at: usize| {
        transcript.get(at).cloned().unwrap_or_else(|| match end {
            Ok(()) => "(end of the scenario)".to_owned(),
            Err(error) => format!("{error:#}"),
        })
    };
    let steps = c.0.len().max(engine.0.len());
    if let Some(at) = (0..steps).find(|&at| c.0.get(at) != engine.0.get(at)) {
        bail!(
            "step {}: {} did \"{}\", {} did \"{}\"",
            at + 1,
            engines[0],
            failure(&c, at),
            engines[1],
            failure(&engine, at)
        );
    }
    match (c.1, engine.1) {
        (Ok(()), Ok(())) => Ok(format!("{steps} steps")),
        (Err(c), Err(engine)) if format!("{c:#}") == format!("{engine:#}") => {
            bail!("both, step {steps}: {c:#}")
        }
        (Err(c), Err(engine)) => bail!("{}: {c:#}; {}: {engine:#}", engines[0], engines[1]),
        (Err(c), Ok(())) => bail!("{} only: {c:#}", engines[0]),
        (Ok(()), Err(engine)) => bail!("{} only: {engine:#}", engines[1]),
    }
}
