// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a guest has to see of its accesses under a policy, written from Documentation/msr-policy.rst.
//!
//! KVM's part is played by a guest of C's: the accesses that reach KVM are made there, too.

use std::fmt;
use std::fs;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::KVM_MSR_EXIT_REASON_INVAL;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_ioctls::VcpuFd;
use kvm_msr_guest::Access;
use kvm_msr_guest::Device;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::RIGHTS;
use kvm_msr_guest::device::uapi::Rule;

/// Exits to user space for all reasons.
pub const ALL_REASONS: u32 =
    KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL;

/// What the guest sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// RDMSR returned this value.
    Value(u64),
    /// WRMSR did not fail.
    Done,
    /// #GP.
    Gp,
    /// An exit to user space, for this reason.
    Exit(u32),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Value(value) => write!(f, "value {value:#x}"),
            Seen::Done => f.write_str("done"),
            Seen::Gp => f.write_str("#GP"),
            Seen::Exit(reason) => write!(f, "exit for reason {reason}"),
        }
    }
}

/// One access.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub access: Access,
    /// By the forced-emulation prefix.
    pub emulated: bool,
    pub index: u32,
    /// What is written.
    pub data: u64,
}

impl Step {
    /// Makes the access, and checks what user space sees of it.
    pub fn make(&self, guest: &mut Guest) -> Result<Seen> {
        let outcome = guest.access(self.access, self.emulated, self.index, self.data)?;

        Ok(match outcome {
            Outcome::Value(value) => Seen::Value(value),
            Outcome::Done => Seen::Done,
            Outcome::UserSpace(exit) => {
                let data = match self.access {
                    Access::Read => 0,
                    Access::Write => self.data,
                };

                ensure!(
                    exit.access == self.access && exit.index == self.index && exit.data == data,
                    "{self:x?} is {exit} to user space"
                );
                Seen::Exit(exit.reason)
            }
            _ if outcome.is_gp() => Seen::Gp,
            _ => bail!("{self:x?}: {outcome}"),
        })
    }
}

/// Why KVM denies an access.
enum Denial {
    Unsupported,
    Invalid,
}

/// KVM without a policy: a guest of C's.
pub struct Kvm(Guest);

impl Kvm {
    /// The guest must not have a filter.
    pub fn new(guest: Guest) -> Result<Self> {
        guest.deflect(KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL)?;
        Ok(Kvm(guest))
    }

    /// The guest's vCPU.
    pub fn vcpu(&self) -> &VcpuFd {
        self.0.vcpu()
    }

    fn access(&mut self, step: Step) -> Result<std::result::Result<Seen, Denial>> {
        Ok(match step.make(&mut self.0)? {
            Seen::Exit(KVM_MSR_EXIT_REASON_UNKNOWN) => Err(Denial::Unsupported),
            Seen::Exit(KVM_MSR_EXIT_REASON_INVAL) => Err(Denial::Invalid),
            seen => Ok(seen),
        })
    }

    /// Makes a write whose value depends on the MSR's value; none if that denies it.
    fn write_masked(
        &mut self,
        step: Step,
        data: impl FnOnce(u64) -> Option<u64>,
    ) -> Result<Option<std::result::Result<Seen, Denial>>> {
        let read = Step {
            access: Access::Read,
            ..step
        };

        match self.access(read)? {
            Ok(Seen::Value(old)) => match data(old) {
                Some(data) => self.access(Step { data, ..step }).map(Some),
                None => Ok(None),
            },
            Ok(seen) => bail!("{read:x?}: {seen}"),
            Err(denial) => Ok(Some(Err(denial))),
        }
    }
}

/// All that decides over a guest's accesses.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The VMM's filter.
    pub filter: Filter,
    /// The reasons for which exits to user space are enabled.
    pub reasons: u32,
    pub rules: Vec<Rule>,
    /// kvm.ko's parameter.
    pub ignore_msrs: bool,
}

impl Model {
    /// What the guest has to see. Whatever reaches KVM is done to `kvm`.
    pub fn see(&self, kvm: &mut Kvm, step: Step) -> Result<Seen> {
        if !self.filter.allows(step.access, step.index) {
            return Ok(self.exit(KVM_MSR_EXIT_REASON_FILTER));
        }

        let by_kvm = match self.rule(uapi::ALWAYS, step) {
            None => kvm.access(step)?,
            Some(rule) => match (rule.action, step.access) {
                (uapi::ALLOW, _) => kvm.access(step)?,
                (uapi::MASK, Access::Write) => {
                    let data = |old| Some(old & !rule.value | step.data & rule.value);

                    match kvm.write_masked(step, data)? {
                        Some(by_kvm) => by_kvm,
                        None => bail!("a masked write that is denied"),
                    }
                }
                (uapi::MATCH, Access::Write) => {
                    let data =
                        |old: u64| ((old ^ step.data) & !rule.value == 0).then_some(step.data);

                    match kvm.write_masked(step, data)? {
                        Some(by_kvm) => by_kvm,
                        None => return Ok(Seen::Gp),
                    }
                }
                _ => return self.act(rule, step.access, KVM_MSR_EXIT_REASON_FILTER),
            },
        };

        match by_kvm {
            Ok(seen) => Ok(seen),
            Err(Denial::Invalid) => Ok(self.exit(KVM_MSR_EXIT_REASON_INVAL)),
            Err(Denial::Unsupported) => match self.rule(uapi::UNSUPPORTED, step) {
                Some(rule) if rule.action != uapi::ALLOW => {
                    self.act(rule, step.access, KVM_MSR_EXIT_REASON_UNKNOWN)
                }
                _ if self.ignore_msrs => Ok(Self::nothing(step.access, 0)),
                _ => Ok(self.exit(KVM_MSR_EXIT_REASON_UNKNOWN)),
            },
        }
    }

