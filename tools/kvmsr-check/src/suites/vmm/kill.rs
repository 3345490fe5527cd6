// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Kills QEMU while a file is attached to its VM: the file must not keep the VM alive.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::thread::ScopedJoinHandle;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use kvmsr::device::Attached;
use kvmsr::device::Device;
use kvmsr::device::Error;
use kvmsr::device::Id;
use kvmsr::device::Rights;
use kvmsr::device::VmFd;
use kvmsr::policy::Policy;

use super::attach;
use super::rom;
use super::usage::references;

const DEBUGFS: &str = "/sys/kernel/debug/kvm";
/// How soon a VM has to end. In the emulator, unmapping QEMU's memory takes a while.
const SOON: Duration = Duration::from_secs(5);
/// How long policies are set before QEMU is killed.
const BUSY: Duration = Duration::from_millis(500);

/// The VM's folder, whose name starts with the thread that created it: QEMU's main thread.
fn folder(pid: u32) -> Result<PathBuf> {
    let start = format!("{pid}-");

    fs::read_dir(DEBUGFS)?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&start))
        .map(|entry| entry.path())
        .with_context(|| format!("{DEBUGFS} has no folder of process {pid}"))
}

/// Waits until the VM has ended. Returns the milliseconds that it took.
fn ended(folder: &Path, references_after: u64) -> Result<u128> {
    let start = Instant::now();

    while folder.exists() || references()? != references_after {
        ensure!(
            start.elapsed() < SOON,
            "the VM lives on: its folder exists: {}; the module has {} references, not \
             {references_after}",
            folder.exists(),
            references()?
        );
        thread::sleep(Duration::from_millis(1));
    }
    Ok(start.elapsed().as_millis())
}

/// Sets and clears a policy until that fails, or until `stop`. Returns the error, and how often it
/// succeeded.
fn set_policies(
    vm: &Attached,
    first: &mpsc::Sender<()>,
    stop: &AtomicBool,
) -> Result<(Option<Error>, usize)> {
    let rules = Policy::parse(&format!("ignore when unsupported {:#x}", rom::UNKNOWN))?.rules();
    let mut count = 0;

    while !stop.load(Ordering::Relaxed) {
        let rules = if count % 2 == 0 { &rules[..] } else { &[] };

        if let Err(error) = vm.set_policy(rules, false) {
            return Ok((Some(error), count));
        }
        count += 1;
        // The receiver waits for the first only.
        let _ = first.send(());
    }
    Ok((None, count))
}

/// `busy`: a thread sets policies meanwhile.
pub fn run(busy: bool) -> Result<String> {
    let idle = references()?;
    let mut qemu = attach::start()?;
    let folder = folder(qemu.pid())?;
    let fd = VmFd::of_process(qemu.pid(), None)?;
    let rights = Rights::OBSERVE.and(Rights::POLICY).and(Rights::STATE);
    let vm = Device::open()?.attach(&fd, rights)?;

    drop(fd);
    vm.start_statistics()?;
    vm.start_learning()?;
    ensure!(
        references()? == idle + 2,
        "the module has {} references, not {idle} and those of a VM and a file",
        references()?
    );
    let stop = AtomicBool::new(false);
    let (first, was_set) = mpsc::channel();
    let (took, setter) = thread::scope(|scope| {
        let setter = busy.then(|| scope.spawn(|| set_policies(&vm, &first, &stop)));
        let took = (|| {
            if busy {
                was_set.recv_timeout(SOON).context("no policy was set")?;
                thread::sleep(BUSY);
            }
            qemu.kill()?;
            ended(&folder, idle + 1)
        })();

        // Otherwise the thread ends with the VM.
        stop.store(took.is_err(), Ordering::Relaxed);
        (took, setter.map(ScopedJoinHandle::join))
    });
    let took = took?;
    let mut count = 0;

    if let Some(result) = setter {
        let (error, succeeded) = result.map_err(|_| anyhow!("the thread panicked"))??;
        let error = error.context("setting a policy did not fail")?;

        ensure!(error.is_vm_gone(), "setting a policy failed: {error}");
        count = succeeded;
    }
    for (what, result) in [
        ("set a policy", vm.set_policy(&[], false)),
        ("get the policy", vm.policy().map(drop)),
        ("learn", vm.start_learning()),
        ("read what was learned", vm.learned().map(drop)),
        ("read statistics", vm.statistics().map(drop)),
        ("list MSRs", vm.save_list(0, SOON).map(drop)),
        (
            "get a register",
            vm.get(0, SOON, &[Id::Msr(rom::UNKNOWN)]).map(drop),
        ),
    ] {
        ensure!(
            result.as_ref().is_err_and(Error::is_vm_gone),
            "{what}: not ENODEV, but {result:?}"
        );
    }
    drop(vm);
    ensure!(references()? == idle, "the closed file has a reference");
    Ok(format!("{count} policies; ended after {took} ms"))
}
