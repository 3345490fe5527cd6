// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Common options and functions of verbs that trace.

use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use kvmsr::catalogue;
use kvmsr::snapshot::Host;
use kvmsr::trace;
use kvmsr::trace::Selection;
use kvmsr::trace::Settings;

// What to trace.
#[derive(Debug, clap::Args)]
// The name would clash with the verb's own options.
#[group(skip)]
pub struct Options {
    /// Only the VMs of this process
    #[arg(long, short, value_name = "PID")]
    pid: Option<u32>,
    /// Only the VMs of processes whose name contains this
    #[arg(long, short, value_name = "NAME")]
    guest: Option<String>,
    /// Only these MSRs: an index, a name, or first-last
    #[arg(long, value_name = "MSR")]
    msr: Vec<String>,
    /// Buffer size in KiB per CPU
    #[arg(long, value_name = "KIB", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    buffer: u32,
    /// Where tracefs is mounted
    #[arg(long, value_name = "DIR", hide = true)]
    tracefs: Option<PathBuf>,
}

impl Options {
    /// The settings for the library.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        if let Some(pid) = self.pid
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            bail!("there is no process {pid}: 'pgrep -l qemu' finds QEMU's, for example");
        }
        let mut indices = None;

        for text in &self.msr {
            indices
                .get_or_insert_with(std::collections::BTreeSet::new)
                .extend(catalogue::parse_indices(text)?);
        }
        Ok(Settings {
            tracefs: self.tracefs.clone(),
            method: None,
            buffer: self.buffer,
            selection: Selection {
                pid: self.pid,
                guest: self.guest.clone(),
                indices,
            },
            vendor: Host::this().vendor,
        })
    }
}

/// A number of seconds.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("'{text}' is not a number of seconds, e.g. 2 or 0.5"))?;

    if !(0.01..=1e7).contains(&seconds) {
        return Err("use a value between 0.01 and 10000000 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A command that runs while the program traces.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: Child,
}

impl Running {
    /// Starts the command, if there is one, with its output to `output`.
    pub fn start(command: &[String], output: impl Fn() -> Stdio) -> anyhow::Result<Option<Self>> {
        let Some((program, arguments)) = command.split_first() else {
            return Ok(None);
        };
        let child = Command::new(program)
            .args(arguments)
            .stdout(output())
            .spawn()
            .with_context(|| format!("can't run '{program}'"))?;

        Ok(Some(Running {
            program: program.clone(),
            child,
        }))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self
            .child
            .try_wait()
            .context("wait for the command")?
            .is_some())
    }

    /// How it ended.
    pub fn end(&mut self) -> trace::Command {
        trace::Command {
            program: self.program.clone(),
            exit_code: self
                .child
                .try_wait()
                .ok()
                .flatten()
                .and_then(|status| status.code()),
        }
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}
