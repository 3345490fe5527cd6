// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Reads and writes of a scratch vCPU's MSRs, one after the other, with their results.

use std::fmt;

use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;
use serde::Serialize;

use crate::catalogue;
use crate::cpuid::Vendor;
use crate::error::Error;
use crate::error::Result;
use crate::ioctl::MAX_ENTRIES;
use crate::number::Bits;
use crate::number::Hex;
use crate::scratch::Outcome;
use crate::scratch::Reason;
use crate::scratch::Scratch;
use crate::scratch::Setup;

/// The initiator of an access, and its means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// User space, by `KVM_GET_MSRS` and `KVM_SET_MSRS`.
    #[default]
    Ioctl,
    /// User space, by `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG`.
    OneReg,
    /// The guest, by RDMSR and WRMSR.
    Guest,
}

/// Why an access failed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refusal {
    /// The kind.
    pub kind: RefusalKind,
    /// Details, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How an access failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// KVM refused the MSR in an ioctl, which gives no reason.
    Refused,
    /// The guest got #GP, because KVM does not know the MSR.
    Unknown,
    /// The guest got #GP. KVM knows the MSR, but refuses this access or value.
    Invalid,
    /// The guest got #GP, because the filter denies the access.
    Filter,
    /// The guest got #GP for an unknown reason: the CPU itself may have refused the access.
    Unsaid,
    /// The guest got another exception.
    Exception,
    /// KVM_RUN returned with an error, and the guest can't continue.
    Left,
}

impl From<RefusalKind> for Refusal {
    fn from(kind: RefusalKind) -> Self {
        Refusal { kind, detail: None }
    }
}

impl Refusal {
    /// Why a guest's access failed; none if it succeeded.
    pub fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Value(_) | Outcome::Done => None,
            Outcome::Refused(reason) => Some(
                match reason {
                    Reason::Unknown => RefusalKind::Unknown,
                    Reason::Invalid => RefusalKind::Invalid,
                    Reason::Filter => RefusalKind::Filter,
                    Reason::Unsaid => RefusalKind::Unsaid,
                }
                .into(),
            ),
            Outcome::Exception(vector) => Some(Refusal {
                kind: RefusalKind::Exception,
                detail: Some(format!("exception {vector}")),
            }),
            Outcome::Dead(why) => Some(Refusal {
                kind: RefusalKind::Left,
                detail: Some(why.clone()),
            }),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            RefusalKind::Refused => "refused",
            RefusalKind::Unknown => "#GP: KVM does not know the MSR",
            RefusalKind::Invalid => "#GP: KVM knows the MSR, but refuses this access",
            RefusalKind::Filter => "#GP: the filter denies it",
            RefusalKind::Unsaid => "#GP",
            RefusalKind::Exception => "an exception other than #GP",
            RefusalKind::Left => "KVM_RUN failed, and the guest can't continue",
        })?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

/// Why an access must not be tried: it would hang the machine rather than fail.
///
/// A guest whose emulated local APIC is disabled, or that sends itself INIT, waits for interrupts
/// that never come.
pub fn forbidden(setup: &Setup, index: u32, value: u64) -> Option<&'static str> {
    const APIC_BASE: u32 = 0x1b;
    const APIC_ENABLE: u64 = 1 << 11;
    const X2APIC_ICR: u32 = 0x830;

    match index {
        _ if !setup.irqchip => None,
        APIC_BASE if value & APIC_ENABLE == 0 => {
            Some("a guest that disables the local APIC of an in-kernel irqchip may never return")
        }
        // Delivery modes SMI, INIT and start-up.
        X2APIC_ICR if matches!(value >> 8 & 7, 2 | 5 | 6) => {
            Some("a guest that sends itself SMI or INIT never returns")
        }
        _ => None,
    }
}

/// Checks that values fit into these bits.
///
/// # Errors
///
/// [`Error::Input`] if a value does not fit.
pub fn fit(writes: &[(u32, u64)], bits: Option<Bits>) -> Result<()> {
    let Some(bits) = bits else { return Ok(()) };

    match writes
        .iter()
        .find(|(_, value)| bits.put(0, *value).is_none())
    {
        None => Ok(()),
        Some((index, value)) => Err(Error::Input(format!(
            "{index:#x}: {value:#x} does not fit into bits {bits}"
        ))),
    }
}

/// A vCPU, which is replaced by a new one if a guest's access makes it unusable.
#[derive(Debug)]
pub struct Session<'a> {
    kvm: &'a Kvm,
    setup: Setup,
    runs_first: bool,
    scratch: Scratch,
    vendor: Option<Vendor>,
}

