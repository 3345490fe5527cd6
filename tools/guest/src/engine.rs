// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Which engine serves a VM's MSRs: C, or the module `kvm_msr`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use kvm_ioctls::Kvm;
use kvm_ioctls::VmFd;

const MODULE: &str = "/sys/module/kvm_msr";
const ENABLE: &str = "/sys/module/kvm_msr/parameters/enable";
const DEBUGFS: &str = "/sys/kernel/debug/kvm";

/// Held while the parameter `enable` is written and the VM is created.
static ENABLE_LOCK: Mutex<()> = Mutex::new(());

/// What serves the MSRs of a VM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Engine {
    /// KVM's `arch/x86/kvm/msrs.c`.
    C,
    /// The module `kvm_msr`.
    Rust,
    /// C or the module, as its parameter `enable` says. Any kernel will do.
    Any,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Engine::C => "C",
            Engine::Rust => "engine",
            Engine::Any => "any",
        })
    }
}

/// Whether the module `kvm_msr` is loaded.
pub fn loaded() -> bool {
    Path::new(MODULE).exists()
}

/// The module's parameter `enable`; false if the module is not loaded.
pub fn enabled() -> bool {
    fs::read_to_string(ENABLE).is_ok_and(|value| value.trim() == "Y")
}

/// Sets the module's parameter `enable`, which affects VMs that are created later.
pub fn set_enabled(enable: bool) -> io::Result<()> {
    fs::write(ENABLE, if enable { "Y" } else { "N" })
}

impl Engine {
    /// Creates a VM that this engine serves.
    ///
    /// # Errors
    ///
    /// Fails if the module is needed but not loaded, if `KVM_CREATE_VM` fails, or if debugfs shows
    /// that another engine serves the VM.
    pub fn create_vm(self, kvm: &Kvm) -> Result<(VmFd, VmFolder)> {
        let guard = ENABLE_LOCK.lock().unwrap_or_else(PoisonError::into_inner);

        match self {
            Engine::Rust if !loaded() => bail!("the module kvm_msr is not loaded: no {MODULE}"),
            Engine::Rust => set_enabled(true).with_context(|| format!("write Y to {ENABLE}"))?,
            Engine::C if loaded() => {
                set_enabled(false).with_context(|| format!("write N to {ENABLE}"))?
            }
            _ => {}
        }
        let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
        drop(guard);

        let folder = VmFolder::of(&vm);
        match (self, folder.engine()) {
            (Engine::Rust, None) => bail!(
                "the VM is not served by kvm_msr: no {} (is debugfs mounted?)",
                folder.path("msr_engine").display()
            ),
            (Engine::C, Some(engine)) => {
                bail!("the VM is served by \"{engine}\" although enable was N")
            }
            _ => Ok((vm, folder)),
        }
    }
}

/// A VM's folder in debugfs, with the files that the engine adds to it.
#[derive(Clone, Debug)]
pub struct VmFolder(PathBuf);

impl VmFolder {
    /// The folder of a VM that the calling thread has just created.
    pub fn of(vm: &impl AsRawFd) -> Self {
        // The kernel names the folder by its pid, which is the thread's id in user space.
        let tid = rustix::thread::gettid().as_raw_pid();

        VmFolder(Path::new(DEBUGFS).join(format!("{tid}-{}", vm.as_raw_fd())))
    }

    /// The path of one of the folder's files.
    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Whether the folder exists, i.e. debugfs is mounted.
    pub fn exists(&self) -> bool {
        self.0.exists()
    }

    /// The line in `msr_engine`; none if C serves the VM.
    pub fn engine(&self) -> Option<String> {
        let line = fs::read_to_string(self.path("msr_engine")).ok()?;

        Some(line.trim().to_owned())
    }

    /// The lines of `msr_filter`, i.e. the compiled filter.
    pub fn filter(&self) -> io::Result<Vec<String>> {
        let text = fs::read_to_string(self.path("msr_filter"))?;

        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The counters in `msr_counters`, by name.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let path = self.path("msr_counters");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;

        text.lines()
            .map(|line| {
                let (name, value) = line
                    .split_once(char::is_whitespace)
                    .with_context(|| format!("counter line \"{line}\""))?;
                let value = value
                    .trim()
                    .parse()
                    .with_context(|| format!("counter line \"{line}\""))?;
                Ok((name.to_owned(), value))
            })
            .collect()
    }
}
