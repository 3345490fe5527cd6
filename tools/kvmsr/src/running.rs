// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSRs of a running VM's vCPU, by batches of `/dev/kvm-msr`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::access::By;
use crate::catalogue;
use crate::cpuid::Vendor;
use crate::device::Attached;
use crate::device::Entry;
use crate::device::Id;
use crate::device::SaveEntry;
use crate::device::Status;
use crate::error::Error;
use crate::error::Result;
use crate::ioctl::one_reg_id;
use crate::number::Bits;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// A vCPU of a VM that this process is attached to.
#[derive(Debug)]
pub struct RunningVcpu<'a> {
    /// The VM.
    pub vm: &'a Attached,
    /// The argument of `KVM_CREATE_VCPU`.
    pub vcpu: u32,
    /// How long to wait while it runs.
    pub timeout: Duration,
    /// How MSRs are named: as for `KVM_GET_MSRS`, or as for `KVM_GET_ONE_REG`.
    pub by: By,
    /// Which of two names to use, where vendors differ.
    pub vendor: Option<Vendor>,
}

/// The output of `kvmsr get --vm`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmGetReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The vCPU.
    pub vcpu: u32,
    /// How the MSRs were named.
    pub by: By,
    /// The selected bits, e.g. `15:8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<String>,
    /// The MSRs, in the order of the command line.
    pub msrs: Vec<VmGot>,
}

/// An MSR that was read.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmGot {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name.
    pub name: Option<String>,
    /// Its value, if it can be read.
    pub value: Option<Hex<u64>>,
    /// The value of the selected bits, shifted down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<Hex<u64>>,
    /// Why it can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Status>,
}

/// The output of `kvmsr set --vm`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmSetReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The vCPU.
    pub vcpu: u32,
    /// How the MSRs were named.
    pub by: By,
    /// The writes, in their order.
    pub msrs: Vec<VmWritten>,
}

/// The write of an MSR.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmWritten {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name.
    pub name: Option<String>,
    /// The value before all writes, if it can be read.
    pub before: Option<Hex<u64>>,
    /// The value that was written.
    pub value: Hex<u64>,
    /// The value after all writes, if it can be read.
    pub after: Option<Hex<u64>>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Status>,
}

/// The output of `kvmsr save-list`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SaveListReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The vCPU.
    pub vcpu: u32,
    /// The MSRs, in the order in which to restore them.
    pub msrs: Vec<Saved>,
}

/// An MSR to save and restore.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Saved {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name.
    pub name: Option<String>,
    /// The ioctls that save and restore it.
    pub owner: crate::device::Owner,
    /// MSRs with a lower number have to be restored first.
    pub order: u16,
    /// What to know about it.
    pub attributes: Vec<crate::device::Attribute>,
}

