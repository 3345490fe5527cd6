// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What counts: the kernel's tracing, or the engine.

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use kvmsr::device::DEVICE;
use kvmsr::trace::EngineSession;
use kvmsr::trace::Method;
use kvmsr::trace::Owner;
use kvmsr::trace::Session;
use kvmsr::trace::Settings;
use kvmsr::trace::Top;

use super::Options;
use crate::verbs::vm;

/// How often the engine's counts are read. The last ones are shown when the VM has ended.
const TICK: Duration = Duration::from_millis(500);

/// Counts accesses.
pub enum Counting {
    /// With the tracepoint.
    Traced(Session),
    /// With kvm-msr.ko.
    Engine {
        /// What counts.
        session: EngineSession,
        /// The counts, and when they were read.
        last: Option<(Instant, Top)>,
    },
}

impl Counting {
    /// Starts counting: with the engine if that is asked for, or if it serves the chosen process's
    /// VM and nothing else is asked for.
    pub fn new(options: &Options, settings: &Settings) -> anyhow::Result<Self> {
        let pid = settings.selection.pid;

        match (settings.method, pid) {
            (Some(Method::Engine), None) => {
                bail!("--by engine is for one VM: choose its process with --pid")
            }
            (Some(Method::Engine), Some(pid)) => of_engine(options, settings, pid),
            (None, Some(pid)) if settings.tracefs.is_none() && Path::new(DEVICE).exists() => {
                match of_engine(options, settings, pid) {
                    Ok(counting) => Ok(counting),
                    // C serves the VM, or another program keeps statistics.
                    Err(_) => Ok(Counting::Traced(Session::new(settings)?)),
                }
            }
            _ => Ok(Counting::Traced(Session::new(settings)?)),
        }
    }

    /// The way it counts.
    pub fn method(&self) -> Method {
        match self {
            Counting::Traced(session) => session.method(),
            Counting::Engine { .. } => Method::Engine,
        }
    }

    /// Reads the counts up to now. Returns whether there may be more.
    pub fn poll(&mut self) -> anyhow::Result<bool> {
        match self {
            Counting::Traced(session) => Ok(session.poll()?),
            Counting::Engine { session, last } => {
                if last.as_ref().is_none_or(|(read, _)| read.elapsed() >= TICK) {
                    read(session, last)?;
                }
                Ok(false)
            }
        }
    }

    /// Stops counting, and reads all counts up to now.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        match self {
            Counting::Traced(session) => Ok(session.finish()?),
            Counting::Engine { session, last } => read(session, last),
        }
    }

    /// Restarts counting from 0.
    pub fn reset(&mut self) -> anyhow::Result<()> {
        match self {
            Counting::Traced(session) => Ok(session.reset()?),
            Counting::Engine { session, last } => {
                *last = None;
                Ok(session.reset()?)
            }
        }
    }

    /// The counts.
    pub fn report(&mut self) -> anyhow::Result<Top> {
        match self {
            Counting::Traced(session) => Ok(session.report()?),
            Counting::Engine { session, last } => {
                read(session, last)?;
                match last {
                    Some((_, top)) => Ok(top.clone()),
                    None => bail!("the VM has ended"),
                }
            }
        }
    }
}

/// Reads the counts, or keeps the last ones if the VM has ended.
fn read(session: &EngineSession, last: &mut Option<(Instant, Top)>) -> anyhow::Result<()> {
    match session.report() {
        Ok(top) => *last = Some((Instant::now(), top)),
        Err(kvmsr::Error::Device(error)) if error.is_vm_gone() && last.is_some() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn of_engine(options: &Options, settings: &Settings, pid: u32) -> anyhow::Result<Counting> {
    let vm = vm::observe(pid, options.fd)?;
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let owner = Owner {
        pid: Some(pid),
        comm: comm.trim_end().to_owned(),
        ..Owner::default()
    };
    let session = EngineSession::new(vm, owner, settings.selection.clone(), settings.vendor)?;

    Ok(Counting::Engine {
        session,
        last: None,
    })
}