impl<'a> Session<'a> {
    /// A new vCPU, which has run once if `runs_first`.
    ///
    /// # Errors
    ///
    /// As [`Scratch::new`] and [`Scratch::run_once`].
    pub fn new(kvm: &'a Kvm, setup: Setup, runs_first: bool) -> Result<Self> {
        Ok(Session {
            scratch: fresh(kvm, &setup, runs_first)?,
            vendor: setup.cpuid.vendor(),
            kvm,
            setup,
            runs_first,
        })
    }

    /// The vCPU.
    pub fn vendor(&self) -> Option<Vendor> {
        self.vendor
    }

    /// Replaces the vCPU by a new one.
    ///
    /// # Errors
    ///
    /// As [`Session::new`].
    pub fn renew(&mut self) -> Result<()> {
        self.scratch = fresh(self.kvm, &self.setup, self.runs_first)?;
        Ok(())
    }

    /// Reads any number of MSRs.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`] if an ioctl as a whole fails, [`Error::Missing`] if this kernel has no
    /// KVM_GET_ONE_REG. A refused MSR is not an error.
    pub fn read(&mut self, by: By, indices: &[u32]) -> Result<Vec<Result<u64, Refusal>>> {
        if by == By::Ioctl {
            return self.read_by_ioctl(indices);
        }
        indices
            .iter()
            .map(|&index| self.read_one(by, index))
            .collect()
    }

    /// `KVM_GET_MSRS` stops at the first MSR that it refuses, but copies the whole list. So lists
    /// are short if most MSRs are refused.
    fn read_by_ioctl(&self, indices: &[u32]) -> Result<Vec<Result<u64, Refusal>>> {
        let mut read = Vec::with_capacity(indices.len());
        let mut size = MAX_ENTRIES;
        let mut rest = indices;

        while !rest.is_empty() {
            let (chunk, _) = rest.split_at(rest.len().min(size));
            let asked: Vec<_> = chunk
                .iter()
                .map(|&index| kvm_msr_entry {
                    index,
                    ..Default::default()
                })
                .collect();
            let mut msrs = Msrs::from_entries(&asked).map_err(|_| {
                Error::Input(format!(
                    "{} MSRs are too many for KVM_GET_MSRS",
                    asked.len()
                ))
            })?;
            let done = self
                .scratch
                .vcpu()
                .get_msrs(&mut msrs)
                .map_err(Error::kvm("KVM_GET_MSRS"))?;
            let got = msrs.as_slice().iter().take(done);

            read.extend(got.map(|entry| Ok(entry.data)));
            if done < chunk.len() {
                read.push(Err(RefusalKind::Refused.into()));
            }
            rest = indices.get(read.len()..).unwrap_or_default();
            size = (2 * done).clamp(1, MAX_ENTRIES);
        }
        Ok(read)
    }

    fn read_one(&mut self, by: By, index: u32) -> Result<Result<u64, Refusal>> {
        let value = match by {
            By::Ioctl => self.scratch.get(index)?,
            By::OneReg => self.scratch.get_one_reg(index)?,
            By::Guest => {
                let outcome = self.scratch.rdmsr(index)?;

                return Ok(match outcome {
                    Outcome::Value(value) => Ok(value),
                    _ => Err(self.refusal(&outcome)?),
                });
            }
        };
        Ok(value.ok_or(RefusalKind::Refused.into()))
    }

    /// Writes an MSR. The inner result is the refusal, if KVM refuses it.
    ///
    /// # Errors
    ///
    /// As [`Session::read`], and [`Error::Input`] if the access is [`forbidden`].
    pub fn write(&mut self, by: By, index: u32, value: u64) -> Result<Result<(), Refusal>> {
        let taken = match by {
            By::Ioctl => self.scratch.set(index, value)?,
            By::OneReg => self.scratch.set_one_reg(index, value)?,
            By::Guest => {
                if let Some(why) = forbidden(&self.setup, index, value) {
                    return Err(Error::Input(format!("{index:#x} = {value:#x}: {why}")));
                }
                let outcome = self.scratch.wrmsr(index, value)?;

                return Ok(match outcome {
                    Outcome::Done => Ok(()),
                    _ => Err(self.refusal(&outcome)?),
                });
            }
        };
        Ok(if taken {
            Ok(())
        } else {
            Err(RefusalKind::Refused.into())
        })
    }

    fn refusal(&mut self, outcome: &Outcome) -> Result<Refusal> {
        if matches!(outcome, Outcome::Dead(_)) {
            self.renew()?;
        }
        Ok(Refusal::of(outcome).unwrap_or(RefusalKind::Unsaid.into()))
    }

