// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests which bits of an MSR user space and the guest can read and write, before the vCPU has run
//! and after.
//!
//! A bit is tried by writing the current value with this bit inverted. Then the value is restored,
//! or the vCPU is replaced if that is not certain, so that the bits do not affect each other.

mod causes;
mod needs;
mod pool;
mod stage;

use kvm_ioctls::Kvm;
use serde::Serialize;

use crate::access::Refusal;
use crate::access::RefusalKind;
use crate::catalogue;
use crate::catalogue::Initiator;
use crate::error::Result;
use crate::number::Hex;
use crate::scratch::Setup;
use crate::snapshot::SCHEMA;

pub use causes::Cause;
pub use causes::CauseKind;
pub use causes::Stage;
pub use needs::Need;
use pool::Pool;

/// The output of `kvmsr probe`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProbeReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The vCPU's CPUID, as in the command line.
    pub cpu: String,
    /// Whether the VM has an in-kernel irqchip.
    pub irqchip: bool,
    /// The MSRs, in the order of the command line.
    pub msrs: Vec<Probed>,
}

/// The results for an MSR.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Probed {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Accesses by user space: `KVM_GET_MSRS` and `KVM_SET_MSRS`.
    pub user: Stages,
    /// Accesses by the guest: RDMSR and WRMSR.
    pub guest: Stages,
    /// The CPUID bits on which accesses depend.
    pub needs: Vec<Need>,
    /// The causes of refusals, if known.
    pub causes: Vec<Cause>,
}

/// Before the vCPU has run, and after.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stages {
    /// On a vCPU that has never run. For the guest: with the vCPU's first instruction; not tried
    /// for MSRs that KVM does not know, nor for hundreds of MSRs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_run: Option<Access>,
    /// On a vCPU that has run.
    pub after_run: Access,
}

/// The results for one initiator at one time.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Access {
    /// Whether it can be read.
    pub readable: bool,
    /// Its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Hex<u64>>,
    /// Whether the value changes by itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
    /// Whether a write succeeds: of the current value (0 if it can't be read), or of the value
    /// with some bit inverted.
    pub writable: bool,
    /// The result for each bit; none if they were not tried, because KVM does not know the MSR, or
    /// because too many vCPUs would be needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<BitMasks>,
    /// Why a read is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_refused: Option<Refusal>,
    /// Why a write of the current value is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_refused: Option<Refusal>,
}

/// The results of inverting each bit. Every bit is in one of these masks, and may also be in
/// `dragged`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BitMasks {
    /// The bit is stored.
    pub sticks: Hex<u64>,
    /// The write succeeds, but the bit does not change.
    pub ignored: Hex<u64>,
    /// The write is refused.
    pub refused: Hex<u64>,
    /// The write succeeds, but its effect is unknown: the MSR can't be read, or changes by itself.
    pub unclear: Hex<u64>,
    /// KVM_RUN failed at the write, and the vCPU was replaced.
    pub left: Hex<u64>,
    /// Not tried, because it may hang the machine.
    pub untried: Hex<u64>,
    /// Bits that changed together with another one.
    pub dragged: Hex<u64>,
}

impl BitMasks {
    /// Bits with which a write succeeds.
    pub fn taken(&self) -> u64 {
        self.sticks.0 | self.ignored.0 | self.unclear.0
    }

    /// Adds the result for a bit. If the MSR changes by itself, `pace` is its change between two
    /// reads.
    fn note(
        &mut self,
        bit: u64,
        before: u64,
        taken: &Result<(), Refusal>,
        after: Option<u64>,
        pace: Option<u64>,
    ) {
        let mask = match (taken, after, pace) {
            (Err(refusal), _, _) if refusal.kind == RefusalKind::Left => &mut self.left,
            (Err(_), _, _) => &mut self.refused,
            (Ok(()), None, _) => &mut self.unclear,
            (Ok(()), Some(after), Some(pace)) => {
                // A clock that was set continues from the new value, otherwise from the old one.
                // Low bits change meanwhile, more of them if other processes use the CPU.
                let near = |from: u64| after.wrapping_sub(from) < bit / 2;
                let is_low = bit < pace.saturating_mul(256);

                match (near(before ^ bit), near(before)) {
                    _ if is_low => &mut self.unclear,
                    (true, false) => &mut self.sticks,
                    (false, true) => &mut self.ignored,
                    _ => &mut self.unclear,
                }
            }
            (Ok(()), Some(after), None) => {
                self.dragged.0 |= (after ^ before) & !bit;
                if (after ^ before) & bit != 0 {
                    &mut self.sticks
                } else {
                    &mut self.ignored
                }
            }
        };

        mask.0 |= bit;
    }
}

