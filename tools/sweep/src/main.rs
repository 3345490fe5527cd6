// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvm-msr-sweep`: makes the same MSR accesses on pairs of VMs, one of C and
//! one of the engine, and compares everything that can be observed.

mod cases;
mod nested;

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

/// How many differences are told in full.
const TOLD: usize = 50;

/// The CPUIDs to be tried, the most telling first.
const MODELS: [Cpuid; 4] = [Cpuid::Full, Cpuid::Empty, Cpuid::NoPmu, Cpuid::OtherVendor];

/// Compares every MSR of C and of the engine in one boot, value by value.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Leave out most of the MSRs that nobody knows, and most values
    #[arg(long)]
    quick: bool,
    /// How many CPUIDs: with all features, and an in-kernel irqchip as well if
    /// there are more, with none, without a PMU, with the other vendor
    #[arg(long, default_value_t = MODELS.len())]
    models: usize,
    /// Only nested state, in fewer cases with --quick
    #[arg(long)]
    nested: bool,
    /// Have both guests of a pair be served by this one, to trace what it calls
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// The seed of all that is random
    #[arg(long, default_value_t = 0x6b76_6d2d_6d73_7200)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Only {
    C,
    Engine,
}

/// What `make sweep` collects.
#[derive(Serialize)]
struct Report<'a> {
    cases: u64,
    differences: u64,
    first: &'a [String],
}

/// A parameter of the module kvm, put back when this is dropped.
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

    ensure!(engine::loaded(), "the module kvm_msr is not loaded");
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

/// All about MSRs.
fn msrs(kvm: &Kvm, sweep: &mut Sweep<'_>, models: usize) -> Result<()> {
    lists(kvm, sweep)?;

    // The log would be all that it does otherwise.
    let _quiet = Parameter::set("report_ignored_msrs", "N")?;
    for &cpuid in MODELS.iter().take(models) {
        sweep.model(cpuid, models > 1 && cpuid == Cpuid::Full)?;
    }
    {
        let _ignore = Parameter::set("ignore_msrs", "Y")?;
        sweep.with_ignore_msrs()?;
    }
    Ok(())
}

/// The lists of the device, in their order.
fn lists(kvm: &Kvm, sweep: &mut Sweep<'_>) -> Result<()> {
    let of = |engine: Engine| -> Result<(Vec<u32>, Vec<u32>)> {
        engine::set_enabled(engine == Engine::Rust)?;
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
