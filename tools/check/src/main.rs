// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvm-msr-check` tests that KVM's C code and the engine behave alike towards user space and the
//! guest.
//!
//! Each scenario runs on a VM that C serves and on a VM that the engine serves, in the same boot.
//! All observations go into transcripts, and the two transcripts have to be equal. Scenarios also
//! assert what api.rst requires, so that a mistake on both sides is found.

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
    /// Run only these suites
    #[arg(long, value_enum)]
    suite: Vec<Suite>,

    /// Run only the tests whose name contains this text
    #[arg(long, default_value = "")]
    test: String,

    /// The two sides; `c,c` tests the scenarios themselves on any kernel
    #[arg(long, value_enum, default_value_t = Pair::CEngine)]
    pair: Pair,

    /// Seed of the random filters and policies
    #[arg(long, default_value_t = 0x6b76_6d2d_6d73_7200)]
    seed: u64,

    /// Number of random filters
    #[arg(long, default_value_t = 300)]
    filters: u32,

    /// Number of random policies
    #[arg(long, default_value_t = 150)]
    policies: u32,

    /// How long policies are replaced while vCPUs run, in seconds
    #[arg(long, default_value_t = 3)]
    load_seconds: u64,

    /// How often to load and unload the engine
    #[arg(long, default_value_t = 20)]
    loads: u32,

    /// The engine's module
    #[arg(long, default_value = "/lib/modules/kvm-msr.ko")]
    module: PathBuf,

    /// The vendor module; by default, kvm-amd.ko or kvm-intel.ko (whichever is loaded) in the
    /// directory of the engine's module
    #[arg(long)]
    vendor_module: Option<PathBuf>,

    /// For the suite itself: make a batch by the file of /dev/kvm-msr that is standard input
    #[arg(long, hide = true)]
    batch_from_stdin: bool,

    /// Print the transcripts
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Pair {
    /// C and the engine
    #[value(name = "c,engine")]
    CEngine,
    /// C and C
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

    if arguments.batch_from_stdin {
        suites::device::batch_from_stdin()?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.pair == Pair::CEngine && !engine::loaded() {
        bail!(
            "the module kvm_msr is not loaded (no /sys/module/kvm_msr): load it, or compare C \
             with itself with --pair c,c"
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

/// Enables KVM's forced-emulation prefix for guests.
pub(crate) fn enable_emulation_prefix() {
    const PARAMETER: &str = "/sys/module/kvm/parameters/force_emulation_prefix";

    // Without the parameter, or permission to write it, guests get #UD. Then the tests that need
    // the emulator fail, and say so.
    if std::fs::read_to_string(PARAMETER).is_ok_and(|value| value.trim() == "0") {
        let _ = std::fs::write(PARAMETER, "1");
    }
}
