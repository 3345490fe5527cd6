// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvm-msr-check`: are KVM's C code and the engine the same to user space and
//! to the guest?
//!
//! Every scenario runs on a VM that C serves and on a VM that the engine serves,
//! in the same boot. What can be observed goes into a transcript, and the two
//! transcripts have to be equal. Scenarios also assert what api.rst demands, so
//! that both being wrong is no success.

mod arena;
mod module;
mod report;
mod side;
mod suites;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use anyhow::bail;
use clap::Parser;
use clap::ValueEnum;
use kvm_msr_guest::Engine;
use kvm_msr_guest::engine;

use crate::report::Report;
use crate::suites::Suite;

/// Compares KVM's C code with the engine, scenario by scenario.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Run these suites only
    #[arg(long, value_enum)]
    suite: Vec<Suite>,

    /// Run the tests whose name contains this text only
    #[arg(long, default_value = "")]
    test: String,

    /// Who is compared; `c,c` tries the tests themselves on any kernel
    #[arg(long, value_enum, default_value_t = Pair::CEngine)]
    pair: Pair,

    /// Seed of the random filters
    #[arg(long, default_value_t = 0x6b76_6d2d_6d73_7200)]
    seed: u64,

    /// Random filters to compare
    #[arg(long, default_value_t = 300)]
    filters: u32,

    /// How often to load and unload the engine
    #[arg(long, default_value_t = 100)]
    loads: u32,

    /// The engine's module
    #[arg(long, default_value = "/lib/modules/kvm-msr.ko")]
    module: PathBuf,

    /// The vendor's module; the default is kvm-amd.ko or kvm-intel.ko, whichever
    /// is loaded, beside the engine's
    #[arg(long)]
    vendor_module: Option<PathBuf>,

    /// Print the transcripts
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Pair {
    /// C and the engine
    #[value(name = "c,engine")]
    CEngine,
    /// C and C again
    #[value(name = "c,c")]
    CC,
}

impl Pair {
    fn engines(self) -> [Engine; 2] {
        match self {
            Pair::CEngine => [Engine::C, Engine::Rust],
            Pair::CC => [Engine::C, Engine::C],
        }
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();

    if arguments.pair == Pair::CEngine && !engine::loaded() {
        bail!(
            "the module kvm_msr is not loaded (no /sys/module/kvm_msr): load it, or compare C \
             with itself by --pair c,c"
        );
    }
    enable_emulation_prefix();

    let enabled = engine::enabled();
    let mut report = Report::default();
    for suite in Suite::value_variants() {
        if arguments.suite.is_empty() || arguments.suite.contains(suite) {
            suite.run(&arguments, &mut report);
        }
    }
    if engine::loaded() {
        engine::set_enabled(enabled)?;
    }
    report.finish()
}

/// Lets guests reach KVM's emulator, unless kvm.ko does so already.
fn enable_emulation_prefix() {
    const PARAMETER: &str = "/sys/module/kvm/parameters/force_emulation_prefix";

    // Without the parameter, or the right to write it, the guests get #UD, and
    // the tests that need the emulator say so.
    if std::fs::read_to_string(PARAMETER).is_ok_and(|value| value.trim() == "0") {
        let _ = std::fs::write(PARAMETER, "1");
    }
}
