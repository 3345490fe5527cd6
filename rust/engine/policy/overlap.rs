// SPDX-License-Identifier: GPL-2.0

//! Which rules of a policy overlap.

use super::rule::{
    Rule,
    READ,
    WRITE, //
};

/// The rules for one [`When`](super::When) so far, which are visited in order of their first index.
#[derive(Default)]
pub(super) struct Sweep {
    reads: Last,
    writes: Last,
}

/// The last rule so far for a kind of access.
#[derive(Clone, Copy, Default)]
struct Last {
    /// The index above it, which can be 2^32, or 0 if there is no rule yet.
    end: u64,
    /// Its number, or 0 if there is no rule yet.
    number: usize,
}

impl Sweep {
    /// Visits the next rule. Returns [`None`] if it overlaps a rule before it. Otherwise, if it has
    /// only one kind of access, returns the number of the last rule before it for the other kind.
    #[inline]
    pub(super) fn visit(&mut self, rule: &Rule, number: usize) -> Option<usize> {
        let first = u64::from(rule.first);
        let last = Last {
            end: u64::from(rule.last).wrapping_add(1),
            number,
        };
        let (free, other) = match rule.kinds {
            READ => {
                let free = self.reads.end;

                self.reads = last;
                (free, self.writes.number)
            }
            WRITE => {
                let free = self.writes.end;

                self.writes = last;
                (free, self.reads.number)
            }
            _ => {
                let free = self.reads.end.max(self.writes.end);

                *self = Self {
                    reads: last,
                    writes: last,
                };
                (free, number)
            }
        };

        (free <= first).then_some(other)
    }
}

/// Returns the lowest number of a rule that overlaps a rule with a lower number. There must be an
/// overlap. `numbers` has the numbers of the rules in order.
#[cold]
pub(super) fn find<N: Iterator<Item = usize>>(rules: &[Rule], numbers: impl Fn() -> N) -> usize {
    // The first `many` rules overlap, the first `few` do not.
    let mut few: usize = 0;
    let mut many = rules.len();

    while many.wrapping_sub(few) > 1 {
        let middle = few.midpoint(many);
        let mut sweeps = <[Sweep; 2]>::default();
        let mut early = numbers()
            .filter(|&number| number < middle)
            .filter_map(|number| Some((number, rules.get(number)?)));

        if early.any(|(number, rule)| sweeps[rule.when as usize].visit(rule, number).is_none()) {
            many = middle;
        } else {
            few = middle;
        }
    }
    few
}
