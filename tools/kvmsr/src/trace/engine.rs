// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM's folders for VMs in debugfs, and the files of the Rust engine (kvm-msr.ko) there.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use super::tracefs::read;

/// The engine's counters for a VM.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Guest reads that it handled.
    pub reads: u64,
    /// Guest writes that it handled.
    pub writes: u64,
    /// Accesses that the VM's filter denied.
    pub filtered: u64,
    /// Accesses that exited to user space.
    pub user_space: u64,
    /// Accesses that injected #GP.
    pub gp: u64,
    /// Reads by user space.
    pub host_reads: u64,
    /// Writes by user space.
    pub host_writes: u64,
}

impl Counters {
    /// Parses the file `msr_counters`; ignores unknown names.
    pub fn parse(text: &str) -> Self {
        let mut counters = Counters::default();

        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else {
                continue;
            };
            let (Some(counter), Ok(value)) = (counters.named(name), value.trim().parse()) else {
                continue;
            };

            *counter = value;
        }
        counters
    }

    fn named(&mut self, name: &str) -> Option<&mut u64> {
        Some(match name {
            "reads" => &mut self.reads,
            "writes" => &mut self.writes,
            "filtered" => &mut self.filtered,
            "user_space" => &mut self.user_space,
            "gp" => &mut self.gp,
            "host_reads" => &mut self.host_reads,
            "host_writes" => &mut self.host_writes,
            _ => return None,
        })
    }

    /// Applies an operation to each pair of counters.
    pub fn with(self, other: Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        Counters {
            reads: operation(self.reads, other.reads),
            writes: operation(self.writes, other.writes),
            filtered: operation(self.filtered, other.filtered),
            user_space: operation(self.user_space, other.user_space),
            gp: operation(self.gp, other.gp),
            host_reads: operation(self.host_reads, other.host_reads),
            host_writes: operation(self.host_writes, other.host_writes),
        }
    }

    /// Whether a counter is lower than before, i.e. the counters are another VM's.
    pub fn restarted_since(self, before: Self) -> bool {
        let lower = |now: u64, before: u64| u64::from(now < before);

        self.with(before, lower) != Counters::default()
    }
}

/// A VM that the engine serves.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// The VM's folder in debugfs, i.e. the thread that created it and its file descriptor.
    pub vm: String,
    /// Its process, if known.
    pub pid: Option<u32>,
    /// The process's name.
    pub comm: String,
    /// The engine's counters for the same time.
    pub counters: Counters,
    /// The VM's filter, as the engine prints it.
    pub filter: Vec<String>,
}

/// A VM's folder in debugfs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Folder {
    /// Its name: the thread that created the VM, and the VM's file descriptor.
    pub name: String,
    /// The thread that created the VM.
    pub maker: u32,
    /// Whether the engine serves it.
    pub engine: bool,
}

/// All VMs; none if debugfs can't be read.
pub fn folders(kvm: &Path) -> Vec<Folder> {
    let mut folders = Vec::new();

    for entry in fs::read_dir(kvm).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let Some(maker) = maker(&name) else {
            continue;
        };

        folders.push(Folder {
            name,
            maker,
            engine: entry.path().join("msr_counters").exists(),
        });
    }
    folders.sort_by(|one, other| one.name.cmp(&other.name));
    folders
}

/// The thread in a folder's name, e.g. `1234-12`; other folders are not VMs.
fn maker(name: &str) -> Option<u32> {
    let (tid, fd) = name.split_once('-')?;

    fd.parse::<u32>().ok()?;
    tid.parse().ok()
}

/// The threads that run a VM's vCPUs; kernels before 6.2 do not show them.
pub fn vcpus(kvm: &Path, folder: &str) -> Vec<u32> {
    fs::read_dir(kvm.join(folder))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"vcpu"))
        .filter_map(|entry| read(&entry.path().join("pid")).ok()?.trim().parse().ok())
        .filter(|&tid| tid != 0)
        .collect()
}

/// The counters of a VM, and its filter; none if the VM no longer exists.
pub fn counters(kvm: &Path, folder: &str) -> Option<(Counters, Vec<String>)> {
    let file = |name: &str| read(&kvm.join(folder).join(name)).ok();
    let filter = file("msr_filter").unwrap_or_default();

    Some((
        Counters::parse(&file("msr_counters")?),
        filter.lines().map(str::to_owned).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counters_are_parsed() {
        let text = "reads 10000\nwrites 5000\nfiltered 1\nuser_space 2\ngp 3\nhost_reads 4\n\
                    host_writes 5\nnew 6\nnonsense\n";

        assert_eq!(
            Counters::parse(text),
            Counters {
                reads: 10_000,
                writes: 5_000,
                filtered: 1,
                user_space: 2,
                gp: 3,
                host_reads: 4,
                host_writes: 5,
            }
        );
    }

    #[test]
    fn only_folders_of_vms_are_taken() {
        assert_eq!(maker("1234-12"), Some(1234));
        for name in ["halt_exits", "1234", "-1", "1-", "a-1", "1-2-3"] {
            assert_eq!(maker(name), None, "{name}");
        }
    }

    #[test]
    fn counters_of_another_vm_are_noticed() {
        let before = Counters::parse("reads 10\nwrites 10\n");

        assert!(Counters::parse("reads 20\nwrites 9\n").restarted_since(before));
        assert!(!Counters::parse("reads 20\nwrites 10\n").restarted_since(before));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = (Counters::parse(&text), maker(&text));
        }
    }
}
