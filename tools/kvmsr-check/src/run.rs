// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Runs the program.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::bail;
use serde_json::Value;

/// The program and the files for it.
#[derive(Debug)]
pub struct Kvmsr {
    program: PathBuf,
    data: PathBuf,
}

/// The result of a run.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl fmt::Display for Kvmsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())
    }
}

impl Kvmsr {
    /// The program with this path, and the directory of its files.
    pub fn new(program: &Path, data: &Path) -> Self {
        Kvmsr {
            program: program.to_owned(),
            data: data.to_owned(),
        }
    }

    /// Another program of its directory, e.g. a sample.
    pub fn beside(&self, name: &str) -> Self {
        Kvmsr {
            program: self.program.with_file_name(name),
            data: self.data.clone(),
        }
    }

    /// A file for the tests.
    pub fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// A command with the program and these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);

        command.args(arguments);
        command
    }

    /// Runs it with arguments and `input` on its standard input.
    pub fn run(&self, arguments: &[&str], input: &str) -> anyhow::Result<Said> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {}", self.program.display()))?;
        let mut stdin = child.stdin.take().context("its standard input")?;
        let input = input.to_owned();
        let writer = std::thread::spawn(move || {
            // The program may close it without reading.
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output()?;

        let _ = writer.join();
        Ok(Said {
            code: output.status.code().context("it was killed")?,
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        })
    }

    /// Runs it with `--json`, expects one of these exit codes, and parses its output.
    pub fn json(&self, arguments: &[&str], input: &str, codes: &[i32]) -> anyhow::Result<Value> {
        let mut all = vec!["--json"];

        all.extend(arguments);
        let said = self.run(&all, input)?;

        if !codes.contains(&said.code) {
            bail!(
                "kvmsr {} exited with {}: {}",
                all.join(" "),
                said.code,
                said.stderr
            );
        }
        serde_json::from_str(&said.stdout).context("its output is not JSON")
    }
}
