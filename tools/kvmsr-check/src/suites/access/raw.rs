// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The reference: a guest and ioctls that share no code with kvmsr.

use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::KVM_MSR_EXIT_REASON_INVAL;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;

/// KVM_X86_REG_MSR(0).
const ONE_REG_MSR: u64 = 0x2030_0002_0000_0000;

/// The initiator of an access, as in `kvmsr --by`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    Ioctl,
    OneReg,
    Guest,
}

impl By {
    pub const ALL: [By; 3] = [By::Ioctl, By::OneReg, By::Guest];

    pub fn name(self) -> &'static str {
        match self {
            By::Ioctl => "ioctl",
            By::OneReg => "one-reg",
            By::Guest => "guest",
        }
    }
}

/// The kind of refusal, as in kvmsr's JSON.
pub type Refused = &'static str;

/// KVM_RUN failed.
pub const LEFT: Refused = "left";

/// A VM with the same setup as kvmsr's VMs.
pub struct Raw {
    kvm: Kvm,
    guest: Guest,
    has_run: bool,
    refusals: u64,
}

impl Raw {
    /// A VM whose vCPU has never run, or has run once.
    pub fn new(has_run: bool) -> Result<Self> {
        let kvm = Kvm::new()?;
        let guest = fresh(&kvm, has_run)?;

        Ok(Raw {
            kvm,
            guest,
            has_run,
            refusals: 0,
        })
    }

    /// A new VM.
    pub fn renew(&mut self) -> Result<()> {
        self.guest = fresh(&self.kvm, self.has_run)?;
        Ok(())
    }

    pub fn get(&self, index: u32) -> Result<Option<u64>> {
        Ok(msrs::get(self.guest.vcpu(), index)?)
    }

    pub fn set(&self, index: u32, value: u64) -> Result<bool> {
        Ok(msrs::set(self.guest.vcpu(), index, value)?)
    }

    /// Reads an MSR. If KVM_RUN fails, creates a new VM.
    pub fn read(&mut self, by: By, index: u32) -> Result<Result<u64, Refused>> {
        let id = ONE_REG_MSR | u64::from(index);

        match by {
            By::Ioctl => Ok(self.get(index)?.ok_or("refused")),
            By::OneReg => match ioctl::get_one_reg(self.guest.vcpu(), id) {
                Ok(value) => Ok(Ok(value)),
                Err(Errno::EINVAL) => Ok(Err("refused")),
                Err(errno) => bail!("KVM_GET_ONE_REG: {errno}"),
            },
            By::Guest => {
                let outcome = self.guest.rdmsr(index)?;

                match self.end(outcome)? {
                    Ok(Outcome::Value(value)) => Ok(Ok(value)),
                    Ok(outcome) => bail!("RDMSR of {index:#x}: {outcome}"),
                    Err(refused) => Ok(Err(refused)),
                }
            }
        }
    }

    /// Writes an MSR, likewise.
    pub fn write(&mut self, by: By, index: u32, value: u64) -> Result<Result<(), Refused>> {
        let id = ONE_REG_MSR | u64::from(index);

        match by {
            By::Ioctl => Ok(self.set(index, value)?.then_some(()).ok_or("refused")),
            By::OneReg => match ioctl::set_one_reg(self.guest.vcpu(), id, value) {
                Ok(()) => Ok(Ok(())),
                Err(Errno::EINVAL) => Ok(Err("refused")),
                Err(errno) => bail!("KVM_SET_ONE_REG: {errno}"),
            },
            By::Guest => {
                let outcome = self.guest.wrmsr(index, value)?;

                Ok(self.end(outcome)?.map(|_| ()))
            }
        }
    }

    /// Whether the guest can still handle #GP: with some MSRs, KVM writes to memory that may
    /// contain the guest's descriptor tables.
    pub fn is_sound(&mut self) -> Result<bool> {
        const NOBODY: u32 = 0xdead_0000;
        let outcome = self.guest.rdmsr(NOBODY)?;

        Ok(match outcome {
            Outcome::UserSpace(_) => {
                self.guest.answer(0, 1);
                self.guest.run().is_ok_and(|end| end.is_gp())
            }
            _ => outcome.is_gp(),
        })
    }

    /// Completes an access, and returns its refusal, if any.
    fn end(&mut self, outcome: Outcome) -> Result<Result<Outcome, Refused>> {
        match outcome {
            Outcome::Value(_) | Outcome::Done => Ok(Ok(outcome)),
            Outcome::UserSpace(exit) => {
                self.guest.answer(0, 1);
                // Running the guest for every #GP would double the time.
                self.refusals += 1;
                if self.refusals.is_multiple_of(16) {
                    let end = self.guest.run()?;

                    ensure!(end.is_gp(), "a failed access gave {end}");
                }
                Ok(Err(match exit.reason {
                    KVM_MSR_EXIT_REASON_UNKNOWN => "unknown",
                    KVM_MSR_EXIT_REASON_INVAL => "invalid",
                    KVM_MSR_EXIT_REASON_FILTER => "filter",
                    reason => bail!("exit reason {reason:#x}"),
                }))
            }
            _ if outcome.is_gp() => Ok(Err("unsaid")),
            Outcome::Exception { .. } => Ok(Err("exception")),
            Outcome::Exit(_) | Outcome::Failed(_) => {
                self.renew()?;
                Ok(Err(LEFT))
            }
            Outcome::Interrupted | Outcome::Port(_) => bail!("KVM_RUN: {outcome}"),
        }
    }
}

fn fresh(kvm: &Kvm, has_run: bool) -> Result<Guest> {
    let mut guest = Guest::new(kvm, Options::new(Engine::Any))?;

    guest.deflect(
        KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_FILTER,
    )?;
    if has_run {
        guest.start(Stub::Nop, 0, 0, 1)?;
        let outcome = guest.run()?;

        ensure!(outcome == Outcome::Done, "the guest gave {outcome}");
    }
    Ok(guest)
}
