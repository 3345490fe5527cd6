// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A VM to measure on.

use std::fmt;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

use kvm_ioctls::Kvm;
use serde::Deserialize;
use serde::Serialize;

use super::switch::Switch;
use crate::cpuid::Cpuid;
use crate::error::Error;
use crate::error::Result;
use crate::scratch::Scratch;
use crate::scratch::Setup;

/// What serves the MSRs of a VM.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// KVM itself.
    C,
    /// kvm-msr.ko.
    Engine,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Server::C => "C",
            Server::Engine => "engine",
        })
    }
}

/// A VM, and its MSRs that can be read.
#[derive(Debug)]
pub struct Subject {
    pub scratch: Scratch,
    /// The MSRs of `KVM_GET_MSR_INDEX_LIST` that can be read.
    pub listed: Vec<u32>,
    server: Server,
}

impl Subject {
    /// A VM that C or the engine serves, as new VMs are now.
    pub fn new(kvm: &Kvm) -> Result<Self> {
        let setup = Setup {
            cpuid: Cpuid::supported(kvm)?,
            ..Default::default()
        };
        let scratch = Scratch::new(kvm, &setup)?;
        let all = kvm
            .get_msr_index_list()
            .map_err(Error::kvm("KVM_GET_MSR_INDEX_LIST"))?;
        let mut listed = Vec::new();

        for &index in all.as_slice() {
            if scratch.get(index)?.is_some() {
                listed.push(index);
            }
        }
        Ok(Subject {
            server: server_of(&scratch),
            scratch,
            listed,
        })
    }

    /// A VM that C serves, and a VM that the engine serves.
    pub fn both(kvm: &Kvm) -> Result<Vec<Self>> {
        let made = [false, true]
            .map(|engine| {
                let _switch = Switch::to(engine)?;

                Self::new(kvm)
            })
            .into_iter()
            .collect::<Result<Vec<_>>>()?;

        if made
            .iter()
            .map(Self::server)
            .ne([Server::C, Server::Engine])
        {
            return Err(Error::Missing(
                "kvm-msr.ko serves both VMs or none, although its parameter was set (is debugfs \
                 mounted? does another program set the parameter?)"
                    .to_owned(),
            ));
        }
        Ok(made)
    }

    pub fn server(&self) -> Server {
        self.server
    }
}

/// The engine adds a file to the VM's folder in debugfs, whose name starts with the id of the
/// thread that created the VM. If debugfs can't be read, the parameter is used instead.
fn server_of(scratch: &Scratch) -> Server {
    let kvm = Path::new("/sys/kernel/debug/kvm");
    let thread = fs::read_link("/proc/thread-self")
        .ok()
        .and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
    let folder = thread
        .map(|thread| kvm.join(format!("{thread}-{}", scratch.vm().as_raw_fd())))
        .filter(|folder| folder.exists());
    let engine = match folder {
        Some(folder) => folder.join("msr_engine").exists(),
        None => crate::snapshot::Host::this().engine,
    };

    if engine { Server::Engine } else { Server::C }
}
