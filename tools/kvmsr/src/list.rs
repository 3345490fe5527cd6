// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM's lists: MSRs to save, feature MSRs, and registers of KVM_GET_ONE_REG.

use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;
use serde::Serialize;

use crate::access::By;
use crate::access::Session;
use crate::catalogue;
use crate::cpuid::Vendor;
use crate::error::Error;
use crate::error::Result;
use crate::ioctl;
use crate::number::Hex;
use crate::scratch::Scratch;
use crate::scratch::Setup;
use crate::snapshot::SCHEMA;

/// The output of `kvmsr list`. Lists that were not requested are missing.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The vCPU's CPUID, as in the command line.
    pub cpu: String,
    /// Whether the VM has an in-kernel irqchip.
    pub irqchip: bool,
    /// `KVM_GET_MSR_INDEX_LIST`: MSRs to save, and emulated MSRs, with values of a new vCPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<Vec<Listed>>,
    /// `KVM_GET_MSR_FEATURE_INDEX_LIST`, with values of the device, i.e. the host's features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<Listed>>,
    /// `KVM_GET_REG_LIST`, with values of a new vCPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_regs: Option<OneRegs>,
}

/// A listed MSR.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listed {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its value; none if it can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Hex<u64>>,
}

/// The registers of KVM_GET_ONE_REG, if this kernel lists them.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OneRegs {
    /// Whether the kernel has `KVM_GET_REG_LIST` (Linux 6.18 and later).
    pub supported: bool,
    /// The list.
    pub registers: Vec<OneReg>,
}

/// A register of KVM_GET_ONE_REG.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OneReg {
    /// Its ID, for `KVM_GET_ONE_REG`.
    pub id: Hex<u64>,
    /// Its name, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its value; none if it can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Hex<u64>>,
}

/// The requested lists.
#[derive(Clone, Copy, Debug)]
pub struct Lists {
    /// `KVM_GET_MSR_INDEX_LIST`
    pub saved: bool,
    /// `KVM_GET_MSR_FEATURE_INDEX_LIST`
    pub features: bool,
    /// `KVM_GET_REG_LIST`
    pub one_regs: bool,
}

/// Reads KVM's lists and the values.
///
/// # Errors
///
/// [`Error::Kvm`] with the ioctl that failed.
pub fn list(kvm: &Kvm, setup: &Setup, cpu: &str, lists: Lists) -> Result<ListReport> {
    let vendor = setup.cpuid.vendor();
    let mut report = ListReport {
        schema: SCHEMA,
        cpu: cpu.to_owned(),
        irqchip: setup.irqchip,
        saved: None,
        features: None,
        one_regs: None,
    };

    if lists.saved {
        let list = kvm
            .get_msr_index_list()
            .map_err(Error::kvm("KVM_GET_MSR_INDEX_LIST"))?;
        let indices = list.as_slice();
        let values = Session::new(kvm, setup.clone(), false)?.read(By::Ioctl, indices)?;

        report.saved = Some(
            indices
                .iter()
                .zip(values)
                .map(|(&index, value)| listed(index, value.ok(), vendor))
                .collect(),
        );
    }
    if lists.features {
        let list = kvm
            .get_msr_feature_index_list()
            .map_err(Error::kvm("KVM_GET_MSR_FEATURE_INDEX_LIST"))?;

        report.features = Some(
            list.as_slice()
                .iter()
                .map(|&index| Ok(listed(index, feature(kvm, index)?, vendor)))
                .collect::<Result<_>>()?,
        );
    }
    if lists.one_regs {
        report.one_regs = Some(one_regs(&Scratch::new(kvm, setup)?));
    }
    Ok(report)
}

fn listed(index: u32, value: Option<u64>, vendor: Option<Vendor>) -> Listed {
    Listed {
        index: Hex(index),
        name: catalogue::name(index, vendor),
        value: value.map(Hex),
    }
}

/// `KVM_GET_MSRS` of the device: a feature MSR as supported by the host; none if it can't be read.
///
/// # Errors
///
/// [`Error::Kvm`] if the ioctl as a whole fails.
pub fn feature(kvm: &Kvm, index: u32) -> Result<Option<u64>> {
    let mut msrs = Msrs::from_entries(&[kvm_msr_entry {
        index,
        ..Default::default()
    }])
    .map_err(|_| Error::Input("one MSR is too many for KVM_GET_MSRS".to_owned()))?;
    let done = kvm
        .get_msrs(&mut msrs)
        .map_err(Error::kvm("KVM_GET_MSRS of the device"))?;

    Ok(msrs.as_slice().iter().take(done).map(|msr| msr.data).next())
}

fn one_regs(scratch: &Scratch) -> OneRegs {
    let Ok(ids) = ioctl::one_reg_list(scratch.vcpu()) else {
        return OneRegs {
            supported: false,
            registers: Vec::new(),
        };
    };
    let registers = ids
        .into_iter()
        .map(|id| {
            let mut value = [0; 8];
            let read = scratch.vcpu().get_one_reg(id, &mut value);

            OneReg {
                id: Hex(id),
                name: one_reg_name(id),
                value: read.ok().map(|_| Hex(u64::from_le_bytes(value))),
            }
        })
        .collect();

    OneRegs {
        supported: true,
        registers,
    }
}

/// The name of a register: an MSR's, or one of KVM's own registers (see KVM_GET_ONE_REG in
/// api.rst).
fn one_reg_name(id: u64) -> Option<String> {
    const GUEST_SSP: u64 = 0x2030_0003_0000_0000;

    if id == GUEST_SSP {
        return Some("KVM_REG_GUEST_SSP".to_owned());
    }
    let index = u32::try_from(id & 0xffff_ffff).ok()?;

    (ioctl::one_reg_id(index) == id)
        .then(|| catalogue::name(index, None))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shadow_stack_pointer_has_a_name() {
        assert_eq!(
            one_reg_name(0x2030_0003_0000_0000).as_deref(),
            Some("KVM_REG_GUEST_SSP")
        );
        assert_eq!(one_reg_name(1), None);
    }
}
