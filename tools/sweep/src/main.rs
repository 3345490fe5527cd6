// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvm-msr-sweep` makes the same MSR accesses on pairs of VMs, one served by C and one by the
//! engine, and compares all results.

mod cases;
mod nested;
mod setups;

use std::fs;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use clap::Parser;
use clap::ValueEnum;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Cpuid;
use kvm_msr_guest::Engine;
use kvm_msr_guest::engine;
use serde::Serialize;

use cases::Sweep;

/// The number of differences that are printed.
const TOLD: usize = 50;

/// The CPUIDs, the most important first.
const MODELS: [Cpuid; 4] = [Cpuid::Full, Cpuid::Empty, Cpuid::NoPmu, Cpuid::OtherVendor];

/// Compares every MSR on C and on the engine in one boot
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Leave out most of the unknown MSRs, and most values
    #[arg(long)]
    quick: bool,
    /// The number of CPUIDs: with all features (also with an in-kernel irqchip if there are more),
    /// with none, without a PMU, with the other vendor
    #[arg(long, default_value_t = MODELS.len())]
    models: usize,
    /// Compare only nested state; with --quick, in fewer cases
    #[arg(long)]
    nested: bool,
    /// Have this one serve both guests of a pair, to trace its calls
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// The seed of the random values
    #[arg(long, default_value_t = 0x6b76_6d2d_6d73_7200)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Only {
    C,
    Engine,
}

/// The results for `make sweep`.
#[derive(Serialize)]
struct Report<'a> {
    cases: u64,
    differences: u64,
    first: &'a [String],
}

/// A parameter of the module kvm, restored when this is dropped.
struct Parameter {
    path: String,
    before: String,
}

impl Parameter {
    fn set(name: &str, value: &str) -> Result<Self> {
        let path = format!("/sys/module/kvm/parameters/{name}");
        let before = fs::read_to_string(&path).with_context(|| path.clone())?;

        fs::write(&path, value).with_context(|| path.clone())?;
        Ok(Parameter { path, before })
    }
}

impl Drop for Parameter {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, self.before.trim()) {
            eprintln!("{}: {error}", self.path);
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kvm = Kvm::new().context("open /dev/kvm")?;

    ensure!(
        engine::loaded() || matches!(arguments.only, Some(Only::C)),
        "the module kvm_msr is not loaded: load it, or use --only c"
    );
    let engines = match arguments.only {
        None => [Engine::C, Engine::Rust],
        Some(Only::C) => [Engine::C; 2],
        Some(Only::Engine) => [Engine::Rust; 2],
    };
    let mut sweep = Sweep::new(&kvm, engines, arguments.quick, arguments.seed);
    if arguments.nested {
        nested::sweep(&kvm, &mut sweep, arguments.quick)?;
    } else {
        msrs(&kvm, &mut sweep, arguments.models)?;
    }

    for difference in &sweep.first {
        println!("{difference}");
    }
    println!("{} cases, {} differences", sweep.cases, sweep.differences);
    let report = Report {
        cases: sweep.cases,
        differences: sweep.differences,
        first: &sweep.first,
    };
    println!("@@json {}", serde_json::to_string(&report)?);
    Ok(())
}

/// Compares everything about MSRs.
fn msrs(kvm: &Kvm, sweep: &mut Sweep<'_>, models: usize) -> Result<()> {
    lists(kvm, sweep)?;

    // Otherwise the kernel would spend its time on log messages.
    let _quiet = Parameter::set("report_ignored_msrs", "N")?;
    for &cpuid in MODELS.iter().take(models) {
        sweep.model(cpuid, models > 1 && cpuid == Cpuid::Full)?;
    }
    setups::sweep(sweep)?;
    {
        let _ignore = Parameter::set("ignore_msrs", "Y")?;
        sweep.with_ignore_msrs()?;
        // A few, as the kernel prints a message for each.
        let _told = Parameter::set("report_ignored_msrs", "Y")?;
        sweep.with_reports()?;
    }
    Ok(())
}

/// Has the device served by C or by the engine.
fn enable(engine: Engine) -> Result<()> {
    if engine::loaded() {
        engine::set_enabled(engine == Engine::Rust)?;
    }
    Ok(())
}

/// Compares the device's lists, including their order.
fn lists(kvm: &Kvm, sweep: &mut Sweep<'_>) -> Result<()> {
    let of = |engine: Engine| -> Result<(Vec<u32>, Vec<u32>)> {
        enable(engine)?;
        Ok((
            kvm.get_msr_index_list()?.as_slice().to_vec(),
            kvm.get_msr_feature_index_list()?.as_slice().to_vec(),
        ))
    };
    let (c, c_features) = of(sweep.engines[0])?;
    let (engine, engine_features) = of(sweep.engines[1])?;

    sweep.compare("KVM_GET_MSR_INDEX_LIST", &c, &engine);
    sweep.compare(
        "KVM_GET_MSR_FEATURE_INDEX_LIST",
        &c_features,
        &engine_features,
    );
    sweep.features(&c_features)?;
    Ok(())
}
