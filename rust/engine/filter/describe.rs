// SPDX-License-Identifier: GPL-2.0

//! A filter in readable form: sorted, disjoint segments of the index space.

use super::{
    Access,
    Filter,
    Placed,
    Words, //
};
use core::{
    iter,
    ptr, //
};

/// A part of the index space for which one range, or the default, decides.
pub(crate) struct Segment<'a, W> {
    /// The first index.
    pub(crate) first: u32,
    /// The last index.
    pub(crate) last: u32,
    decider: Option<&'a Placed>,
    default_allow: bool,
    words: &'a W,
}

impl<W: Words> Filter<W> {
    /// Returns the segments for a kind of access, sorted by index.
    pub(crate) fn describe(&self, access: Access) -> impl Iterator<Item = Segment<'_, W>> {
        let mut next = Some(0);

        iter::from_fn(move || {
            let first = next?;
            let decider = self.decider(first, access);
            let mut end = self.next_cut(first);

            // Skip cuts at which the decision stays the same.
            while let Some(cut) = end {
                let other = self.decider(cut, access);

                if decider.map(ptr::from_ref) != other.map(ptr::from_ref) {
                    break;
                }
                end = self.next_cut(cut);
            }
            next = end;
            Some(Segment {
                first,
                // A cut is above `first`, so it is not 0.
                last: end.map_or(u32::MAX, |cut| cut.wrapping_sub(1)),
                decider,
                default_allow: self.default_allow,
                words: &self.words,
            })
        })
    }

    /// Returns the lowest index above `above` at which a range begins or ends.
    fn next_cut(&self, above: u32) -> Option<u32> {
        self.ranges
            .iter()
            .take(self.nr_ranges)
            .filter_map(|placed| {
                let base = placed.range.base;

                Some([base, base.checked_add(placed.range.nmsrs)?])
            })
            .flatten()
            .filter(|&cut| cut > above)
            .min()
    }
}

impl<W: Words> Segment<'_, W> {
    /// Whether a range decides, instead of the default.
    pub(crate) fn is_of_range(&self) -> bool {
        self.decider.is_some()
    }

    fn allows(&self, index: u32) -> bool {
        match self.decider {
            Some(placed) => placed.allows(index, self.words),
            None => self.default_allow,
        }
    }

    /// Calls `each` with the first index, the last index and the verdict of every run of indices
    /// that are all allowed or all denied.
    pub(crate) fn for_each_run(&self, mut each: impl FnMut(u32, u32, bool)) {
        if !self.is_of_range() {
            return each(self.first, self.last, self.default_allow);
        }
        let mut start = self.first;

        // This terminates: a range has few indices and ends before `u32::MAX`.
        while start <= self.last {
            let allowed = self.allows(start);
            let mut end = start;

            while end < self.last && self.allows(end.wrapping_add(1)) == allowed {
                end = end.wrapping_add(1);
            }
            each(start, end, allowed);
            start = end.wrapping_add(1);
        }
    }
}
