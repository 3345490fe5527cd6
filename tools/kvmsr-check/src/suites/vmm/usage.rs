// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What QEMU, this process and the kernel have in use, to find leaks.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

/// Open files and memory in use.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// This process's and QEMU's open files.
    files: [usize; 2],
    /// See [`references`].
    references: u64,
    /// Open files of the whole machine.
    all_files: u64,
    /// What the kernel has allocated with kmalloc(), vmalloc() and for each CPU, and can't reclaim,
    /// in KiB. It is steadier than the free memory, which depends on lists of pages for each CPU.
    memory: u64,
}

impl Usage {
    /// The current usage; `qemu` is QEMU's process.
    pub fn now(qemu: u32) -> Result<Self> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let of = |name: &str| -> Result<u64> {
            memory
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .with_context(|| format!("/proc/meminfo has no {name}"))
        };
        let files = fs::read_to_string("/proc/sys/fs/file-nr")?;

        Ok(Usage {
            files: [open_files(std::process::id())?, open_files(qemu)?],
            references: references()?,
            all_files: files
                .split_whitespace()
                .next()
                .and_then(|count| count.parse().ok())
                .context("/proc/sys/fs/file-nr")?,
            // Stacks, which are allocated by vmalloc(), are those of programs and kernel threads.
            memory: (of("SUnreclaim")? + of("VmallocUsed")? + of("Percpu")?)
                .saturating_sub(of("KernelStack")?),
        })
    }

    /// Fails if a thousand rounds have leaked something in each.
    pub fn ensure_no_leak_since(&self, before: &Usage) -> Result<()> {
        // The kernel counts open files in batches, and closes some of them later.
        const FILES: u64 = 200;
        // In KiB. A thousand objects of 64 bytes would be 63 KiB.
        const MEMORY: u64 = 48;

        ensure!(
            self.files == before.files && self.references == before.references,
            "files or references were leaked: from {before} to {self}"
        );
        ensure!(
            self.all_files <= before.all_files + FILES,
            "files were leaked: from {before} to {self}"
        );
        // The debug kernel's own records grow, but kmemleak finds leaks there.
        if Path::new("/sys/kernel/debug/kmemleak").exists() {
            return Ok(());
        }
        ensure!(
            self.memory <= before.memory + MEMORY,
            "memory was leaked: from {before} to {self}"
        );
        Ok(())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}+{} files of {}, {} references, {} KiB",
            self.files[0], self.files[1], self.all_files, self.references, self.memory
        )
    }
}

fn open_files(process: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

/// The references to the module: one for each of its VMs, and one for each open file of the device.
pub fn references() -> Result<u64> {
    let text = fs::read_to_string("/sys/module/kvm_msr/refcnt").context("the module's refcnt")?;

    text.trim().parse().context("the module's refcnt")
}
