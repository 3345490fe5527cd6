// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds and takes a VM's file descriptor.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use rustix::process::pidfd_getfd;
use rustix::process::pidfd_open;

use super::Error;
use super::Result;

/// What `/proc/PID/fd` shows for a VM's descriptor.
const TARGET: &str = "anon_inode:kvm-vm";

/// A VM's file descriptor.
#[derive(Debug)]
pub struct VmFd(OwnedFd);

impl AsFd for VmFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl VmFd {
    /// Takes the descriptor of a running VMM's VM, which needs the permission to trace the process.
    /// If the process has several VMs, `number` has to name a descriptor of it.
    ///
    /// # Errors
    ///
    /// [`Error::Vm`] if there is no such process, VM or permission, or if there are several VMs.
    pub fn of_process(pid: u32, number: Option<i32>) -> Result<Self> {
        let number = choose(pid, &numbers(Path::new("/proc"), pid)?, number)?;

        take(pid, number, || {
            Error::Vm(format!("process {pid} has no file descriptor {number}"))
        })
    }

    /// A descriptor that this process has inherited.
    ///
    /// # Errors
    ///
    /// [`Error::Vm`] if there is none with this number.
    pub fn inherited(number: i32) -> Result<Self> {
        // Not from_raw_fd(), which is safe only for a descriptor that nothing else owns.
        take(std::process::id(), number, || {
            Error::Vm(format!("this process has no file descriptor {number}"))
        })
    }
}

/// The numbers of the VM descriptors of a process, sorted.
fn numbers(proc: &Path, pid: u32) -> Result<Vec<i32>> {
    let directory = proc.join(pid.to_string()).join("fd");
    let mut numbers = Vec::new();

    for entry in fs::read_dir(directory).map_err(|error| not_taken(pid, &error))? {
        let entry = entry.map_err(|error| not_taken(pid, &error))?;
        let is_vm = fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(TARGET));

        if let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            && is_vm
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number of the descriptor to take.
fn choose(pid: u32, numbers: &[i32], wanted: Option<i32>) -> Result<i32> {
    let listed = || {
        let listed: Vec<String> = numbers.iter().map(i32::to_string).collect();

        listed.join(", ")
    };

    match (wanted, numbers) {
        (_, []) => Err(Error::Vm(format!(
            "process {pid} has no VM: is it the VMM? Some start another process for each VM"
        ))),
        (Some(wanted), numbers) if numbers.contains(&wanted) => Ok(wanted),
        (Some(wanted), _) => Err(Error::Vm(format!(
            "descriptor {wanted} of process {pid} is not a VM: its VMs are {}",
            listed()
        ))),
        (None, &[number]) => Ok(number),
        (None, _) => Err(Error::Vm(format!(
            "process {pid} has {} VMs: choose one with --fd, of the descriptors {}",
            numbers.len(),
            listed()
        ))),
    }
}

fn take(pid: u32, number: i32, none: impl FnOnce() -> Error) -> Result<VmFd> {
    let process = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| Error::Vm(format!("there is no process {pid}")))?;
    let fd = pidfd_open(process, PidfdFlags::empty())
        .and_then(|process| pidfd_getfd(process, number, PidfdGetfdFlags::empty()));

    fd.map(VmFd).map_err(|errno| match errno {
        rustix::io::Errno::BADF => none(),
        _ => not_taken(pid, &errno.into()),
    })
}

fn not_taken(pid: u32, error: &io::Error) -> Error {
    Error::Vm(match error.kind() {
        io::ErrorKind::NotFound => {
            format!("there is no process {pid}: 'pgrep -l qemu' finds QEMU's, for example")
        }
        io::ErrorKind::PermissionDenied => {
            format!("you may not take a file of process {pid}: run kvmsr as root")
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            format!("process {pid} has ended")
        }
        _ => format!("can't take a file of process {pid}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use super::*;

    fn error<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn only_vms_are_found() {
        let proc = std::env::temp_dir().join(format!("kvmsr-fd-{}", std::process::id()));
        let directory = proc.join("7/fd");

        fs::create_dir_all(&directory).unwrap();
        for (number, target) in [
            ("12", TARGET),
            ("3", "/dev/kvm"),
            ("4", TARGET),
            ("5", "anon_inode:kvm-vcpu:0"),
        ] {
            symlink(target, directory.join(number)).unwrap();
        }
        let found = numbers(&proc, 7);

        fs::remove_dir_all(&proc).unwrap();
        assert_eq!(found.unwrap(), [4, 12]);
    }

    #[test]
    fn one_of_several_has_to_be_chosen() {
        assert_eq!(choose(7, &[4], None).unwrap(), 4);
        assert_eq!(choose(7, &[4, 12], Some(12)).unwrap(), 12);
        assert!(error(choose(7, &[4, 12], None)).contains("2 VMs: choose one with --fd"));
        assert!(error(choose(7, &[4, 12], Some(5))).contains("its VMs are 4, 12"));
        assert!(error(choose(7, &[], Some(5))).contains("process 7 has no VM"));
    }

    #[test]
    fn a_descriptor_is_taken() {
        let file = fs::File::open("/dev/null").unwrap();
        let number = file.as_raw_fd();
        let taken = VmFd::inherited(number).unwrap();

        assert_ne!(taken.as_fd().as_raw_fd(), number);
        let closed = 1 << 19;
        assert!(error(VmFd::inherited(closed)).contains("no file descriptor"));
        assert!(error(VmFd::of_process(std::process::id(), None)).contains("has no VM"));
        assert!(error(VmFd::of_process(u32::MAX, None)).contains("no process"));
    }
}
