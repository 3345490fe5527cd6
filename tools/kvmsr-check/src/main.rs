// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Runs in the VM of `make test-kvmsr`: has `kvmsr` and its library work on real KVM, and judges
//! what they say by raw ioctls and by a raw guest.

mod report;
mod run;
mod suites;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::report::Report;
use crate::run::Kvmsr;

/// Compares kvmsr with raw ioctls and a raw guest.
#[derive(Debug, Parser)]
struct Options {
    /// Only the tests of this suite
    #[arg(long)]
    suite: Option<String>,
    /// All but the tests of this suite
    #[arg(long, conflicts_with = "suite")]
    skip: Option<String>,
    /// The program
    #[arg(long, default_value = "/programs/kvmsr")]
    kvmsr: PathBuf,
    /// Files that the tests read
    #[arg(long, default_value = "/kvmsr")]
    data: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let kvmsr = Kvmsr::new(&options.kvmsr, &options.data);
    let mut report = Report::default();

    for (name, suite) in suites::ALL {
        if options.suite.as_deref().is_none_or(|only| only == *name)
            && options.skip.as_deref() != Some(*name)
        {
            report.begin(name);
            suite(&kvmsr, &mut report);
        }
    }
    report.print()
}
