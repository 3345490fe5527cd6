// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvm-msr-fuzz` does the same to pairs of VMs, one served by C and one by the engine, at random, and
//! compares what comes of each step, and the VMs' state at the end of each history.

mod corpus;
mod coverage;
mod cpu;
mod direct;
mod fuzz;
mod generate;
mod history;
mod host;
mod nested_state;
mod pages;
mod pair;
mod reduce;
mod seen;
mod side;
mod state;
mod together;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Compares random histories of VMs on C and on the engine
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Stop after this many seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Stop after this many compared steps, if that is earlier
    #[arg(long, default_value_t = u64::MAX)]
    steps: u64,
    /// The seed of everything random
    #[arg(long, default_value_t = 0x6b76_6d2d_6d73_7200)]
    seed: u64,
    /// Histories to start with, one on a line
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Do nothing but run the histories of the corpus
    #[arg(long)]
    replay: bool,
    /// At the end, print the corpus, without what it does not need
    #[arg(long)]
    minimise: bool,
    /// Go on after a difference
    #[arg(long)]
    keep_going: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let report = fuzz::run(&arguments)?;

    Ok(if report.differences == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
