// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What is known of an integer without trusting a branch.

/// The largest unsigned integer of a number of bytes.
pub fn max_of(bytes: usize) -> i128 {
    (1 << (8 * bytes)) - 1
}

/// Further than any address: sums stay within.
const FAR: i128 = 1 << 72;

/// The integers that a value may be, however the branches before it were predicted.
///
/// `low` and `high` are the ends, both inclusive, and come from the data flow alone. `step` divides
/// the distance of each from `low`; it is 0 for a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The smallest.
    pub low: i128,
    /// The largest.
    pub high: i128,
    /// What the distances are multiples of.
    pub step: u64,
    /// The largest if every branch was predicted well. A smaller one than `high` shows that
    /// somebody relies on a compare.
    pub checked_high: i128,
    /// It is a constant, or counts up or down from one. Where a count ends may be chosen by a
    /// guest, but not what it is.
    pub counts: bool,
}

impl Range {
    /// One value.
    pub const fn constant(value: i128) -> Self {
        Self {
            low: value,
            high: value,
            step: 0,
            checked_high: value,
            counts: true,
        }
    }

    /// Whatever fits between two values.
    pub const fn between(low: i128, high: i128) -> Self {
        Self {
            low,
            high,
            step: 1,
            checked_high: high,
            counts: false,
        }
    }

    /// Whatever fits into a number of bytes.
    pub fn of_bytes(bytes: usize) -> Self {
        Self::between(0, max_of(bytes))
    }

    /// The value, if there is only one.
    pub fn as_constant(&self) -> Option<i128> {
        (self.low == self.high).then_some(self.low)
    }

    /// Whether a branch says more than the data flow.
    pub fn relies_on_compare(&self) -> bool {
        !self.counts && self.checked_high < self.high
    }

    /// The sum, before it is cut to a register.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            low: self.low + other.low,
            high: self.high + other.high,
            step: gcd(self.step, other.step),
            checked_high: self.checked_high + other.checked_high,
            counts: self.counts && other.counts,
        }
        .not_far()
    }

    /// The difference, before it is cut to a register.
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            low: self.low - other.high,
            high: self.high - other.low,
            step: gcd(self.step, other.step),
            checked_high: self.checked_high - other.low,
            counts: self.counts && other.counts,
        }
        .not_far()
    }

    /// The product with a constant, before it is cut to a register.
    pub fn times(&self, factor: i128) -> Self {
        let (one, other) = (
            self.low.saturating_mul(factor),
            self.high.saturating_mul(factor),
        );
        Self {
            low: one.min(other),
            high: one.max(other),
            step: u64::try_from(factor.unsigned_abs())
                .ok()
                .and_then(|factor| self.step.checked_mul(factor))
                .unwrap_or(1),
            checked_high: if factor < 0 {
                one.max(other)
            } else {
                self.checked_high.saturating_mul(factor)
            },
            counts: self.counts,
        }
        .not_far()
    }

    fn not_far(self) -> Self {
        Self {
            low: self.low.clamp(-FAR, FAR),
            high: self.high.clamp(-FAR, FAR),
            checked_high: self.checked_high.clamp(-FAR, FAR),
            ..self
        }
    }

    /// The value shifted to the right, of an unsigned one.
    pub fn shifted_right(&self, by: u32) -> Self {
        Self {
            low: self.low >> by,
            high: self.high >> by,
            step: if self.low == self.high { 0 } else { 1 },
            checked_high: self.checked_high >> by,
            counts: self.counts,
        }
    }

    /// The value AND another one, of unsigned ones.
    pub fn and(&self, other: &Self) -> Self {
        let high = self.high.min(other.high);
        let ones = [self, other]
            .into_iter()
            .filter_map(Self::as_constant)
            .next();
        // The mask's lowest bit divides the result.
        let step = ones.map_or(1, |mask| {
            1u64.checked_shl(mask.trailing_zeros()).unwrap_or(1)
        });

        if let (Some(one), Some(other)) = (self.as_constant(), other.as_constant()) {
            return Self::constant(one & other);
        }
        let high = high - high % i128::from(step);
        Self {
            low: 0,
            high,
            step,
            // Masks that change nothing leave what the compare said.
            checked_high: self.checked_high.min(other.checked_high).min(high),
            counts: self.counts && other.counts,
        }
    }

    /// The value OR, or XOR, another one, of unsigned ones.
    pub fn or(&self, other: &Self) -> Self {
        let bits = |one: i128, other: i128| {
            let ones = 128 - (one | other).leading_zeros();
            (1i128 << ones) - 1
        };
        Self {
            low: 0,
            high: bits(self.high, other.high),
            step: 1,
            checked_high: bits(self.checked_high, other.checked_high),
            counts: self.counts && other.counts,
        }
    }

    /// What a register of this size has of the value.
    pub fn cut(self, bytes: usize) -> Self {
        let space = max_of(bytes) + 1;
        let (first, last) = (self.low.div_euclid(space), self.high.div_euclid(space));

        if first == last {
            let base = first * space;
            return Self {
                low: self.low - base,
                high: self.high - base,
                checked_high: (self.checked_high - base).max(self.low - base),
                ..self
            };
        }
        Self {
            counts: self.counts,
            // Powers of two divide the space that it wraps in.
            step: 1 << self.step.trailing_zeros().min(63),
            ..Self::of_bytes(bytes)
        }
    }

    /// What either of two values may be.
    pub fn join(&self, other: &Self) -> Self {
        let apart = (self.low - other.low).unsigned_abs();

        Self {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
            step: gcd(
                gcd(self.step, other.step),
                u64::try_from(apart).unwrap_or(1),
            ),
            checked_high: self.checked_high.max(other.checked_high),
            counts: self.counts && other.counts,
        }
    }

    /// A value that grew from another one in a loop: its ends move on to where a loop may take
    /// them, so that the analysis comes to an end.
    pub fn widen_from(self, before: &Self) -> Self {
        let mut wide = self;

        if self.high > before.high {
            wide.high = [1, 2, 4, 8]
                .map(max_of)
                .into_iter()
                .find(|&limit| self.high <= limit)
                .unwrap_or(FAR);
        }
        if self.low < before.low {
            wide.low = if self.low >= 0 { 0 } else { -FAR };
        }
        if self.checked_high > before.checked_high {
            wide.checked_high = wide.high;
        }
        wide
    }
}

fn gcd(one: u64, other: u64) -> u64 {
    if other == 0 {
        one
    } else {
        gcd(other, one % other)
    }
}
