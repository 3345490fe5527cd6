// SPDX-License-Identifier: GPL-2.0

//! The order of a policy's rules: sorted keys, and the search in them.
//!
//! Rules stay where user space put them. Each has a key of 64 bits, and only the keys are sorted,
//! which is much faster than to sort the rules.

use super::{
    overlap::Sweep,
    rule::{
        kind,
        Rule,
        When, //
    },
    MAX_RULES,
};
use crate::engine::access::Access;

const NUMBER_BITS: u32 = MAX_RULES.trailing_zeros();
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;
const _: () = assert!(MAX_RULES.is_power_of_two());

const NUMBER: u32 = NUMBER_BITS;
const KINDS: u32 = NUMBER + NUMBER_BITS;
const FIRST: u32 = KINDS + 2;
const WHEN: u32 = FIRST + u32::BITS;

/// A rule's key. Keys are sorted by the rule's `when`, its first index, and its number, which is
/// its position in user space's list.
///
/// Reads and writes can have rules of their own that overlap each other. So the last rule that
/// begins at or below an index may be for the wrong kind of access. For this case, the lowest bits
/// of a key hold the number of another rule: the last one before it that has the kind of access
/// that this rule lacks. If there is none, it is the number of any rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64);

impl Key {
    /// A key above all keys of rules.
    const UNUSED: Self = Self(u64::MAX);

    #[inline]
    fn new(rule: &Rule, number: usize) -> Self {
        let number = number as u64 & NUMBER_MASK;

        Self(
            (rule.when as u64) << WHEN
                | u64::from(rule.first) << FIRST
                | u64::from(rule.kinds) << KINDS
                | number << NUMBER
                | number,
        )
    }

    /// The highest key of a rule that begins at or below an index.
    #[inline]
    fn highest(when: When, index: u32) -> Self {
        Self((when as u64) << WHEN | u64::from(index) << FIRST | ((1 << FIRST) - 1))
    }

    #[inline]
    fn has(self, access: Access) -> bool {
        self.0 >> KINDS & u64::from(kind(access)) != 0
    }

    /// The number of the rule.
    #[inline]
    fn number(self) -> usize {
        (self.0 >> NUMBER & NUMBER_MASK) as usize
    }

    #[inline]
    fn other(self) -> usize {
        (self.0 & NUMBER_MASK) as usize
    }

    #[inline]
    fn set_other(&mut self, number: usize) {
        self.0 = self.0 & !NUMBER_MASK | number as u64 & NUMBER_MASK;
    }

    /// The key's digits for the sort, from the lowest on: together, `when` and the first index.
    #[inline]
    fn digit(self, place: u32) -> usize {
        (self.0 >> (FIRST + place * DIGIT_BITS)) as usize % DIGITS
    }
}

const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;
const PLACES: u32 = 3;
const _: () = assert!(FIRST + PLACES * DIGIT_BITS == WHEN + 1);

/// The sorted keys.
pub(super) struct Order {
    /// The keys of all rules, followed by [`Key::UNUSED`].
    keys: [Key; MAX_RULES],
}

/// Memory that [`super::Policy::compile`] needs for the time of the call. Zeroed memory is valid.
pub(crate) struct Scratch {
    keys: [Key; MAX_RULES],
    counts: [[u16; DIGITS]; PLACES as usize],
}

impl Scratch {
    /// Zeroed memory. It is too large for a kernel's stack, so the module allocates it instead.
    #[cfg(any(not(MODULE), CONFIG_KVM_MSR_KUNIT_TEST))]
    pub(crate) const ZEROED: Self = Self {
        keys: [Key(0); MAX_RULES],
        counts: [[0; DIGITS]; PLACES as usize],
    };
}

impl Order {
    /// See [`Scratch::ZEROED`].
    #[cfg(any(not(MODULE), CONFIG_KVM_MSR_KUNIT_TEST))]
    pub(super) const ZEROED: Self = Self {
        keys: [Key(0); MAX_RULES],
    };

    /// Computes the keys of all rules and sorts them.
    pub(super) fn sort(&mut self, rules: &[Rule], scratch: &mut Scratch) {
        let count = rules.len().min(MAX_RULES);

        // Most lists are sorted, e.g. those of programs that read the rules and change some.
        if !compute(&mut self.keys, rules) {
            self.sort_keys(count, scratch);
        }
        if let Some(unused) = self.keys.get_mut(count..) {
            unused.fill(Key::UNUSED);
        }
    }

