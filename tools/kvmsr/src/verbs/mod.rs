// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The verbs, a module each.

mod bench;
mod check;
mod compat;
mod decode;
mod diff;
mod doctor;
mod explain;
mod filter;
mod generate;
mod get;
mod learn;
mod list;
mod log;
mod man;
mod period;
mod policy;
mod probe;
mod save_list;
mod set;
mod snapshot;
mod stats;
mod stop;
mod top;
mod tracing;
mod vcpu;
mod vm;

use crate::Common;
use crate::output::Output;

/// What the exit code reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// Success: 0.
    Nothing,
    /// Something differs, is refused, or was found: 1.
    Something,
}

impl From<bool> for Found {
    fn from(something: bool) -> Self {
        if something {
            Found::Something
        } else {
            Found::Nothing
        }
    }
}

/// The verb.
// `deferred`: the options of other verbs need not be built.
#[derive(Debug, clap::Subcommand)]
#[command(defer = true)]
pub enum Verb {
    /// Explain an MSR, its fields, and how KVM treats it; offline
    Explain(explain::Options),
    /// Decode the fields of a value; offline
    Decode(decode::Options),
    /// Print the MSRs that this host's KVM lists, with names and values
    #[command(long_about = list::ABOUT)]
    List(list::Options),
    /// Read MSRs of a scratch vCPU, or of a running VM
    #[command(long_about = get::ABOUT)]
    Get(get::Options),
    /// Write MSRs of a scratch vCPU, or of a running VM, and print the result
    #[command(long_about = set::ABOUT)]
    Set(set::Options),
    /// Test which bits can be read and written, and why others can't
    #[command(long_about = probe::ABOUT)]
    Probe(probe::Options),
    /// Write the whole state of a scratch vCPU to a file for diff, check and compat
    Snapshot(snapshot::Options),
    /// Compare two snapshots by field; offline
    Diff(diff::Options),
    /// Check whether this host accepts a file's MSRs, with a reason for each refusal
    Check(check::Options),
    /// Compute a profile of what all hosts accept; offline
    Compat(compat::Options),
    /// MSR filters: compile, show, lint, test; offline
    Filter(filter::Options),
    /// Policies for a VM of kvm-msr.ko: set, get, clear, test, compile
    Policy(policy::Options),
    /// Learn which MSRs a running guest accesses, for a filter or a policy
    Learn(learn::Options),
    /// Count a running guest's accesses, their outcomes and how long they take
    Stats(stats::Options),
    /// Print all MSRs that have to be saved and restored for a vCPU, and how
    SaveList(save_list::Options),
    /// Count which VM accesses which MSR; live
    Top(top::Options),
    /// Print each access to an MSR as it happens
    Log(log::Options),
    /// Measure an exit, an entry of KVM_GET_MSRS and a filter on this host
    Bench(bench::Options),
    /// Check whether KVM can be used, and how to fix what is missing
    Doctor(doctor::Options),
    #[command(hide = true)]
    /// Generate man pages and shell completions
    Generate(generate::Options),
}

/// Runs the verb.
pub fn run(verb: Verb, common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    match verb {
        Verb::Explain(options) => explain::run(&options, common, output),
        Verb::Decode(options) => decode::run(&options, common, output),
        Verb::List(options) => list::run(&options, common, output),
        Verb::Get(options) => get::run(&options, common, output),
        Verb::Set(options) => set::run(&options, common, output),
        Verb::Probe(options) => probe::run(&options, common, output),
        Verb::Snapshot(options) => snapshot::run(&options, common, output),
        Verb::Diff(options) => diff::run(&options, common, output),
        Verb::Check(options) => check::run(&options, common, output),
        Verb::Compat(options) => compat::run(&options, common, output),
        Verb::Filter(options) => filter::run(&options, common, output),
        Verb::Policy(options) => policy::run(&options, common, output),
        Verb::Learn(options) => learn::run(&options, common, output),
        Verb::Stats(options) => stats::run(&options, common, output),
        Verb::SaveList(options) => save_list::run(&options, common, output),
        Verb::Top(options) => top::run(&options, common, output),
        Verb::Log(options) => log::run(&options, common, output),
        Verb::Bench(options) => bench::run(&options, common, output),
        Verb::Doctor(options) => doctor::run(&options, common, output),
        Verb::Generate(options) => generate::run(&options, common, output),
    }
}
