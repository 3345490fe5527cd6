// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a scratch vCPU is made with, for every verb that has one.

use std::path::Path;

use anyhow::Context;
use anyhow::bail;
use kvm_ioctls::Kvm;

use kvmsr::cpu_file;
use kvmsr::cpuid::Cpuid;
use kvmsr::input;
use kvmsr::scratch::Setup;

/// The vCPU's CPUID.
#[derive(Clone, Debug, clap::Args)]
pub struct CpuOption {
    /// The vCPU's CPUID: host (all that KVM offers here), none, no-pmu, other-vendor, or a file
    /// (a snapshot of kvmsr, or what 'cpuid -r' prints)
    #[arg(long, value_name = "PRESET|FILE", default_value = "host")]
    pub cpu: String,
}

impl CpuOption {
    /// The CPUID that is meant.
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
        cpu_file::parse(&input::read(path)?).with_context(|| format!("--cpu {}", self.cpu))
    }
}

/// All of a vCPU.
#[derive(Clone, Debug, clap::Args)]
pub struct VcpuOptions {
    #[command(flatten)]
    pub cpu: CpuOption,
    /// Have KVM emulate the interrupt controllers, without which there is no local APIC
    #[arg(long)]
    pub irqchip: bool,
}

impl VcpuOptions {
    /// What the scratch VM is made with; user space is told why the guest's accesses fail.
    pub fn setup(&self, kvm: &Kvm) -> anyhow::Result<Setup> {
        Ok(Setup {
            cpuid: self.cpu.cpuid(kvm)?,
            irqchip: self.irqchip,
            reasons: true,
        })
    }
}