    /// The rule that covers an access.
    fn rule(&self, when: u8, step: Step) -> Option<&Rule> {
        let kind = match step.access {
            Access::Read => uapi::READ,
            Access::Write => uapi::WRITE,
        };

        self.rules.iter().find(|rule| {
            rule.when == when
                && rule.access & kind != 0
                && (rule.first..=rule.last).contains(&step.index)
        })
    }

    fn act(&self, rule: &Rule, access: Access, reason: u32) -> Result<Seen> {
        Ok(match rule.action {
            uapi::GP => Seen::Gp,
            uapi::EXIT => self.exit(reason),
            uapi::IGNORE => Self::nothing(access, 0),
            uapi::CONSTANT => Self::nothing(access, rule.value),
            action => bail!("action {action} for {access}"),
        })
    }

    /// A read returns the value, a write is dropped.
    fn nothing(access: Access, value: u64) -> Seen {
        match access {
            Access::Read => Seen::Value(value),
            Access::Write => Seen::Done,
        }
    }

    /// An exit, or #GP if the reason is not enabled.
    fn exit(&self, reason: u32) -> Seen {
        if self.reasons & reason != 0 {
            Seen::Exit(reason)
        } else {
            Seen::Gp
        }
    }
}

/// Policies for one MSR: none, and each action with each `when` and access that it may have. Rules
/// for the MSR's neighbours must not matter.
pub fn policies(index: u32) -> Vec<Vec<Rule>> {
    let mut policies = vec![vec![]];

    for action in uapi::ALLOW..=uapi::MATCH {
        for when in [uapi::ALWAYS, uapi::UNSUPPORTED] {
            for access in [uapi::READ, uapi::WRITE, uapi::READ | uapi::WRITE] {
                let value = match action {
                    uapi::CONSTANT => 0x1122_3344_5566_7788,
                    uapi::MASK | uapi::MATCH => MASK,
                    _ => 0,
                };

                if needs_value(action) && (access != uapi::WRITE || when != uapi::ALWAYS) {
                    continue;
                }
                let neighbour = |at| Rule::new(at, at, uapi::READ | uapi::WRITE, when, uapi::GP, 0);

                policies.push(vec![
                    neighbour(index - 1),
                    Rule::new(index, index, access, when, action, value),
                    neighbour(index + 1),
                ]);
            }
        }
    }
    policies
}

/// The bits that the rules of [`policies`] let writes change.
pub const MASK: u64 = 0x0000_0000_00ff_00ff;

/// Whether an action depends on the MSR's value.
pub fn needs_value(action: u8) -> bool {
    matches!(action, uapi::MASK | uapi::MATCH)
}

/// Two guests: one with policies, and one of C's without, in which KVM's part is played.
pub struct Pair {
    pub guest: Guest,
    pub device: Device,
    pub kvm: Kvm,
    /// The bits of values that the guests read.
    pub read_mask: u64,
}

impl Pair {
    /// Both guests must be set up alike. The first one is the engine's.
    pub fn new(guest: Guest, by_c: Guest) -> Result<Self> {
        Ok(Pair {
            device: Device::attached(guest.vm(), RIGHTS)?,
            guest,
            kvm: Kvm::new(by_c)?,
            read_mask: u64::MAX,
        })
    }

    /// Makes an access, and compares it with the model.
    pub fn compare(&mut self, model: &Model, step: Step) -> Result<Seen> {
        let masked = |seen| match seen {
            Seen::Value(value) => Seen::Value(value & self.read_mask),
            seen => seen,
        };
        let expected = masked(model.see(&mut self.kvm, step)?);
        let seen = {
            let _ignored = IgnoreMsrs::new(model.ignore_msrs)?;

            masked(step.make(&mut self.guest)?)
        };

        ensure!(
            seen == expected,
            "{step:x?}: {seen} instead of {expected} (exits for reasons {}, ignore_msrs {})",
            model.reasons,
            model.ignore_msrs
        );
        Ok(seen)
    }
}

/// kvm.ko's parameter `ignore_msrs` is Y as long as this exists.
pub struct IgnoreMsrs(bool);

impl IgnoreMsrs {
    /// Sets it, or leaves it alone.
    pub fn new(ignore: bool) -> Result<Self> {
        if ignore {
            Self::set("Y").context("set ignore_msrs")?;
        }
        Ok(IgnoreMsrs(ignore))
    }

    fn set(value: &str) -> std::io::Result<()> {
        fs::write("/sys/module/kvm/parameters/ignore_msrs", value)
    }
}

impl Drop for IgnoreMsrs {
    fn drop(&mut self) {
        if self.0 {
            let _ = Self::set("N");
        }
    }
}
