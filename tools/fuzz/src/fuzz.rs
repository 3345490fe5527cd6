// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The loop: makes histories, runs them, and keeps those that reach something new.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::engine;
use serde::Serialize;

use crate::Arguments;
use crate::corpus;
use crate::coverage::Coverage;
use crate::generate::Generator;
use crate::history::History;
use crate::host::Host;
use crate::pair::Difference;
use crate::pair::Runner;
use crate::reduce;

/// How long a vCPU may run without an exit to user space.
const LONGEST_RUN: Duration = Duration::from_millis(500);

/// The time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// The number of differences after which `--keep-going` ends, too.
const TOLD: u64 = 20;

/// The results for `make fuzz`.
#[derive(Serialize)]
pub struct Report {
    /// Compared outcomes of steps.
    pub steps: u64,
    /// Histories, each on a new pair of VMs.
    pub histories: u64,
    /// Histories in which the sides differ.
    pub differences: u64,
    /// Histories in which they differed once, but not in ten runs after that.
    pub unrepeated: u64,
    /// When the first difference was seen, in seconds from the start.
    pub found: Option<u64>,
    /// Pairs of places in the kernel's code that were reached; none without kcov.
    pub pairs: Option<usize>,
    /// Histories that are worth keeping.
    pub corpus: usize,
    /// Run time.
    pub seconds: u64,
    /// The source of everything random.
    pub seed: u64,
}

struct Fuzz<'a> {
    arguments: &'a Arguments,
    runner: Runner<'a>,
    /// For histories that differ: on one side, a vCPU may just have been slower than usual.
    patient: Runner<'a>,
    coverage: Option<Coverage>,
    corpus: Vec<History>,
    start: Instant,
    told: Instant,
    report: Report,
}

/// Runs everything, prints it, and returns the results.
pub fn run(arguments: &Arguments) -> Result<Report> {
    ensure!(engine::loaded(), "the module kvm_msr is not loaded");
    let host = Host::new()?;
    let mut fuzz = Fuzz {
        arguments,
        runner: Runner::new(&host, LONGEST_RUN)?,
        patient: Runner::new(&host, 10 * LONGEST_RUN)?,
        coverage: Coverage::start().context("kcov")?,
        corpus: Vec::new(),
        start: Instant::now(),
        told: Instant::now(),
        report: Report {
            steps: 0,
            histories: 0,
            differences: 0,
            unrepeated: 0,
            found: None,
            pairs: None,
            corpus: 0,
            seconds: 0,
            seed: arguments.seed,
        },
    };

    println!(
        "{} MSRs; {}; seed {:#x}",
        host.known.len(),
        match fuzz.coverage {
            Some(_) => "guided by kcov",
            None => "not guided, as this kernel has no kcov",
        },
        arguments.seed
    );
    if let Some(path) = &arguments.corpus {
        let histories = corpus::read(path)?;

        println!("{} histories in the corpus", histories.len());
        for history in histories {
            if fuzz.is_over() {
                break;
            }
            // Without kcov, nobody knows which ones are worth it.
            if fuzz.try_one(&history)? || fuzz.coverage.is_none() {
                fuzz.corpus.push(history);
            }
        }
    }
    if !arguments.replay {
        fuzz.search()?;
        if arguments.minimise {
            fuzz.minimise()?;
        }
    }
    fuzz.tell();
    fuzz.report.seconds = fuzz.start.elapsed().as_secs();
    fuzz.report.corpus = fuzz.corpus.len();
    fuzz.report.pairs = fuzz.coverage.as_ref().map(Coverage::pairs);
    println!("@@json {}", serde_json::to_string(&fuzz.report)?);
    Ok(fuzz.report)
}

impl Fuzz<'_> {
    fn is_over(&self) -> bool {
        let found = self.report.differences;

        self.start.elapsed().as_secs() >= self.arguments.seconds
            || self.report.steps >= self.arguments.steps
            || found >= if self.arguments.keep_going { TOLD } else { 1 }
    }

    /// Makes random histories, until there is a difference or the time is over.
    fn search(&mut self) -> Result<()> {
        let mut generator = Generator::new(self.runner.host, self.arguments.seed);

        while !self.is_over() {
            let history = if self.corpus.is_empty() || generator.random.below(4) == 0 {
                generator.history()
            } else {
                generator.change(&self.corpus)
            };

            if self.try_one(&history)? {
                self.corpus.push(history);
            }
        }
        Ok(())
    }

    /// Runs a history. Returns whether it is to be kept: it has reached something new.
    fn try_one(&mut self, history: &History) -> Result<bool> {
        if let Some(coverage) = &mut self.coverage {
            coverage.skip();
        }
        let run = self.runner.run(history)?;

        self.report.steps += run.outcomes;
        self.report.histories += 1;
        if let Some(difference) = run.difference {
            self.show(history, difference)?;
            return Ok(false);
        }
        if self.told.elapsed() >= PROGRESS {
            self.tell();
        }
        Ok(match &mut self.coverage {
            Some(coverage) => !coverage.take().is_empty(),
            None => false,
        })
    }

    /// Reduces a difference, and prints it.
    fn show(&mut self, history: &History, difference: Difference) -> Result<()> {
        let seconds = self.start.elapsed().as_secs();

        println!("a difference at {difference}");
        if !reduce::repeats(&self.patient, history)? {
            println!("it was not seen again in {} runs", reduce::REPEATS);
            println!("@@unrepeated {}", serde_json::to_string(history)?);
            self.report.unrepeated += 1;
            return Ok(());
        }
        self.report.differences += 1;
        self.report.found.get_or_insert(seconds);
        let reduced = reduce::reduce(&self.patient, history, difference)?;
        println!(
            "the shortest history, which differed in {} of {} runs, at {}",
            reduced.seen,
            reduce::RUNS,
            reduced.difference
        );
        let history = serde_json::to_string(&reduced.history)?;
        println!("{history}\n@@difference {history}");
        Ok(())
    }

    /// Prints the progress.
    fn tell(&mut self) {
        let seconds = self.start.elapsed().as_secs_f64().max(0.1);
        let report = &self.report;
        let pairs = match &self.coverage {
            Some(coverage) => format!(", {} pairs of places reached", coverage.pairs()),
            None => String::new(),
        };

        println!(
            "  {seconds:.0} s: {} steps ({:.0}/s) in {} histories, {} in the corpus{pairs}, {} differences",
            report.steps,
            report.steps as f64 / seconds,
            report.histories,
            self.corpus.len(),
            report.differences
        );
        self.told = Instant::now();
    }

    /// Prints the corpus, without what it does not need.
    fn minimise(&mut self) -> Result<()> {
        let Some(coverage) = &mut self.coverage else {
            return Ok(());
        };
        let all = std::mem::take(&mut self.corpus);
        println!("minimising {} histories", all.len());
        self.corpus = corpus::minimise(&self.runner, coverage, all, |done, total| {
            if self.told.elapsed() >= PROGRESS {
                println!("  {done} of {total}");
                self.told = Instant::now();
            }
        })?;
        for history in &self.corpus {
            println!("@@corpus {}", serde_json::to_string(history)?);
        }
        Ok(())
    }
}
