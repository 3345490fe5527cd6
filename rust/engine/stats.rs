// SPDX-License-Identifier: GPL-2.0

//! Statistics of the accesses to MSRs: which counters an access increments.
//!
//! Each MSR that the guest accesses gets a [`Row`] of counters, until there is none left. A row has
//! a counter for each bucket of a histogram of durations, so the number of accesses is their sum.

/// The number of buckets of a histogram (`KMSR_NR_BUCKETS`).
pub(crate) const NR_BUCKETS: usize = 32;

/// The number of rows, also those that are not an MSR's.
pub(crate) const NR_ROWS: usize = 256;

/// The maximum number of MSRs with a row.
pub(crate) const MAX_MSRS: usize = NR_ROWS - 2;

/// What happened to an access, besides that it took some time. The discriminant is the position of
/// its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Event {
    /// The filter or a rule denied it.
    Denied,
    /// KVM did not have the MSR.
    Unsupported,
    /// It exited to user space.
    UserSpaceExit,
    /// The guest got `#GP`.
    GeneralProtection,
}

/// The number of kinds of [`Event`].
pub(crate) const NR_EVENTS: usize = 4;

/// The number of a row. Any `u8` is in bounds, so a guest that chooses the MSR can't make the CPU
/// speculate with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Row(u8);

impl Row {
    /// The row of the MSRs for which there was no other.
    pub(crate) const LOST: Self = Self(u8::MAX);

    /// The row that a byte of a map stands for. 0 is none.
    #[inline(always)]
    pub(crate) fn from_raw(raw: u8) -> Option<Self> {
        (raw != 0).then_some(Self(raw))
    }

    /// The byte for a map, which is not 0.
    pub(crate) fn into_raw(self) -> u8 {
        self.0
    }

    /// The row's position in an array of [`NR_ROWS`].
    #[inline(always)]
    pub(crate) fn position(self) -> usize {
        usize::from(self.0)
    }
}

/// A 64-bit number that vCPUs read and write at the same time. It is 0 at first.
pub(crate) trait Claim {
    /// Reads it.
    fn get(&self) -> u64;

    /// Sets it to `value` if it is 0, in one step. Returns what it was before.
    fn claim(&self, value: u64) -> u64;
}

/// Which MSR each row belongs to: a hash table without locks, in which each slot is a row. MSRs are
/// added, but never removed.
#[repr(transparent)]
pub(crate) struct Rows<C> {
    slots: [C; NR_ROWS],
}

/// A slot's value if it belongs to an MSR. The index is below this.
const USED: u64 = 1 << 32;

impl<C: Claim> Rows<C> {
    // The module allocates zeroed memory instead.
    #[cfg(any(not(MODULE), CONFIG_KVM_MSR_KUNIT_TEST))]
    pub(crate) fn new(slots: [C; NR_ROWS]) -> Self {
        Self { slots }
    }

    /// Returns the row of an MSR, which gets one if it has none yet and some are left. Otherwise
    /// returns [`Row::LOST`].
    pub(crate) fn of(&self, index: u32) -> Row {
        // Fibonacci hashing: neighbouring indices get slots that are far apart.
        let mut slot = (index.wrapping_mul(0x9e37_79b9) >> 24) as u8;
        let key = USED | u64::from(index);

        for _ in 0..NR_ROWS {
            // Slot 0 means that there is no row, and the last one has the lost accesses.
            if let Some(row) = Row::from_raw(slot).filter(|row| *row != Row::LOST) {
                let word = &self.slots[row.position()];
                let found = match word.get() {
                    0 => word.claim(key),
                    found => found,
                };

                if found == 0 || found == key {
                    return row;
                }
            }
            slot = slot.wrapping_add(1);
        }
        Row::LOST
    }

    /// The rows in use, and the index of each one's MSR.
    pub(crate) fn used(&self) -> impl Iterator<Item = (Row, u32)> + '_ {
        (1..u8::MAX).filter_map(|slot| {
            let key = self.slots[usize::from(slot)].get();

            // The lower half is the index.
            (key != 0).then_some((Row(slot), key as u32))
        })
    }
}
