// SPDX-License-Identifier: GPL-2.0

//! The rules of a policy: `struct kmsr_rule`, checked.
//!
//! Source: `rust/uapi/kvm-msr.h`, and `Documentation/msr-policy.rst`.

use super::super::{
    access::Access,
    filter::X2APIC, //
};

/// The rule applies to reads (`KMSR_ACCESS_READ`).
pub(crate) const READ: u8 = 1 << 0;

/// The rule applies to writes (`KMSR_ACCESS_WRITE`).
pub(crate) const WRITE: u8 = 1 << 1;

/// `KMSR_ACTION_ALLOW`
pub(crate) const ACTION_ALLOW: u8 = 0;
/// `KMSR_ACTION_GP`
pub(crate) const ACTION_GP: u8 = 1;
/// `KMSR_ACTION_EXIT`
pub(crate) const ACTION_EXIT: u8 = 2;
/// `KMSR_ACTION_IGNORE`
pub(crate) const ACTION_IGNORE: u8 = 3;
/// `KMSR_ACTION_CONSTANT`
pub(crate) const ACTION_CONSTANT: u8 = 4;
/// `KMSR_ACTION_MASK`
pub(crate) const ACTION_MASK: u8 = 5;
/// `KMSR_ACTION_MATCH`
pub(crate) const ACTION_MATCH: u8 = 6;

/// When a rule applies to an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before KVM handles the access (`KMSR_WHEN_ALWAYS`).
    Always,
    /// If KVM has no such MSR for the vCPU (`KMSR_WHEN_UNSUPPORTED`).
    Unsupported,
}

/// What a rule does with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing, as if no rule covered the access.
    Allow,
    /// The guest gets #GP.
    GeneralProtection,
    /// Exit to user space, or #GP if user space did not enable that.
    Exit,
    /// Reads return 0, writes are dropped.
    Ignore,
    /// Reads return this value, writes are dropped.
    Constant(u64),
    /// Writes change only these bits.
    Mask(u64),
    /// A write that changes other bits than these is #GP.
    Match(u64),
}

impl Action {
    /// Whether the action is only for writes, and only before KVM handles the access: it needs the
    /// MSR's current value.
    fn needs_value(self) -> bool {
        matches!(self, Self::Mask(_) | Self::Match(_))
    }
}

/// What is wrong with a rule, `KMSR_RULE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleError {
    /// `first` is above `last`.
    Order = 1,
    /// `access` is 0 or has undefined bits.
    Access = 2,
    /// `when` is undefined.
    When = 3,
    /// `action` is undefined, or not one for this access or `when`.
    Action = 4,
    /// `value` is not 0, but the action does not use it.
    Value = 5,
    /// A reserved member is not 0.
    Reserved = 6,
    /// The rule covers an MSR of the x2APIC.
    X2apic = 7,
    /// The rule overlaps an earlier rule.
    Overlap = 8,
}

/// The members of `struct kmsr_rule`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawRule {
    pub(crate) first: u32,
    pub(crate) last: u32,
    /// [`READ`], [`WRITE`] or both.
    pub(crate) access: u8,
    /// The number of a [`When`].
    pub(crate) when: u8,
    /// `ACTION_*`
    pub(crate) action: u8,
    /// All reserved members, ORed.
    pub(crate) reserved: u32,
    pub(crate) value: u64,
}

/// A valid rule.
///
/// # Invariants
///
/// `first` is not above `last`. `kinds` is [`READ`], [`WRITE`] or both. [`Action::Mask`] and
/// [`Action::Match`] are only in rules for [`WRITE`] and [`When::Always`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) kinds: u8,
    pub(super) when: When,
    pub(super) action: Action,
}

impl Rule {
    /// Checks a rule. Whether it overlaps others is checked by [`super::Policy::compile`].
    ///
    /// # Errors
    ///
    /// The first error that applies, in the order of [`RuleError`].
    pub(crate) fn new(raw: &RawRule) -> Result<Self, RuleError> {
        let &RawRule {
            first, last, value, ..
        } = raw;

        if first > last {
            return Err(RuleError::Order);
        }
        if raw.access == 0 || raw.access & !(READ | WRITE) != 0 {
            return Err(RuleError::Access);
        }
        let when = match raw.when {
            0 => When::Always,
            1 => When::Unsupported,
            _ => return Err(RuleError::When),
        };
        let action = match raw.action {
            ACTION_ALLOW => Action::Allow,
            ACTION_GP => Action::GeneralProtection,
            ACTION_EXIT => Action::Exit,
            ACTION_IGNORE => Action::Ignore,
            ACTION_CONSTANT => Action::Constant(value),
            ACTION_MASK => Action::Mask(value),
            ACTION_MATCH => Action::Match(value),
            _ => return Err(RuleError::Action),
        };
        if action.needs_value() && (raw.access != WRITE || when != When::Always) {
            return Err(RuleError::Action);
        }
        let rule = Self {
            first,
            last,
            kinds: raw.access,
            when,
            action,
        };

        if rule.raw().value != value {
            return Err(RuleError::Value);
        }
        if raw.reserved != 0 {
            return Err(RuleError::Reserved);
        }
        if first <= *X2APIC.end() && last >= *X2APIC.start() {
            return Err(RuleError::X2apic);
        }
        // INVARIANT: All of it was checked above.
        Ok(rule)
    }

    /// The rule as user space passes it.
    pub(crate) fn raw(&self) -> RawRule {
        let (action, value) = match self.action {
            Action::Allow => (ACTION_ALLOW, 0),
            Action::GeneralProtection => (ACTION_GP, 0),
            Action::Exit => (ACTION_EXIT, 0),
            Action::Ignore => (ACTION_IGNORE, 0),
            Action::Constant(value) => (ACTION_CONSTANT, value),
            Action::Mask(value) => (ACTION_MASK, value),
            Action::Match(value) => (ACTION_MATCH, value),
        };

        RawRule {
            first: self.first,
            last: self.last,
            access: self.kinds,
            when: self.when as u8,
            action,
            reserved: 0,
            value,
        }
    }

    /// Whether the rule covers an access.
    #[inline]
    pub(super) fn covers(&self, when: When, access: Access, index: u32) -> bool {
        self.when == when
            && self.kinds & kind(access) != 0
            && self.first <= index
            && index <= self.last
    }
}

/// [`READ`] or [`WRITE`].
#[inline]
pub(super) const fn kind(access: Access) -> u8 {
    match access {
        Access::Read => READ,
        Access::Write => WRITE,
    }
}
