// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests `kvmsr` and its library on real KVM, in the VM of `make test-kvmsr`: compares their
//! results with plain ioctls and a plain guest.

mod report;
mod run;
mod suites;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::report::Report;
use crate::run::Kvmsr;

/// Compares kvmsr with plain ioctls and a plain guest
#[derive(Debug, Parser)]
struct Options {
    /// Run only the tests of this suite
    #[arg(long)]
    suite: Option<String>,
    /// Run all tests except those of this suite
    #[arg(long, conflicts_with = "suite")]
    skip: Option<String>,
    /// Run the suites with QEMU instead, for which it has to be installed (make test-vmm)
    #[arg(long)]
    vmm: bool,
    /// The path of the program kvmsr
    #[arg(long, default_value = "/programs/kvmsr")]
    kvmsr: PathBuf,
    /// The directory of files for the tests
    #[arg(long, default_value = "/kvmsr")]
    data: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let kvmsr = Kvmsr::new(&options.kvmsr, &options.data);
    let mut report = Report::default();

    let suites = if options.vmm {
        suites::VMM
    } else {
        suites::ALL
    };

    for (name, suite) in suites {
        if options.suite.as_deref().is_none_or(|only| only == *name)
            && options.skip.as_deref() != Some(*name)
        {
            report.begin(name);
            suite(&kvmsr, &mut report);
        }
    }
    report.print()
}
