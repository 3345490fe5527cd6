// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The output of `kvmsr top` and `kvmsr log`.

use serde::Deserialize;
use serde::Serialize;

use super::counter::Count;
use super::counter::Method;
use super::engine::Served;
use crate::number::Hex;

/// Which VM accessed which MSR, and how often.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Top {
    /// [`crate::snapshot::SCHEMA`]
    pub schema: u32,
    /// The way to count.
    pub counted_by: Method,
    /// The time, in seconds.
    pub seconds: f64,
    /// Accesses that could not be counted.
    pub lost: u64,
    /// The sum of all accesses.
    pub total: Count,
    /// By VM and MSR, sorted by the number of accesses.
    pub msrs: Vec<Row>,
    /// VMs that the engine (kvm-msr.ko) serves, with its own counters.
    pub engine: Vec<Served>,
    /// The command that ran meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// What is never counted.
    pub note: String,
}

/// A VM's accesses to an MSR.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The process; null if its thread ended before it could be looked up.
    pub pid: Option<u32>,
    /// The thread, if the process is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// The name of the process, or of the thread.
    pub comm: String,
    /// The VM's folder in debugfs; null if it is unknown which of the process's VMs it is.
    pub vm: Option<String>,
    /// The MSR.
    pub index: Hex<u32>,
    /// Its name.
    pub name: Option<String>,
    /// Reads, including those with #GP.
    pub reads: u64,
    /// Writes, including those with #GP.
    pub writes: u64,
    /// Accesses with #GP.
    pub gp: u64,
    /// Reads and writes per second.
    pub rate: f64,
}

impl Row {
    /// The numbers.
    pub fn count(&self) -> Count {
        Count {
            reads: self.reads,
            writes: self.writes,
            gp: self.gp,
        }
    }

    /// The VM's description: its process, or what is known.
    pub fn guest(&self) -> String {
        match (self.pid, self.tid) {
            (Some(pid), _) => format!("{} ({pid})", self.comm),
            (None, Some(tid)) => format!("{} (thread {tid}, ended)", self.comm),
            (None, None) => self.comm.clone(),
        }
    }
}

/// The end of a command.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program.
    pub program: String,
    /// Its exit code; null if a signal ended it, or it still runs.
    pub exit_code: Option<i32>,
}

/// A line of the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`crate::snapshot::SCHEMA`]
    pub schema: u32,
    /// The time, in seconds of the monotonic clock; null in an entry about lost events.
    pub time: Option<f64>,
    /// The process; null if its thread ended before it could be looked up.
    pub pid: Option<u32>,
    /// The thread.
    pub tid: Option<u32>,
    /// The name of the process, or of the thread.
    pub comm: Option<String>,
    /// The CPU.
    pub cpu: u32,
    /// The kind of access.
    pub access: Access,
    /// The MSR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Hex<u32>>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The value; none if a read injected #GP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Hex<u64>>,
    /// Whether it injected #GP.
    #[serde(default)]
    pub gp: bool,
    /// The number of lost events, if the kernel knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// The kind of a log entry.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// RDMSR
    Read,
    /// WRMSR
    Write,
    /// Events for which the kernel had no room.
    Lost,
}
