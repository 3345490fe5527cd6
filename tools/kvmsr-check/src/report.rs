// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The results: a line each for people, and one frame of JSON for the suite on the host.

use std::process::ExitCode;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

/// The results of the tests.
#[derive(Debug, Default)]
pub struct Report {
    suite: &'static str,
    tests: Vec<Value>,
    failed: bool,
}

impl Report {
    /// Sets the suite of the following tests: the verb.
    pub fn begin(&mut self, suite: &'static str) {
        self.suite = suite;
    }

    /// Runs a test. Prints the text that it returns beside its name, e.g. "10,073 MSRs compared".
    pub fn test(&mut self, name: &str, test: impl FnOnce() -> anyhow::Result<String>) {
        let start = Instant::now();
        let result = test();
        let seconds = start.elapsed().as_secs_f64();
        let name = format!("{}: {name}", self.suite);
        let (verdict, message) = match &result {
            Ok(message) => ("pass", message.clone()),
            Err(error) => ("fail", format!("{error:#}")),
        };

        self.failed |= result.is_err();
        println!("{verdict} {name} ({seconds:.1} s) {message}");
        self.tests.push(json!({
            "name": name, "result": verdict, "message": message, "seconds": seconds,
        }));
    }

    /// Passes a document to the suite on the host, which validates it with its schema.
    pub fn document(&self, schema: &str, document: &str) {
        let document: Value = serde_json::from_str(document).unwrap_or(Value::Null);

        println!(
            "@@json {}",
            json!({ "schema": schema, "document": document })
        );
    }

    /// Prints the frame.
    pub fn print(self) -> ExitCode {
        println!("@@json {}", json!({ "tests": self.tests }));
        ExitCode::from(u8::from(self.failed))
    }
}