    /// Writes MSRs one after the other, and reads each before and after its write.
    ///
    /// With `bits`, each value is for these bits; the others do not change.
    ///
    /// # Errors
    ///
    /// As [`Session::write`], and [`Error::Input`] if a value does not fit into `bits`, or their
    /// MSR can't be read.
    pub fn set(
        &mut self,
        by: By,
        writes: &[(u32, u64)],
        bits: Option<Bits>,
    ) -> Result<Vec<Written>> {
        fit(writes, bits)?;
        writes
            .iter()
            .map(|&(index, value)| self.set_one(by, index, value, bits))
            .collect()
    }

    fn set_one(&mut self, by: By, index: u32, value: u64, bits: Option<Bits>) -> Result<Written> {
        let before = self.read_one(by, index)?.ok();
        let value = match (bits, before) {
            (None, _) => value,
            (Some(bits), Some(before)) => bits.put(before, value).unwrap_or(value),
            (Some(bits), None) => {
                return Err(Error::Input(format!(
                    "{index:#x} can't be read, so its bits other than {bits} are unknown: \
                     use the whole value"
                )));
            }
        };
        let refused = self.write(by, index, value)?.err();
        let is_out_of_reach = before.is_none() && refused.is_some();
        let mut after = if is_out_of_reach {
            None
        } else {
            self.read_one(by, index)?.ok()
        };
        let mut moves = false;

        // A difference may be due to a clock, which advances between the write and the read.
        if refused.is_none() && after.is_some_and(|after| after != value) {
            let again = self.read_one(by, index)?.ok();

            moves = again != after || catalogue::moves(index);
            after = again;
        }
        let ignored = match after {
            Some(after) if refused.is_none() && !moves => after ^ value,
            _ => 0,
        };

        Ok(Written {
            index: Hex(index),
            name: catalogue::name(index, self.vendor),
            before: before.map(Hex),
            value: Hex(value),
            refused,
            after: after.map(Hex),
            moves,
            ignored: Hex(ignored),
        })
    }
}

fn fresh(kvm: &Kvm, setup: &Setup, runs_first: bool) -> Result<Scratch> {
    let mut scratch = Scratch::new(kvm, setup)?;

    if runs_first {
        scratch.run_once()?;
    }
    Ok(scratch)
}

/// The output of `kvmsr get`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetReport {
    /// [`SCHEMA`](crate::snapshot::SCHEMA)
    pub schema: u32,
    /// The initiator of the reads.
    pub by: By,
    /// The vCPU's CPUID, as in the command line.
    pub cpu: String,
    /// Whether the VM has an in-kernel irqchip.
    pub irqchip: bool,
    /// Whether the vCPU had run before.
    pub after_run: bool,
    /// The selected bits, e.g. `15:8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<String>,
    /// The MSRs, in the order of the command line.
    pub msrs: Vec<Got>,
}

/// An MSR that was read.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Got {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its value, if it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Hex<u64>>,
    /// The value of the selected bits, shifted down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<Hex<u64>>,
    /// Why it can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

/// The output of `kvmsr set`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetReport {
    /// [`SCHEMA`](crate::snapshot::SCHEMA)
    pub schema: u32,
    /// The initiator of the writes.
    pub by: By,
    /// The vCPU's CPUID, as in the command line.
    pub cpu: String,
    /// Whether the VM has an in-kernel irqchip.
    pub irqchip: bool,
    /// Whether the vCPU had run before.
    pub after_run: bool,
    /// The writes, in their order.
    pub msrs: Vec<Written>,
}

/// The write of an MSR.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Written {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The value before, if it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Hex<u64>>,
    /// The value that was written.
    pub value: Hex<u64>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// The value after, if it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Hex<u64>>,
    /// Whether it changes by itself, so that the value after is not conclusive.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
    /// The bits that KVM accepted, but that have another value now.
    pub ignored: Hex<u64>,
}

impl Written {
    /// Whether all values are now as written, as far as can be seen.
    pub fn is_fine(&self) -> bool {
        self.refused.is_none() && self.ignored.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_forbidden_with_an_irqchip_only() {
        let with = Setup {
            irqchip: true,
            ..Default::default()
        };
        let without = Setup::default();

        assert!(forbidden(&with, 0x1b, 0xfee0_0000).is_some());
        assert!(forbidden(&with, 0x1b, 0xfee0_0800).is_none());
        assert!(forbidden(&with, 0x830, 0x500).is_some());
        assert!(forbidden(&with, 0x830, 0x30).is_none());
        assert!(forbidden(&without, 0x1b, 0).is_none());
    }
}
