// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Options that choose a running VM, for all verbs that use /dev/kvm-msr.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use kvmsr::access::By;
use kvmsr::device::Attached;
use kvmsr::device::DEVICE;
use kvmsr::device::Device;
use kvmsr::device::Rights;
use kvmsr::device::VmFd;
use kvmsr::running::RunningVcpu;
use kvmsr::snapshot::Host;

use crate::verbs::tracing::parse_seconds;

// The VM.
#[derive(Clone, Debug, clap::Args)]
// The name would clash with the verb's own options.
#[group(skip)]
pub struct Options {
    /// The VMM's process, whose VM to use
    #[arg(long, short, value_name = "PID", required_unless_present = "fd")]
    pid: Option<u32>,
    /// The VM's file descriptor: the process's, if it has several VMs; without --pid, one that
    /// kvmsr inherits
    #[arg(long, value_name = "N")]
    fd: Option<i32>,
    /// The device of kvm-msr.ko
    #[arg(long, value_name = "FILE", default_value = DEVICE)]
    msr_device: PathBuf,
}

impl Options {
    /// Attaches to the VM.
    pub fn attach(&self, rights: Rights) -> anyhow::Result<Attached> {
        attach(
            Device::open_path(&self.msr_device)?,
            self.pid,
            self.fd,
            rights,
        )
    }
}

/// Attaches to the VM of a process, to observe it.
pub fn observe(pid: u32, fd: Option<i32>) -> anyhow::Result<Attached> {
    attach(Device::open()?, Some(pid), fd, Rights::OBSERVE)
}

fn attach(
    device: Device,
    pid: Option<u32>,
    fd: Option<i32>,
    rights: Rights,
) -> anyhow::Result<Attached> {
    let vm = match (pid, fd) {
        (Some(pid), fd) => VmFd::of_process(pid, fd)?,
        (None, Some(fd)) => VmFd::inherited(fd)?,
        (None, None) => bail!("choose a VM with --pid or --fd"),
    };

    Ok(device.attach(&vm, rights)?)
}

// A vCPU of the VM.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct VcpuOfVm {
    /// The vCPU, by its number for KVM_CREATE_VCPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub vcpu: u32,
    /// How long to wait while the vCPU runs
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    pub wait: Duration,
}

impl VcpuOfVm {
    /// The vCPU, for the library.
    pub fn of<'a>(&self, vm: &'a Attached, by: By) -> RunningVcpu<'a> {
        RunningVcpu {
            vm,
            vcpu: self.vcpu,
            timeout: self.wait,
            by,
            vendor: Host::this().vendor,
        }
    }
}

// A running VM instead of a scratch one.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "A running VM")]
#[group(skip)]
pub struct RunningOptions {
    /// Use the VM of this process instead of a scratch one; it has to be one of kvm-msr.ko
    #[arg(long, value_name = "PID", conflicts_with_all = ["cpu", "irqchip", "after_run"])]
    vm: Option<u32>,
    /// The VM's file descriptor: the process's, if it has several VMs; without --vm, one that
    /// kvmsr inherits
    #[arg(long, value_name = "N", conflicts_with_all = ["cpu", "irqchip", "after_run"])]
    fd: Option<i32>,
    #[command(flatten)]
    vcpu: VcpuOfVm,
    /// The device of kvm-msr.ko
    #[arg(long, value_name = "FILE", default_value = DEVICE)]
    msr_device: PathBuf,
}

impl RunningOptions {
    /// Whether a running VM is to be used.
    pub fn is_chosen(&self) -> bool {
        self.vm.is_some() || self.fd.is_some()
    }

    /// Attaches to the VM, and calls a function with its vCPU.
    pub fn with<T>(
        &self,
        by: By,
        work: impl FnOnce(&RunningVcpu<'_>) -> kvmsr::Result<T>,
    ) -> anyhow::Result<T> {
        if by == By::Guest {
            bail!("a running VM's guest can't be made to access an MSR: leave out --by guest");
        }
        let device = Device::open_path(&self.msr_device)?;
        let vm = attach(device, self.vm, self.fd, Rights::STATE)?;

        Ok(work(&self.vcpu.of(&vm, by))?)
    }
}
