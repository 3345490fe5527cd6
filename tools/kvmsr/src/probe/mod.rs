// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What can be read and written of an MSR, bit by bit, by user space and by the guest, before the
//! vCPU has run and after.
//!
//! A bit is tried by writing the value that is there with this one bit changed. Before the next
//! one the value is restored, or if that can't be made sure of, the vCPU replaced, so that no bit
//! is tried on what another has left.

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

/// What `kvmsr probe` found.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProbeReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The vCPU's CPUID, as the command line has it.
    pub cpu: String,
    /// Whether the VM has an in-kernel irqchip.
    pub irqchip: bool,
    /// The MSRs, in the order in which they were asked for.
    pub msrs: Vec<Probed>,
}

/// An MSR, and what can be done with it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Probed {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What user space can do: `KVM_GET_MSRS` and `KVM_SET_MSRS`.
    pub user: Stages,
    /// What the guest can do: RDMSR and WRMSR.
    pub guest: Stages,
    /// The CPUID bits that accesses hang on.
    pub needs: Vec<Need>,
    /// What refuses the rest, as far as it can be told.
    pub causes: Vec<Cause>,
}

/// Before the vCPU has run, and after.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stages {
    /// On a vCPU that never ran. Of the guest: with the vCPU's very first instruction; not tried
    /// for MSRs that KVM does not know, and if there are hundreds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_run: Option<Access>,
    /// On a vCPU that has run.
    pub after_run: Access,
}

/// What one can do at one time.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Access {
    /// Whether a read gives a value.
    pub readable: bool,
    /// That value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Hex<u64>>,
    /// Whether the value changes by itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
    /// Whether a write goes through: of the value that is there (0 where it can't be read), or of
    /// that with some bit changed.
    pub writable: bool,
    /// What each bit does; none if that was not tried, as KVM does not know the MSR at all, or
    /// too many vCPUs would be needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<BitMasks>,
    /// Why a read gives no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_refused: Option<Refusal>,
    /// Why a write of the value that is there fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_refused: Option<Refusal>,
}

/// What becomes of each bit that a write changes. Every bit is in one mask of these, and may be in
/// `dragged` as well.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BitMasks {
    /// It is then as written.
    pub sticks: Hex<u64>,
    /// The write goes through, and the bit is as before.
    pub ignored: Hex<u64>,
    /// The write fails.
    pub refused: Hex<u64>,
    /// The write goes through, and what it did can't be told: the MSR can't be read, or moves.
    pub unclear: Hex<u64>,
    /// KVM left the guest at the write, and the vCPU was of no more use.
    pub left: Hex<u64>,
    /// Not tried, as it may hang the machine.
    pub untried: Hex<u64>,
    /// Bits that changed along with another one.
    pub dragged: Hex<u64>,
}

impl BitMasks {
    /// Bits with which a write goes through.
    pub fn taken(&self) -> u64 {
        self.sticks.0 | self.ignored.0 | self.unclear.0
    }

    /// Notes what became of a bit. Of an MSR that moves, `pace` says how far it goes from one read
    /// to the next.
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
                // A clock that was set goes on from the new value, else from the old one. Low
                // bits pass by in the meantime, which may be long if others have the CPU.
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

/// Who makes an access.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// User space, by an ioctl.
    User,
    /// The guest, by an instruction.
    Guest,
}

/// When it is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// The vCPU never ran.
    BeforeRun,
    /// It has run.
    AfterRun,
}

/// Whether it is a read or a write.
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
    /// What one can do at one time; none if it was not tried.
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
    /// Whether a read gives a value, or a write goes through.
    pub fn allows(&self, what: What) -> bool {
        match what {
            What::Read => self.readable,
            What::Write => self.writable,
        }
    }

    /// Why a read or a write as a whole fails.
    pub fn refusal(&self, what: What) -> Option<&Refusal> {
        match what {
            What::Read => self.read_refused.as_ref(),
            What::Write => self.write_refused.as_ref(),
        }
    }
}

/// How much is tried with the guest's first instruction, for which each access needs a vCPU of its
/// own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Thoroughness {
    /// Nothing.
    Quick,
    /// A read, and a write of the value that is there.
    Normal,
    /// Each bit as well.
    Thorough,
}

/// Finds out what can be done with MSRs. `progress` is called after each one.
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
