// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `/dev/kvm-msr`.

mod actions;
mod attach;
mod bad_input;
mod bad_policy;
mod batch;
mod ends;
mod immediate;
mod learning;
mod memory;
mod model;
mod msrs;
mod nested_lists;
mod random;
mod save_list;
mod setup;
mod stats;
mod swap;
mod visible;

pub use self::batch::from_stdin as batch_from_stdin;

use anyhow::Result;

use crate::Arguments;
use crate::report::Report;
use crate::suites::faults;

type Test = fn() -> Result<String>;

const TESTS: &[&[(&str, Test)]] = &[
    attach::TESTS,
    bad_input::TESTS,
    bad_policy::TESTS,
    ends::TESTS,
    actions::TESTS,
    learning::TESTS,
    batch::TESTS,
    save_list::TESTS,
    stats::TESTS,
    visible::TESTS,
];

type TestWithArguments = fn(&Arguments) -> Result<String>;

const WITH_ARGUMENTS: &[(&str, TestWithArguments)] = &[
    ("random policies", random::run),
    ("policies replaced under two vCPUs", swap::run),
    ("learning random MSRs", learning::random),
    ("BATCH is like single calls", batch::like_single_calls),
];

/// Runs the suite's tests that the arguments select.
pub fn run(arguments: &Arguments, report: &mut Report) {
    // Not every kernel and CPU can run these.
    let conditional = [
        (faults::possible(), memory::TESTS),
        (!nested_lists::impossible(), nested_lists::TESTS),
        (immediate::possible(), immediate::TESTS),
    ]
    .into_iter()
    .filter(|(is_possible, _)| *is_possible)
    .flat_map(|(_, tests)| tests);

    for (name, test) in TESTS.iter().copied().flatten().chain(conditional) {
        let name = format!("device: {name}");

        if name.contains(&arguments.test) {
            report.test(name, test);
        }
    }
    for (name, test) in WITH_ARGUMENTS {
        let name = format!("device: {name}");

        if name.contains(&arguments.test) {
            report.test(name, || test(arguments));
        }
    }
}