impl RunningVcpu<'_> {
    fn id(&self, index: u32) -> Id {
        match self.by {
            By::OneReg => Id::Register(one_reg_id(index)),
            By::Ioctl | By::Guest => Id::Msr(index),
        }
    }

    fn read(&self, indices: impl Iterator<Item = u32>) -> Result<Vec<Result<u64, Status>>> {
        let ids: Vec<Id> = indices.map(|index| self.id(index)).collect();

        Ok(self.vm.get(self.vcpu, self.timeout, &ids)?)
    }

    /// Reads MSRs.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], as [`Attached::get`].
    pub fn get(&self, indices: &[u32], bits: Option<Bits>) -> Result<VmGetReport> {
        let read = self.read(indices.iter().copied())?;

        Ok(VmGetReport {
            schema: SCHEMA,
            vcpu: self.vcpu,
            by: self.by,
            bits: bits.map(|bits| bits.to_string()),
            msrs: indices
                .iter()
                .zip(read)
                .map(|(&index, read)| {
                    let value = read.ok();

                    VmGot {
                        index: Hex(index),
                        name: catalogue::name(index, self.vendor),
                        value: value.map(Hex),
                        field: value.zip(bits).map(|(value, bits)| Hex(bits.of(value))),
                        refused: read.err(),
                    }
                })
                .collect(),
        })
    }

    /// Writes MSRs in their order, and reads all of them before and after. With `bits`, the values
    /// are for these bits.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], as [`Attached::set`]; [`Error::Input`] if the other bits of an MSR are
    /// unknown.
    pub fn set(&self, writes: &[(u32, u64)], bits: Option<Bits>) -> Result<VmSetReport> {
        let indices = || writes.iter().map(|&(index, _)| index);
        let before = self.read(indices())?;
        let values = values(writes, &before, bits)?;
        let entries: Vec<Entry> = indices()
            .zip(&values)
            .map(|(index, &value)| Entry {
                id: self.id(index),
                value,
            })
            .collect();
        let written = self.vm.set(self.vcpu, self.timeout, &entries)?;
        let after = self.read(indices())?;
        let results = before.iter().zip(values).zip(after).zip(written);

        Ok(VmSetReport {
            schema: SCHEMA,
            vcpu: self.vcpu,
            by: self.by,
            msrs: indices()
                .zip(results)
                .map(|(index, (((before, value), after), written))| VmWritten {
                    index: Hex(index),
                    name: catalogue::name(index, self.vendor),
                    before: before.ok().map(Hex),
                    value: Hex(value),
                    after: after.ok().map(Hex),
                    refused: written.err(),
                })
                .collect(),
        })
    }

    /// The MSRs whose state a guest can see.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], as [`Attached::save_list`].
    pub fn save_list(&self) -> Result<SaveListReport> {
        let saved = |entry: SaveEntry| Saved {
            index: Hex(entry.index),
            name: catalogue::name(entry.index, self.vendor),
            owner: entry.owner,
            order: entry.order,
            attributes: entry.attributes,
        };
        let entries = self.vm.save_list(self.vcpu, self.timeout)?;

        Ok(SaveListReport {
            schema: SCHEMA,
            vcpu: self.vcpu,
            msrs: entries.into_iter().map(saved).collect(),
        })
    }
}

/// The whole values to write, if the given ones are for some bits.
fn values(
    writes: &[(u32, u64)],
    before: &[Result<u64, Status>],
    bits: Option<Bits>,
) -> Result<Vec<u64>> {
    let Some(bits) = bits else {
        return Ok(writes.iter().map(|&(_, value)| value).collect());
    };
    // An MSR may be written twice.
    let mut current = BTreeMap::new();

    writes
        .iter()
        .zip(before)
        .map(|(&(index, part), before)| {
            let whole = current
                .get(&index)
                .copied()
                .or(before.ok())
                .ok_or_else(|| {
                    Error::Input(format!(
                        "{index:#x} can't be read, so its bits other than {bits} are unknown: use \
                         the whole value"
                    ))
                })?;
            let value = bits.put(whole, part).ok_or_else(|| {
                Error::Input(format!(
                    "{index:#x}: {part:#x} does not fit into bits {bits}"
                ))
            })?;

            current.insert(index, value);
            Ok(value)
        })
        .collect()
}

impl VmWritten {
    /// Bits that KVM accepted, but that have another value now; none if the MSR changes by itself.
    pub fn ignored(&self) -> u64 {
        match self.after {
            Some(after) if self.refused.is_none() && !catalogue::moves(self.index.0) => {
                after.0 ^ self.value.0
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_put_into_the_value_before() {
        let bits = Some("7:4".parse().unwrap());
        let writes = [(0x10, 1), (0x11, 2), (0x10, 3)];
        let before = [Ok(0xff), Ok(0x100), Ok(0xff)];

        assert_eq!(values(&writes, &before, bits).unwrap(), [0x1f, 0x120, 0x3f]);
        assert_eq!(values(&writes, &before, None).unwrap(), [1, 2, 3]);
        assert!(values(&[(0x10, 1)], &[Err(Status::Denied)], bits).is_err());
        assert!(values(&[(0x10, 16)], &[Ok(0)], bits).is_err());
    }

    #[test]
    fn bits_that_did_not_stick_are_shown() {
        let mut written = VmWritten {
            index: Hex(0x277),
            name: None,
            before: None,
            value: Hex(0b110),
            after: Some(Hex(0b011)),
            refused: None,
        };

        assert_eq!(written.ignored(), 0b101);
        written.refused = Some(Status::Denied);
        assert_eq!(written.ignored(), 0);
        // The time stamp counter, which advances.
        written.refused = None;
        written.index = Hex(0x10);
        assert_eq!(written.ignored(), 0);
    }
}
