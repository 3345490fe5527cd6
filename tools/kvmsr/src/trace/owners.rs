// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds the VM of a thread.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::path::PathBuf;

use super::counter::Thread;
use super::engine;
use super::engine::Folder;
use super::tracefs::read;

/// The process and VM of a thread.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Owner {
    /// The process; none if the thread ended before it was looked up.
    pub pid: Option<u32>,
    /// The process's name, or else the thread's.
    pub comm: String,
    /// The VM, by the name of its folder in debugfs; none if debugfs can't be read, or if the
    /// process has several VMs and the kernel does not show their threads.
    pub vm: Option<String>,
    /// The thread, if its process is unknown.
    pub tid: Option<u32>,
}

/// What is known about threads. They are looked up as soon as they are seen, because they may end
/// soon.
#[derive(Debug)]
pub struct Owners {
    proc: PathBuf,
    kvm: PathBuf,
    known: BTreeMap<u32, Owner>,
}

impl Owners {
    /// Uses these paths of procfs and of KVM's folder in debugfs.
    pub fn new(proc: &Path, kvm: &Path) -> Self {
        Owners {
            proc: proc.to_owned(),
            kvm: kvm.to_owned(),
            known: BTreeMap::new(),
        }
    }

    /// Whether a thread was looked up.
    pub fn knows(&self, tid: u32) -> bool {
        self.known.contains_key(&tid)
    }

    /// Looks up new threads.
    pub fn learn(&mut self, threads: &BTreeMap<u32, Thread>) {
        // Read when they are first needed.
        let mut all = None;

        for (&tid, thread) in threads {
            if let Entry::Vacant(entry) = self.known.entry(tid) {
                let all = all.get_or_insert_with(|| vms(&self.kvm, &self.proc));

                entry.insert(owner(&self.proc, all, tid, thread));
            }
        }
    }

    /// The owner of a thread.
    pub fn of(&self, tid: u32) -> Owner {
        self.known.get(&tid).cloned().unwrap_or_else(|| Owner {
            tid: Some(tid),
            ..Default::default()
        })
    }

    /// The process and name of a VM's creator, by the VM's folder.
    pub fn of_folder(&self, folder: &Folder) -> Owner {
        let vcpus = engine::vcpus(&self.kvm, &folder.name);
        let pid = process_of(&self.proc, folder, &vcpus);

        Owner {
            pid,
            comm: pid
                .and_then(|pid| comm(&self.proc, pid))
                .unwrap_or_default(),
            vm: Some(folder.name.clone()),
            tid: None,
        }
    }
}

/// A VM and its threads.
#[derive(Clone, Debug)]
struct Vm {
    name: String,
    process: Option<u32>,
    vcpus: Vec<u32>,
}

fn vms(kvm: &Path, proc: &Path) -> Vec<Vm> {
    engine::folders(kvm)
        .into_iter()
        .map(|folder| {
            let vcpus = engine::vcpus(kvm, &folder.name);

            Vm {
                process: process_of(proc, &folder, &vcpus),
                name: folder.name,
                vcpus,
            }
        })
        .collect()
}

fn owner(proc: &Path, vms: &[Vm], tid: u32, thread: &Thread) -> Owner {
    let Some(pid) = tgid(proc, tid).or(thread.tgid) else {
        return Owner {
            comm: thread.comm.clone(),
            tid: Some(tid),
            ..Default::default()
        };
    };
    let mut running = vms.iter().filter(|vm| vm.vcpus.contains(&tid));
    let mut of_process = vms.iter().filter(|vm| vm.process == Some(pid));
    let vm = match (running.next(), running.next()) {
        (Some(vm), None) => Some(vm),
        // A thread that runs vCPUs of several VMs.
        (Some(_), Some(_)) => None,
        (None, _) => match (of_process.next(), of_process.next()) {
            (Some(vm), None) => Some(vm),
            _ => None,
        },
    };

    Owner {
        pid: Some(pid),
        comm: comm(proc, pid).unwrap_or_else(|| thread.comm.clone()),
        vm: vm.map(|vm| vm.name.clone()),
        tid: None,
    }
}

/// The process of the thread that created a VM, or if that has ended, of one that runs it.
fn process_of(proc: &Path, folder: &Folder, vcpus: &[u32]) -> Option<u32> {
    tgid(proc, folder.maker).or_else(|| vcpus.iter().find_map(|&tid| tgid(proc, tid)))
}

fn tgid(proc: &Path, tid: u32) -> Option<u32> {
    let status = read(&proc.join(tid.to_string()).join("status")).ok()?;

    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:"))?
        .trim()
        .parse()
        .ok()
}

/// A process's name.
fn comm(proc: &Path, pid: u32) -> Option<String> {
    let comm = read(&proc.join(pid.to_string()).join("comm")).ok()?;

    Some(comm.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str, process: u32, vcpus: &[u32]) -> Vm {
        Vm {
            name: name.to_owned(),
            process: Some(process),
            vcpus: vcpus.to_vec(),
        }
    }

    #[test]
    fn a_thread_of_ours_is_found() {
        let proc = Path::new("/proc");
        let pid = std::process::id();
        let found = |vms: &[Vm]| {
            let owner = owner(proc, vms, pid, &Thread::default());

            assert_eq!(owner.pid, Some(pid));
            assert!(!owner.comm.is_empty());
            owner.vm
        };
        let one = vm("1-1", pid, &[]);
        let other = vm("1-2", pid, &[]);

        assert_eq!(found(&[]), None);
        assert_eq!(found(std::slice::from_ref(&one)).as_deref(), Some("1-1"));
        // Two VMs of one process, on a kernel that does not show their threads.
        assert_eq!(found(&[one.clone(), other]), None);
        let runs = vm("1-3", pid, &[pid]);
        assert_eq!(found(&[one, runs]).as_deref(), Some("1-3"));
    }

    #[test]
    fn a_thread_that_is_gone_is_known_by_its_number() {
        let thread = Thread {
            comm: "CPU 0/KVM".to_owned(),
            tgid: None,
        };
        let proc = Path::new("/nonexistent");
        let gone = owner(proc, &[], 77, &thread);

        assert_eq!(gone.pid, None);
        assert_eq!(gone.tid, Some(77));
        assert_eq!(gone.comm, "CPU 0/KVM");
        let hinted = Thread {
            tgid: Some(70),
            ..thread
        };
        assert_eq!(owner(proc, &[], 77, &hinted).pid, Some(70));
    }
}
