// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Options for scratch vCPUs, for all verbs that use one.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use kvm_ioctls::Kvm;

use kvmsr::access::By;
use kvmsr::access::Session;
use kvmsr::arguments;
use kvmsr::catalogue;
use kvmsr::cpu_file;
use kvmsr::cpuid::Cpuid;
use kvmsr::input;
use kvmsr::scratch::Setup;

use crate::Common;

// The vCPU's CPUID.
#[derive(Clone, Debug, clap::Args)]
pub struct CpuOption {
    /// The vCPU's CPUID: host (all that KVM supports here), none, no-pmu, other-vendor, or a file:
    /// a snapshot of kvmsr, the output of 'cpuid -r', a template or fingerprint of Firecracker, a
    /// profile of cloud-hypervisor
    #[arg(long, value_name = "PRESET|FILE", default_value = "host")]
    pub cpu: String,
}

impl CpuOption {
    /// The CPUID.
    pub fn cpuid(&self, kvm: &Kvm) -> anyhow::Result<Cpuid> {
        if let Some(cpuid) = Cpuid::preset(kvm, &self.cpu)? {
            return Ok(cpuid);
        }
        let path = Path::new(&self.cpu);

        if !path.exists() {
            let presets: Vec<_> = Cpuid::PRESETS.iter().map(|(name, _)| *name).collect();

            bail!(
                "--cpu: '{}' is neither a file nor one of {}",
                self.cpu,
                presets.join(", ")
            );
        }
        Ok(cpu_file::read(path, &Cpuid::supported(kvm)?)?)
    }
}

// All options of a vCPU.
#[derive(Clone, Debug, clap::Args)]
pub struct VcpuOptions {
    #[command(flatten)]
    pub cpu: CpuOption,
    /// Create the in-kernel interrupt controllers; without them, there is no local APIC
    #[arg(long)]
    pub irqchip: bool,
}

impl VcpuOptions {
    /// A description for errors.
    pub fn what(&self) -> String {
        format!("can't make a vCPU with --cpu {}", self.cpu.cpu)
    }

    /// The setup of the scratch VM, in which failed guest accesses exit to user space.
    pub fn setup(&self, kvm: &Kvm) -> anyhow::Result<Setup> {
        Ok(Setup {
            cpuid: self.cpu.cpuid(kvm)?,
            irqchip: self.irqchip,
            reasons: true,
        })
    }
}

// The MSRs.
#[derive(Clone, Debug, clap::Args)]
pub struct MsrOptions {
    /// Indices, names, or ranges such as 0x400-0x47f
    #[arg(value_name = "MSR", required_unless_present = "from")]
    pub msrs: Vec<String>,
    /// Read them from a file, or from standard input (-): one or several per line, # for comments
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
}

impl MsrOptions {
    /// Their indices, in the order in which they were given.
    pub fn indices(&self) -> anyhow::Result<Vec<u32>> {
        let mut indices = Vec::new();

        for msr in &self.msrs {
            indices.extend(catalogue::parse_indices(msr)?);
        }
        if let Some(path) = &self.from {
            indices.extend(
                arguments::msrs(&input::read(path)?).with_context(|| path.display().to_string())?,
            );
        }
        if indices.is_empty() {
            bail!("no MSR is given: use an index, e.g. 0x10, or a name");
        }
        Ok(indices)
    }
}

/// The initiator of an access.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum ByOption {
    /// User space, with KVM_GET_MSRS and KVM_SET_MSRS
    Ioctl,
    /// User space, with KVM_GET_ONE_REG and KVM_SET_ONE_REG (Linux 6.18)
    OneReg,
    /// The guest, with RDMSR and WRMSR
    Guest,
}

// How MSRs are accessed.
#[derive(Clone, Debug, clap::Args)]
pub struct AccessOptions {
    /// The initiator of the access
    #[arg(long, value_name = "WHO", value_enum, default_value = "ioctl")]
    pub by: ByOption,
    #[command(flatten)]
    pub vcpu: VcpuOptions,
    /// Run the vCPU once before; then feature MSRs can't change
    #[arg(long)]
    pub after_run: bool,
}

impl AccessOptions {
    /// The initiator, for the library.
    pub fn by(&self) -> By {
        match self.by {
            ByOption::Ioctl => By::Ioctl,
            ByOption::OneReg => By::OneReg,
            ByOption::Guest => By::Guest,
        }
    }

    /// Creates the vCPU, and calls a function with it.
    pub fn with<T>(
        &self,
        common: &Common,
        work: impl FnOnce(&mut Session<'_>) -> kvmsr::Result<T>,
    ) -> anyhow::Result<T> {
        let kvm = kvmsr::scratch::open(&common.device)?;
        let setup = self.vcpu.setup(&kvm)?;
        let mut session =
            Session::new(&kvm, setup, self.after_run).with_context(|| self.vcpu.what())?;

        Ok(work(&mut session)?)
    }
}
