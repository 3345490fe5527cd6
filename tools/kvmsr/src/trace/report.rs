// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What `kvmsr top` and `kvmsr log` print.

use serde::Deserialize;
use serde::Serialize;

use super::counter::Count;
use super::counter::Method;
use super::engine::Served;
use crate::number::Hex;

/// Which VM touched which MSR how often.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Top {
    /// [`crate::snapshot::SCHEMA`]
    pub schema: u32,
    /// How it was counted.
    pub counted_by: Method,
    /// For how long, in seconds.
    pub seconds: f64,
    /// Accesses that could not be counted.
    pub lost: u64,
    /// All of these accesses.
    pub total: Count,
    /// By VM and MSR, most accesses first.
    pub msrs: Vec<Row>,
    /// VMs that the engine (kvm-msr.ko) serves, with its own counters.
    pub engine: Vec<Served>,
    /// The command during whose life was counted.
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
    /// The thread, if the process is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// The name of the process, or else of the thread.
    pub comm: String,
    /// The VM's folder in debugfs; null if it is not known which of a process's VMs it is.
    pub vm: Option<String>,
    /// The MSR.
    pub index: Hex<u32>,
    /// Its name.
    pub name: Option<String>,
    /// Reads, also those that ended in #GP.
    pub reads: u64,
    /// Writes, also those that ended in #GP.
    pub writes: u64,
    /// How many of both ended in #GP.
    pub gp: u64,
    /// Reads and writes in a second.
    pub rate: f64,
}

impl Row {
    /// How often.
    pub fn count(&self) -> Count {
        Count {
            reads: self.reads,
            writes: self.writes,
            gp: self.gp,
        }
    }

    /// The VM for people: its process, or what is known of it.
    pub fn guest(&self) -> String {
        match (self.pid, self.tid) {
            (Some(pid), _) => format!("{} ({pid})", self.comm),
            (None, Some(tid)) => format!("{} (thread {tid}, gone)", self.comm),
            (None, None) => self.comm.clone(),
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program.
    pub program: String,
    /// Its exit code; null if a signal ended it, or it goes on.
    pub exit_code: Option<i32>,
}

/// A line of the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`crate::snapshot::SCHEMA`]
    pub schema: u32,
    /// When, in seconds of the monotonic clock; null in an entry that says that events were lost.
    pub time: Option<f64>,
    /// The process; null if its thread ended before it could be looked up.
    pub pid: Option<u32>,
    /// The thread.
    pub tid: Option<u32>,
    /// The name of the process, or else of the thread.
    pub comm: Option<String>,
    /// The CPU.
    pub cpu: u32,
    /// What was done.
    pub access: Access,
    /// The MSR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Hex<u32>>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What was read or written; none if a read ended in #GP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Hex<u64>>,
    /// Whether it ended in #GP.
    #[serde(default)]
    pub gp: bool,
    /// How many events were lost here, if the kernel knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// What an entry of the log is of.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// RDMSR
    Read,
    /// WRMSR
    Write,
    /// Some that the kernel had no room for.
    Lost,
}
