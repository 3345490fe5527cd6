// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The verbs, a file each.

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
mod list;
mod log;
mod man;
mod probe;
mod set;
mod snapshot;
mod stop;
mod top;
mod tracing;
mod vcpu;

use crate::Common;
use crate::output::Output;

/// What the exit code says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// All is fine: 0.
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

/// What to do.
// Options of verbs that nobody gives need not be built: deferred.
#[derive(Debug, clap::Subcommand)]
#[command(defer = true)]
pub enum Verb {
    /// What an MSR is, its fields, and how KVM treats it; offline
    Explain(explain::Options),
    /// The fields of a value; offline
    Decode(decode::Options),
    /// What this host's KVM lists, with names and values on a fresh vCPU
    #[command(long_about = list::ABOUT)]
    List(list::Options),
    /// Read MSRs of a scratch vCPU
    #[command(long_about = get::ABOUT)]
    Get(get::Options),
    /// Write an MSR of a scratch vCPU, and say what became of it
    #[command(long_about = set::ABOUT)]
    Set(set::Options),
    /// Find out what can be read and written, bit by bit, and what refuses the rest
    #[command(long_about = probe::ABOUT)]
    Probe(probe::Options),
    /// Everything of a scratch vCPU, as a file for diff, check and compat
    Snapshot(snapshot::Options),
    /// The difference of two snapshots, by field; offline
    Diff(diff::Options),
    /// Would this host take these MSRs? A verdict and a reason for each
    Check(check::Options),
    /// The most that all of these hosts take, as a profile; offline
    Compat(compat::Options),
    /// MSR filters: compile, show, lint, test; offline
    Filter(filter::Options),
    /// Which VM touches which MSR, how often; live
    Top(top::Options),
    /// Each access to an MSR as it happens
    Log(log::Options),
    /// What this host takes for an exit, an entry of KVM_GET_MSRS, a filter
    Bench(bench::Options),
    /// What is there of KVM, and what to do about what is not
    Doctor(doctor::Options),
    #[command(hide = true)]
    /// Man pages and shell completions
    Generate(generate::Options),
}

/// Does it.
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
        Verb::Top(options) => top::run(&options, common, output),
        Verb::Log(options) => log::run(&options, common, output),
        Verb::Bench(options) => bench::run(&options, common, output),
        Verb::Doctor(options) => doctor::run(&options, common, output),
        Verb::Generate(options) => generate::run(&options, common, output),
    }
}