    /// Sorts the first `count` keys, in a number of steps that does not depend on their order.
    ///
    /// This is a radix sort: for each digit, from the lowest on, it moves all keys to their
    /// position in the order of that digit, and keeps the order of keys with the same digit.
    fn sort_keys(&mut self, count: usize, scratch: &mut Scratch) {
        let Scratch { keys, counts } = scratch;
        let [low, middle, high] = counts;

        low.fill(0);
        middle.fill(0);
        high.fill(0);
        for key in self.keys.iter().take(count) {
            for (place, counts) in (0..).zip([&mut *low, &mut *middle, &mut *high]) {
                let count = &mut counts[key.digit(place)];

                *count = count.wrapping_add(1);
            }
        }
        distribute(&self.keys, keys, count, low, 0);
        distribute(keys, &mut self.keys, count, middle, 1);
        distribute(&self.keys, keys, count, high, 2);
        self.keys = *keys;
    }

    /// The keys of all rules for one [`When`], in order. There are `count` rules in all.
    fn keys_mut(&mut self, when: When, count: usize) -> &mut [Key] {
        let keys = self.keys.get_mut(..count).unwrap_or(&mut []);
        let always = keys.partition_point(|key| *key <= Key::highest(When::Always, u32::MAX));

        match when {
            When::Always => keys.get_mut(..always),
            When::Unsupported => keys.get_mut(always..),
        }
        .unwrap_or(&mut [])
    }

    /// Visits the rules for one [`When`] in order, and sets the numbers of the other rules in their
    /// keys. Stops at a rule that overlaps one before it, and returns false then.
    #[inline(never)]
    pub(super) fn link(
        &mut self,
        rules: &[Rule],
        when: When,
        mut visit: impl FnMut(&Rule),
    ) -> bool {
        let mut sweep = Sweep::default();

        for key in self.keys_mut(when, rules.len()) {
            let number = key.number();
            let Some(rule) = rules.get(number) else {
                return false;
            };
            let Some(other) = sweep.visit(rule, number) else {
                return false;
            };

            key.set_other(other);
            visit(rule);
        }
        true
    }

    /// The numbers of the rules, in order. There are `count` rules.
    pub(super) fn numbers(&self, count: usize) -> impl Iterator<Item = usize> + '_ {
        self.keys.iter().take(count).map(|key| key.number())
    }

    /// Returns the number of the only rule that may cover an access. The caller has to check that
    /// this rule exists and covers it.
    ///
    /// The guest chooses the index. The search finds the bits of a position from the highest on,
    /// so the position is in bounds even if the CPU mispredicts a comparison.
    #[inline]
    pub(super) fn find(&self, when: When, access: Access, index: u32) -> usize {
        let highest = Key::highest(when, index);
        let mut position = 0;
        let mut bit = MAX_RULES / 2;

        while bit > 0 {
            let higher = (position | bit) % MAX_RULES;

            if self.keys[higher] <= highest {
                position = higher;
            }
            bit /= 2;
        }
        let key = self.keys[position % MAX_RULES];

        if key.has(access) {
            key.number()
        } else {
            key.other()
        }
    }
}

/// Computes the keys of all rules, at most [`MAX_RULES`], in their order. Returns whether the keys are
/// sorted.
///
/// A function of its own, as [`Order::link`] is, so that the loop has the registers to itself.
#[inline(never)]
fn compute(keys: &mut [Key; MAX_RULES], rules: &[Rule]) -> bool {
    let mut last = Key(0);
    let mut is_sorted = true;

    for (number, rule) in rules.iter().enumerate() {
        let key = Key::new(rule, number);

        keys[number % MAX_RULES] = key;
        is_sorted &= last < key;
        last = key;
    }
    is_sorted
}

/// Moves the first `count` keys of `from` to their positions in the order of a digit. `counts` has
/// the number of keys with each digit.
#[inline(never)]
fn distribute(
    from: &[Key; MAX_RULES],
    to: &mut [Key; MAX_RULES],
    count: usize,
    counts: &mut [u16; DIGITS],
    place: u32,
) {
    let mut position = 0u16;

    for count in counts.iter_mut() {
        let start = position;

        position = position.wrapping_add(*count);
        *count = start;
    }
    for key in from.get(..count).unwrap_or(&[]) {
        let position = &mut counts[key.digit(place)];

        to[usize::from(*position) % MAX_RULES] = *key;
        *position = position.wrapping_add(1);
    }
}
