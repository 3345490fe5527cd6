// SPDX-License-Identifier: GPL-2.0

//! Finds the declaration of an index.
//!
//! Guests and user space choose indices, so every load must be in bounds for any index, even if the
//! CPU mispredicts a branch (Spectre variant 1). A multiplication, a shift and a mask turn an index
//! into a [`Location`] in the pages with declarations. A comparison then only decides whether the
//! loaded value is used.

use super::{
    table,
    Register,
    VendorSet, //
};

/// The declarations, from position 1 on. All other slots are [`UNDECLARED`], so that any `u8` is in
/// bounds.
pub(crate) static REGISTERS: [Register; 256] = {
    let mut registers = [UNDECLARED; 256];
    let mut at = 0;
    let mut listed = 0;

    while at < table::REGISTERS.len() {
        registers[at + 1] = table::REGISTERS[at].finished(listed);
        listed += table::REGISTERS[at].nr_listed();
        at += 1;
    }
    registers
};

/// The maximum number of MSRs in `KVM_GET_MSR_INDEX_LIST`.
pub(crate) const NR_LISTED: usize = {
    let mut at = 0;
    let mut listed = 0;

    while at < table::REGISTERS.len() {
        listed += table::REGISTERS[at].nr_listed() as usize;
        at += 1;
    }
    listed
};

/// The rules for an index without a declaration. The vendor module gets the access, as that of a
/// newer kernel may know the MSR. If it does not, it passes the access back to the engine.
const UNDECLARED: Register = Register::range(0, u32::MAX, "")
    .vendor(VendorSet::BOTH)
    .finished(0);

/// The number of indices in a page.
const PAGE: usize = 0x1000;
const PAGE_BITS: u32 = PAGE.trailing_zeros();

/// The number of slots for pages is 2 to the power of this.
const SLOT_BITS: u32 = 3;
const SLOTS: usize = 1 << SLOT_BITS;

/// A perfect hash: this factor gives each page with declarations a different slot. Found by trial;
/// [`NUMBERS`] fails to compile if it no longer does.
const FACTOR: u32 = 0xcc62_3a9b;

/// For each slot, the number of its page. Unused slots have a number that no index belongs to.
static NUMBERS: [u32; SLOTS] = {
    let mut numbers = [u32::MAX; SLOTS];
    let mut at = 0;

    while at < table::REGISTERS.len() {
        let register = &table::REGISTERS[at];
        let mut number = register.first >> PAGE_BITS;

        while number <= register.last >> PAGE_BITS {
            let slot = slot_of(number);

            assert!(
                numbers[slot] == u32::MAX || numbers[slot] == number,
                "two pages have one slot: find another FACTOR"
            );
            numbers[slot] = number;
            number += 1;
        }
        at += 1;
    }
    numbers
};

/// For each [`Location`], the position of its declaration in [`REGISTERS`].
static POSITIONS: [u8; Location::COUNT] = {
    let mut positions = [0; Location::COUNT];
    // In reverse order: a declaration overrides later ones, e.g. a range that contains its index.
    let mut at = table::REGISTERS.len();

    while at > 0 {
        let register = &table::REGISTERS[at - 1];
        let mut index = register.first;

        while index <= register.last {
            positions[Location::of(index).position()] = at as u8;
            index += 1;
        }
        at -= 1;
    }
    positions
};

/// The first and last index of each page with declarations, sorted.
static PAGES: [(u32, u32); NR_PAGES] = {
    let mut pages = [(0, 0); NR_PAGES];
    let mut count = 0;

    while count < NR_PAGES {
        // The lowest page above those that were found.
        let mut lowest = u32::MAX;
        let mut slot = 0;

        while slot < SLOTS {
            let number = NUMBERS[slot];

            if number < lowest && (count == 0 || number > pages[count - 1].0 >> PAGE_BITS) {
                lowest = number;
            }
            slot += 1;
        }
        let first = lowest << PAGE_BITS;

        pages[count] = (first, first + (PAGE as u32 - 1));
        count += 1;
    }
    pages
};

const NR_PAGES: usize = {
    let mut count = 0;
    let mut slot = 0;

    while slot < SLOTS {
        if NUMBERS[slot] != u32::MAX {
            count += 1;
        }
        slot += 1;
    }
    count
};

const fn slot_of(number: u32) -> usize {
    (number.wrapping_mul(FACTOR) >> (u32::BITS - SLOT_BITS)) as usize
}

/// The position of an index in the pages with declarations. Indices in other pages are mapped to
/// some position, too: [`Self::is_of`] tells them apart.
#[derive(Clone, Copy)]
pub(crate) struct Location {
    slot: usize,
    offset: usize,
}

impl Location {
    /// The number of blocks of 64 indices.
    pub(crate) const BLOCKS: usize = SLOTS * PAGE / 64;

    /// The number of locations.
    pub(crate) const COUNT: usize = SLOTS * PAGE;

    /// The first and last index of each page with declarations, sorted.
    pub(crate) const PAGES: &'static [(u32, u32)] = &PAGES;

    /// Returns the location of an index.
    #[inline]
    pub(crate) const fn of(index: u32) -> Self {
        Self {
            slot: slot_of(index >> PAGE_BITS),
            offset: index as usize % PAGE,
        }
    }

    /// Whether this is the location of `index` and of no other page, i.e. whether its page has
    /// declarations.
    #[inline]
    pub(crate) fn is_of(self, index: u32) -> bool {
        NUMBERS[self.slot % SLOTS] == index >> PAGE_BITS
    }

    /// The location's position, less than [`Self::COUNT`].
    #[inline(always)]
    pub(crate) const fn position(self) -> usize {
        (self.slot * PAGE + self.offset) % Self::COUNT
    }

    /// The number of the location's block of 64 indices, less than [`Self::BLOCKS`].
    #[inline]
    pub(crate) const fn block(self) -> usize {
        self.position() / 64
    }
}

/// Finds the declaration of an index, or the rules for indices without one.
#[inline]
pub(crate) fn lookup(index: u32) -> &'static Register {
    let location = Location::of(index);

    if !location.is_of(index) {
        return &REGISTERS[0];
    }
    lookup_at(location)
}

/// Does what [`lookup`] does, given the location of an index in a page with declarations.
#[inline]
pub(crate) fn lookup_at(location: Location) -> &'static Register {
    &REGISTERS[usize::from(POSITIONS[location.position()])]
}
