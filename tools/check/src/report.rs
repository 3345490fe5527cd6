// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Results: a line per test for people, one line of JSON for programs.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

/// The result of one test.
#[derive(Serialize)]
struct Verdict {
    name: String,
    result: &'static str,
    message: String,
}

/// The results for `make test`.
#[derive(Serialize)]
struct Json<'a> {
    suite: &'static str,
    tests: &'a [Verdict],
}

/// All results so far.
#[derive(Default)]
pub struct Report {
    verdicts: Vec<Verdict>,
}

impl Report {
    /// Runs a test and prints its line, with the remark that it returns.
    pub fn test(&mut self, name: String, test: impl FnOnce() -> Result<String>) {
        print!("{name:<44} ");
        // Print the name before the test runs, in case it hangs.
        let _ = std::io::stdout().flush();

        let start = Instant::now();
        let (result, message) = match test() {
            Ok(remark) => ("pass", remark),
            Err(error) => ("fail", format!("{error:#}")),
        };
        let word = if result == "pass" { "ok" } else { "FAIL" };

        print!("{word:<4} {:>6.2} s", start.elapsed().as_secs_f64());
        println!("{}{message}", if message.is_empty() { "" } else { "  " });
        self.verdicts.push(Verdict {
            name,
            result,
            message,
        });
    }

    /// Prints the summary. The exit code says whether all tests passed.
    pub fn finish(self) -> Result<ExitCode> {
        let failures = self.verdicts.iter().filter(|v| v.result != "pass").count();

        println!("{} tests, {failures} failed", self.verdicts.len());
        let json = Json {
            suite: "check",
            tests: &self.verdicts,
        };
        println!("@@json {}", serde_json::to_string(&json)?);

        let passed = failures == 0 && !self.verdicts.is_empty();
        Ok(if passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
