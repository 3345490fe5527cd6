// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The suites, a module each.

pub mod device;
mod faults;
mod filter;
mod filter_guest;
mod filter_random;
mod filter_swap;
mod lifetimes;
mod msrs;
mod msrs_values;
mod registers;
mod user_space;
mod user_space_completion;
mod visible;

use anyhow::Result;
use clap::ValueEnum;

use crate::Arguments;
use crate::Pair;
use crate::report::Report;
use crate::side;
use crate::side::Side;

/// A group of tests.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Suite {
    /// KVM_X86_SET_MSR_FILTER and what the guest sees of it
    Filter,
    /// KVM_CAP_X86_USER_SPACE_MSR
    UserSpace,
    /// KVM_GET_MSRS and KVM_SET_MSRS
    Msrs,
    /// What the engine shows in debugfs
    Visible,
    /// Allocations, copies and functions that fail
    Faults,
    /// /dev/kvm-msr
    Device,
    /// Loading and unloading the engine
    Lifetimes,
}

/// A scenario with its name.
type Named = (&'static str, fn(&mut Side) -> Result<()>);

impl Suite {
    /// Runs the suite's tests that the arguments select.
    pub fn run(self, arguments: &Arguments, report: &mut Report) {
        let compare_all = |report: &mut Report, name: &str, scenarios: &[Named]| {
            for (scenario, f) in scenarios {
                let name = format!("{name}: {scenario}");

                if name.contains(&arguments.test) {
                    report.test(name, || {
                        side::compare(arguments.pair.engines(), arguments.verbose, f)
                    });
                }
            }
        };

        match self {
            Suite::Filter => {
                compare_all(report, "filter", filter::SCENARIOS);
                compare_all(report, "filter", filter_guest::SCENARIOS);
                compare_all(report, "filter", filter_swap::SCENARIOS);
                filter_random::run(arguments, report);
            }
            Suite::UserSpace => {
                compare_all(report, "user-space", user_space::SCENARIOS);
                compare_all(report, "user-space", user_space_completion::SCENARIOS);
            }
            Suite::Msrs => {
                compare_all(report, "msrs", msrs::SCENARIOS);
                compare_all(report, "msrs", msrs_values::SCENARIOS);
                compare_all(report, "msrs", registers::SCENARIOS);
            }
            Suite::Visible => {
                compare_all(report, "visible", visible::SCENARIOS);
            }
            // Only the kernels for debugging can make these fail.
            Suite::Faults if faults::possible() => {
                compare_all(report, "faults", faults::copies::SCENARIOS);
                compare_all(report, "faults", faults::functions::SCENARIOS);
            }
            Suite::Faults => {}
            Suite::Device | Suite::Lifetimes if arguments.pair == Pair::CC => {
                println!("{self:?}: not run, as --pair c,c has no engine");
            }
            Suite::Device => device::run(arguments, report),
            Suite::Lifetimes => lifetimes::run(arguments, report),
        }
    }
}
