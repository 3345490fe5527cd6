// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Response times, by the machine's own clock.

use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::ensure;

use crate::report::Report;
use crate::run::Kvmsr;
use crate::suites::check::five_hundred;

/// The number of runs of each command. The first run reads the program's file, and is not counted.
const RUNS: usize = 5;

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    for (arguments, limit) in [
        (["--version"].as_slice(), Duration::from_millis(10)),
        (&["explain", "IA32_EFER"], Duration::from_millis(20)),
    ] {
        let name = format!("{} within {} ms", arguments.join(" "), limit.as_millis());

        report.test(&name, || within(kvmsr, arguments, 0, limit));
    }
    report.test("check of 500 MSRs within 200 ms", || {
        let file = five_hundred(kvmsr)?;
        let file = file.to_str().context("a path")?;

        // Some are refused.
        within(kvmsr, &["check", file], 1, Duration::from_millis(200))
    });
}

fn within(kvmsr: &Kvmsr, arguments: &[&str], code: i32, limit: Duration) -> anyhow::Result<String> {
    let mut runs = (0..=RUNS)
        .map(|_| time(kvmsr, arguments, code))
        .skip(1)
        .collect::<anyhow::Result<Vec<_>>>()?;

    runs.sort();
    let median = *runs.get(RUNS / 2).context("no run")?;

    ensure!(median <= limit, "{median:?}");
    Ok(format!("{median:?}"))
}

/// The time from the start of the process to its end.
fn time(kvmsr: &Kvmsr, arguments: &[&str], code: i32) -> anyhow::Result<Duration> {
    let mut command = kvmsr.command(arguments);

    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let took = start.elapsed();

    ensure!(
        status.code() == Some(code),
        "kvmsr {}: {status}",
        arguments.join(" ")
    );
    Ok(took)
}
