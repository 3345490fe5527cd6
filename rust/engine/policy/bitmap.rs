// SPDX-License-Identifier: GPL-2.0

//! Which accesses are covered by rules, as 32-bit words, for all indices in pages with MSRs.

use super::rule::{
    Action,
    Rule,
    When,
    READ,
    WRITE, //
};
use crate::engine::{
    access::Access,
    registers::Location, //
};

const WORD_BITS: u32 = u32::BITS;
const WORDS: usize = Location::COUNT / WORD_BITS as usize;

/// The first and last index of a page with MSRs.
type Page = (u32, u32);

/// The position of the word with a location's bit.
#[inline(always)]
fn word_of(location: Location) -> usize {
    location.position() / WORD_BITS as usize
}

/// A set of accesses to indices in pages with MSRs: for each [`Access`], the words of all blocks of
/// 32 indices.
pub(crate) struct Covered([[u32; WORDS]; 2]);

impl Covered {
    /// All accesses.
    // The host tests have no use for it.
    #[allow(dead_code)]
    pub(crate) const ALL: Self = Self([[u32::MAX; WORDS]; 2]);

    /// Whether an access is in the set, given the location of its index.
    #[inline(always)]
    pub(crate) fn has(&self, location: Location, index: u32, access: Access) -> bool {
        self.0[access as usize][word_of(location)] >> (index % WORD_BITS) & 1 != 0
    }
}

/// The accesses that rules other than [`Action::Allow`] cover, for each [`When`].
pub(super) struct Bitmap([Covered; 2]);

impl Bitmap {
    /// A bitmap for no rules.
    #[cfg(any(not(MODULE), CONFIG_KVM_MSR_KUNIT_TEST))]
    pub(super) const ZEROED: Self = Self([const { Covered([[0; WORDS]; 2]) }; 2]);

    /// The accesses that rules of one [`When`] cover.
    #[inline(always)]
    pub(super) fn covered(&self, when: When) -> &Covered {
        &self.0[when as usize]
    }

    /// Sets the bits of all accesses that a rule covers. The rules of one [`When`] must come in
    /// order of their first index, with the same `pages`, which begins as [`Pages::new`].
    #[inline]
    pub(super) fn set(&mut self, rule: &Rule, pages: &mut Pages) {
        while pages.last < rule.first {
            if !pages.advance() {
                return;
            }
        }
        if rule.last < pages.first || matches!(rule.action, Action::Allow) {
            return;
        }
        self.set_in_page(rule, rule.first.max(pages.first), rule.last.min(pages.last));
        if rule.last > pages.last {
            self.set_in_more(rule, pages.rest);
        }
    }

    /// Sets the bits for the second page and later ones that a rule covers.
    #[inline(never)]
    fn set_in_more(&mut self, rule: &Rule, pages: &[Page]) {
        for &(first, last) in pages.iter().take_while(|(first, _)| *first <= rule.last) {
            self.set_in_page(rule, first, rule.last.min(last));
        }
    }

    /// Sets the bits for indices of one page.
    #[inline]
    fn set_in_page(&mut self, rule: &Rule, first: u32, last: u32) {
        let block = word_of(Location::of(first));
        let more = (last / WORD_BITS).wrapping_sub(first / WORD_BITS) as usize;
        let first_mask = u32::MAX << (first % WORD_BITS);
        let last_mask = u32::MAX >> (WORD_BITS - 1 - last % WORD_BITS);
        let Covered([reads, writes]) = &mut self.0[rule.when as usize];

        if more == 0 {
            let mask = first_mask & last_mask;

            reads[block] |= if rule.kinds & READ != 0 { mask } else { 0 };
            writes[block] |= if rule.kinds & WRITE != 0 { mask } else { 0 };
            return;
        }
        for (words, kind) in [(reads, READ), (writes, WRITE)] {
            if rule.kinds & kind == 0 {
                continue;
            }
            // The blocks of a page are adjacent. The remainder changes nothing, but keeps the last
            // block in bounds if the CPU mispredicts that the page has indices of the rule.
            let last = block.wrapping_add(more) % WORDS;

            if let Some([first, middle @ .., last]) = words.get_mut(block..=last) {
                *first |= first_mask;
                middle.fill(u32::MAX);
                *last |= last_mask;
            }
        }
    }
}

/// The first page with MSRs that some of the remaining rules can cover, and those above it.
pub(super) struct Pages {
    first: u32,
    last: u32,
    rest: &'static [Page],
}

impl Pages {
    #[inline]
    pub(super) fn new() -> Self {
        let mut pages = Self {
            first: 0,
            last: 0,
            rest: Location::PAGES,
        };

        pages.advance();
        pages
    }

    /// Goes on to the next page, and returns whether there is one.
    fn advance(&mut self) -> bool {
        let [(first, last), rest @ ..] = self.rest else {
            return false;
        };

        *self = Self {
            first: *first,
            last: *last,
            rest,
        };
        true
    }
}
