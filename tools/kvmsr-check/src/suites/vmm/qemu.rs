// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Runs QEMU.

use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use serde_json::Value;

use crate::suites::live::Program;

/// Debian's QEMU.
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// QEMU's TCG, in which this runs, reports a size of the XSAVE area that does not fit its parts.
/// Linux does not boot on such a CPU.
const OPTIONS: &[&str] = &[
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-machine",
    "pc,accel=kvm",
    "-cpu",
    "host,xsave=off",
    "-m",
    "128",
];
/// How long to wait for QEMU, also while Linux boots on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);

/// A run of QEMU, which is killed at the end of the test.
pub struct Qemu {
    program: Program,
    stdin: ChildStdin,
    stdout: Receiver<u8>,
}

impl Qemu {
    /// Starts it with these options in addition.
    pub fn start(options: &[&str]) -> Result<Self> {
        let mut program = Program(
            Command::new(QEMU)
                .args(OPTIONS)
                .args(options)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("run {QEMU}"))?,
        );
        let stdin = program.0.stdin.take().context("its standard input")?;
        let stdout = program.0.stdout.take().context("its standard output")?;
        let (bytes, received) = mpsc::channel();

        thread::spawn(move || {
            for byte in BufReader::new(stdout).bytes().map_while(Result::ok) {
                if bytes.send(byte).is_err() {
                    break;
                }
            }
        });
        Ok(Qemu {
            program,
            stdin,
            stdout: received,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.program.0.id()
    }

    /// Ends it by SIGKILL. It remains as a zombie until it is dropped.
    pub fn kill(&mut self) -> Result<()> {
        self.program.0.kill().context("kill QEMU")
    }

    /// The next byte of its standard output.
    pub fn byte(&mut self, patience: Duration) -> Result<u8> {
        self.stdout
            .recv_timeout(patience)
            .with_context(|| format!("QEMU has ended, or has printed nothing for {patience:?}"))
    }

    /// The next message of QMP, which has to be on its standard input and output.
    fn message(&mut self) -> Result<Value> {
        let mut line = Vec::new();

        loop {
            match self.byte(PATIENCE)? {
                b'\n' => return serde_json::from_slice(&line).context("a message of QMP"),
                byte => line.push(byte),
            }
        }
    }

    /// Sends a command of QMP, and waits until it is done.
    pub fn execute(&mut self, command: &str) -> Result<()> {
        writeln!(self.stdin, "{{ \"execute\": \"{command}\" }}")?;
        loop {
            let message = self.message()?;

            ensure!(message.get("error").is_none(), "{command}: {message}");
            if message.get("return").is_some() {
                return Ok(());
            }
        }
    }

    /// Waits for an event of QMP.
    pub fn event(&mut self, name: &str) -> Result<()> {
        while self.message()?["event"] != name {}
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub fn end(mut self) -> Result<()> {
        let status = self.program.0.wait()?;

        if !status.success() {
            bail!("QEMU ended with {status}");
        }
        Ok(())
    }
}
