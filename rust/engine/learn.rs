// SPDX-License-Identifier: GPL-2.0

//! What learning records of the MSRs that a guest accesses: a hash table with a fixed number of
//! records.

use super::access::Access;
use core::ops::DerefMut;

/// By which way an access came, as a bit of [`Learned::paths`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Path {
    /// RDMSR or WRMSR.
    Exit = 1 << 0,
    /// RDMSR or WRMSRNS with an immediate index.
    Immediate = 1 << 1,
    /// The instruction emulator.
    Emulator = 1 << 2,
    /// The MSR list of a nested VM-entry or VM-exit.
    Nested = 1 << 3,
}

/// KVM did not have the MSR at some access.
pub(crate) const FLAG_UNSUPPORTED: u32 = 1 << 0;

/// An access was denied.
pub(crate) const FLAG_DENIED: u32 = 1 << 1;

/// [`Learned::first`] and [`Learned::last`] are values of the MSR.
pub(crate) const FLAG_VALUE: u32 = 1 << 2;

/// What is known of an MSR, in the layout of `struct kmsr_learned`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Learned {
    /// The MSR's index.
    pub(crate) index: u32,
    /// A set of `FLAG_*`.
    pub(crate) flags: u32,
    /// A set of [`Path`].
    pub(crate) paths: u32,
    reserved: u32,
    /// The number of reads.
    pub(crate) reads: u64,
    /// The number of writes.
    pub(crate) writes: u64,
    /// The bits that writes changed.
    pub(crate) changed: u64,
    /// The first value that was read or written.
    pub(crate) first: u64,
    /// The last value that was read or written.
    pub(crate) last: u64,
}

/// An access to learn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    /// The MSR's index.
    pub(crate) index: u32,
    /// Whether it was read or written.
    pub(crate) access: Access,
    /// By which way the access came.
    pub(crate) path: Path,
    /// The value that was read, or that the guest wrote. [`None`] if a read was denied.
    pub(crate) value: Option<u64>,
    /// The bits of the MSR that a write changed.
    pub(crate) changed: u64,
    /// Whether the access was denied.
    pub(crate) denied: bool,
    /// Whether KVM did not have the MSR.
    pub(crate) unsupported: bool,
}

impl Learned {
    fn is_used(&self) -> bool {
        self.paths != 0
    }

    fn add(&mut self, observed: &Observed) {
        self.index = observed.index;
        self.paths |= observed.path as u32;
        if observed.unsupported {
            self.flags |= FLAG_UNSUPPORTED;
        }
        if observed.denied {
            self.flags |= FLAG_DENIED;
        }
        match observed.access {
            Access::Read => self.reads = self.reads.wrapping_add(1),
            Access::Write => self.writes = self.writes.wrapping_add(1),
        }
        if let Some(value) = observed.value {
            if self.flags & FLAG_VALUE == 0 {
                self.flags |= FLAG_VALUE;
                self.first = value;
            }
            self.last = value;
        }
        self.changed |= observed.changed;
    }
}

/// The records. The number of slots is a power of two, and at most half of them are used.
///
/// Guests choose the indices that are looked up. A slot is found by a hash and a mask, so it is in
/// bounds under speculation, too.
pub(crate) struct Table<S> {
    slots: S,
    used: usize,
    lost: u64,
}

/// The number of slots for a number of records.
pub(crate) const fn slots_for(records: usize) -> usize {
    records.next_power_of_two() * 2
}

impl<S: DerefMut<Target = [Learned]>> Table<S> {
    /// A table with empty slots, [`slots_for`] the number of records.
    pub(crate) fn new(slots: S) -> Self {
        Self {
            slots,
            used: 0,
            lost: 0,
        }
    }

    /// Adds an access to the record of its MSR. If there is no room for another MSR, only counts
    /// that the access was lost.
    pub(crate) fn record(&mut self, observed: &Observed) {
        let room = self.slots.len() / 2;
        let mask = self.slots.len().wrapping_sub(1);
        // Fibonacci hashing: neighbouring indices get slots that are far apart.
        let hash = (observed.index.wrapping_mul(0x9e37_79b9) >> 7) as usize;

        for step in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(hash.wrapping_add(step) & mask) else {
                break;
            };

            if slot.is_used() && slot.index != observed.index {
                continue;
            }
            if !slot.is_used() {
                if self.used >= room {
                    break;
                }
                self.used += 1;
            }
            slot.add(observed);
            return;
        }
        self.lost = self.lost.wrapping_add(1);
    }

    /// The number of accesses to MSRs for which there was no room.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// The records, in no order.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Learned> {
        self.slots.iter().filter(|slot| slot.is_used())
    }
}
