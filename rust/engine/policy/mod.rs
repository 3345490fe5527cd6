// SPDX-License-Identifier: GPL-2.0

//! Policies: what a VM's guest may do with MSRs, beyond what the filter can express.
//!
//! Source: `rust/uapi/kvm-msr.h`, and `Documentation/msr-policy.rst`.
//!
//! A policy is compiled when it is set. The rules get an order ([`order`]), in which a lookup takes
//! a binary search. Most accesses need no search: a bitmap says for all indices in pages with MSRs
//! whether a rule covers an access ([`bitmap`]).

mod bitmap;
mod order;
mod overlap;
mod rule;

// Only the module and the tests name some of these.
#[allow(unused_imports)]
pub(crate) use self::{
    bitmap::Covered,
    order::Scratch,
    rule::{
        Action,
        RawRule,
        Rule,
        RuleError,
        When,
        ACTION_ALLOW,
        ACTION_CONSTANT,
        ACTION_EXIT,
        ACTION_GP,
        ACTION_IGNORE,
        ACTION_MASK,
        ACTION_MATCH,
        READ,
        WRITE, //
    },
};

use self::{
    bitmap::{
        Bitmap,
        Pages, //
    },
    order::Order, //
};
use super::{
    access::Access,
    registers::Location, //
};

/// The maximum number of rules in a policy (`KMSR_MAX_RULES`).
pub(crate) const MAX_RULES: usize = 4096;

const WHENS: [When; 2] = [When::Always, When::Unsupported];

/// What a policy is compiled to.
///
/// Zeroed memory is valid, but a policy has to be compiled before lookups.
pub(crate) struct Compiled {
    bitmap: Bitmap,
    order: Order,
}

impl Compiled {
    /// Zeroed memory. It is too large for a kernel's stack, so the module allocates it instead.
    #[cfg(any(not(MODULE), CONFIG_KVM_MSR_KUNIT_TEST))]
    pub(crate) const ZEROED: Self = Self {
        bitmap: Bitmap::ZEROED,
        order: Order::ZEROED,
    };
}

/// The memory of a policy, which the caller allocates.
pub(crate) trait Storage {
    /// The rules, in user space's order.
    fn rules(&self) -> &[Rule];
    /// What the rules are compiled to.
    fn compiled(&self) -> &Compiled;
    /// Both, to compile the policy. The second must be zeroed.
    fn parts(&mut self) -> (&[Rule], &mut Compiled);
    /// Returns the rule at a position, or [`None`] past the end.
    ///
    /// Guests control the position, so an implementation must not load past the end, not even
    /// speculatively.
    fn rule(&self, position: usize) -> Option<&Rule>;
}

/// Why rules are not a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are more rules than [`MAX_RULES`].
    TooMany,
    /// The rule with this number overlaps a rule with a lower number ([`RuleError::Overlap`]). All
    /// rules with lower numbers don't overlap.
    Overlap(usize),
}

/// A compiled policy.
///
/// # Invariants
///
/// `compiled()` of the storage was compiled from its rules.
pub(crate) struct Policy<S> {
    storage: S,
}

impl<S: Storage> Policy<S> {
    /// Compiles a policy from the rules in `storage`.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) fn compile(mut storage: S, scratch: &mut Scratch) -> Result<Self, Refused> {
        let (rules, Compiled { bitmap, order }) = storage.parts();

        if rules.len() > MAX_RULES {
            return Err(Refused::TooMany);
        }
        order.sort(rules, scratch);

        let is_disjoint = WHENS.into_iter().all(|when| {
            let mut pages = Pages::new();

            order.link(rules, when, |rule| bitmap.set(rule, &mut pages))
        });

        if !is_disjoint {
            let number = overlap::find(rules, || order.numbers(rules.len()));

            return Err(Refused::Overlap(number));
        }
        // INVARIANT: It was compiled just now.
        Ok(Self { storage })
    }

    /// The accesses to indices in pages with MSRs that rules of one [`When`] cover. Rules with
    /// [`Action::Allow`] don't count.
    #[inline(always)]
    pub(crate) fn covered(&self, when: When) -> &Covered {
        self.storage.compiled().bitmap.covered(when)
    }

    /// Returns what a rule does with an access, or [`None`] if no rule covers it, or a rule with
    /// [`Action::Allow`].
    #[inline]
    pub(crate) fn action(&self, when: When, access: Access, index: u32) -> Option<Action> {
        let location = Location::of(index);

        if location.is_of(index) && !self.covered(when).has(location, index, access) {
            return None;
        }
        self.search(when, access, index)
    }

    /// The number of rules.
    pub(crate) fn len(&self) -> usize {
        self.storage.rules().len()
    }

    /// The rules, sorted by `when` and first index. Rules for reads and for writes can have both in
    /// common; these are in user space's order.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.storage.rules();
        let numbers = self.storage.compiled().order.numbers(rules.len());

        numbers.filter_map(|number| rules.get(number))
    }

    /// Searches the rules.
    #[inline(never)]
    fn search(&self, when: When, access: Access, index: u32) -> Option<Action> {
        let number = self.storage.compiled().order.find(when, access, index);
        let rule = self.storage.rule(number)?;

        (rule.covers(when, access, index) && rule.action != Action::Allow).then_some(rule.action)
    }
}