/// The initiator of an access.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// User space, by an ioctl.
    User,
    /// The guest, by an instruction.
    Guest,
}

/// The time of an access.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// The vCPU has never run.
    BeforeRun,
    /// It has run.
    AfterRun,
}

/// The kind of access.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A read.
    Read,
    /// A write.
    Write,
}

impl Probed {
    /// The results for one initiator at one time; none if they were not tried.
    pub fn access(&self, who: Who, when: When) -> Option<&Access> {
        let stages = match who {
            Who::User => &self.user,
            Who::Guest => &self.guest,
        };

        match when {
            When::BeforeRun => stages.before_run.as_ref(),
            When::AfterRun => Some(&stages.after_run),
        }
    }
}

impl Access {
    /// Whether a read or write succeeds.
    pub fn allows(&self, what: What) -> bool {
        match what {
            What::Read => self.readable,
            What::Write => self.writable,
        }
    }

    /// Why a read or write is refused.
    pub fn refusal(&self, what: What) -> Option<&Refusal> {
        match what {
            What::Read => self.read_refused.as_ref(),
            What::Write => self.write_refused.as_ref(),
        }
    }
}

/// How much to try with the guest's first instruction, which needs a vCPU for each access.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Thoroughness {
    /// Nothing.
    Quick,
    /// A read, and a write of the current value.
    Normal,
    /// Also each bit.
    Thorough,
}

/// Tests MSRs. Calls `progress` after each one.
///
/// # Errors
///
/// [`Error::Kvm`](crate::Error::Kvm) if KVM fails, rather than refuses.
pub fn probe(
    kvm: &Kvm,
    setup: &Setup,
    cpu: &str,
    indices: &[u32],
    thoroughness: Thoroughness,
    mut progress: impl FnMut(),
) -> Result<ProbeReport> {
    let msrs = Pool::with(kvm, setup, |pool| {
        indices
            .iter()
            .map(|&index| {
                let probed = one(pool, index, thoroughness)?;

                progress();
                Ok(probed)
            })
            .collect::<Result<_>>()
    })?;

    Ok(ProbeReport {
        schema: SCHEMA,
        cpu: cpu.to_owned(),
        irqchip: setup.irqchip,
        msrs,
    })
}

fn one(pool: &mut Pool<'_>, index: u32, thoroughness: Thoroughness) -> Result<Probed> {
    let guest = stage::probe(pool, index, Initiator::Guest, true, false)?;
    let is_unknown = guest.bits.is_none();
    let user = Stages {
        before_run: Some(stage::probe(
            pool,
            index,
            Initiator::Host,
            false,
            is_unknown,
        )?),
        after_run: stage::probe(pool, index, Initiator::Host, true, is_unknown)?,
    };
    let first = if is_unknown || thoroughness == Thoroughness::Quick {
        None
    } else {
        let each_bit = thoroughness == Thoroughness::Thorough;

        Some(stage::first_instruction(
            pool,
            index,
            guest.moves.then_some(0),
            each_bit,
        )?)
    };
    let mut probed = Probed {
        index: Hex(index),
        name: catalogue::name(index, pool.setup().cpuid.vendor()),
        user,
        guest: Stages {
            before_run: first,
            after_run: guest,
        },
        needs: Vec::new(),
        causes: Vec::new(),
    };

    probed.needs = needs::of(pool, &probed)?;
    probed.causes = causes::of(&probed);
    Ok(probed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(bit: u64, taken: bool, after: Option<u64>, pace: Option<u64>) -> BitMasks {
        let taken = if taken {
            Ok(())
        } else {
            Err(RefusalKind::Refused.into())
        };
        let mut bits = BitMasks::default();

        bits.note(bit, 0x1000, &taken, after, pace);
        bits
    }

    #[test]
    fn bits_stick_or_do_not() {
        let bit = Hex(4);

        assert_eq!(noted(4, true, Some(0x1004), None).sticks, bit);
        assert_eq!(noted(4, true, Some(0x1000), None).ignored, bit);
        assert_eq!(noted(4, false, None, None).refused, bit);
        assert_eq!(noted(4, true, None, None).unclear, bit);
        assert_eq!(noted(4, true, Some(0x3004), None).dragged, Hex(0x2000));
    }

    #[test]
    fn clocks_go_on() {
        let bit = 1 << 32;

        assert_eq!(
            noted(bit, true, Some(bit | 0x1234), Some(0x40)).sticks,
            Hex(bit)
        );
        assert_eq!(noted(bit, true, Some(0x1234), Some(0x40)).ignored, Hex(bit));
        assert_eq!(noted(4, true, Some(0x1234), Some(0x40)).unclear, Hex(4));
    }
}
