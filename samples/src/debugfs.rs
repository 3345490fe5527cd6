// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The files that `kvm-msr.ko` adds to a VM's folder in debugfs.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use kvm_ioctls::VmFd;

/// A file of a VM that this process's main thread has created.
fn path(vm: &VmFd, file: &str) -> PathBuf {
    // KVM names the folder by the id of the thread that created the VM, and the file descriptor.
    PathBuf::from(format!(
        "/sys/kernel/debug/kvm/{}-{}/{file}",
        std::process::id(),
        vm.as_raw_fd()
    ))
}

/// The engine that serves the VM; none if C serves it, or debugfs is not mounted.
pub fn engine(vm: &VmFd) -> Option<String> {
    let line = fs::read_to_string(path(vm, "msr_engine")).ok()?;

    Some(line.trim().to_owned())
}

/// The engine's counters for the VM, by name. There are none if C serves it.
pub fn counters(vm: &VmFd) -> Result<BTreeMap<String, u64>> {
    let path = path(vm, "msr_counters");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;

    text.lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').context("a counter has a value")?;

            Ok((name.to_owned(), value.trim().parse()?))
        })
        .collect()
}
