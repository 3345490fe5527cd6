// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a register or a stack slot may hold.

use std::collections::BTreeSet;

use crate::range::Range;
use crate::range::max_of;

/// Tells values apart: two with the same number are the same, whatever they are.
pub type Id = u64;

/// A place in a section, by the section's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The section, or the number of an undefined symbol from [`Place::UNDEFINED`] on.
    pub section: usize,
    /// The offset in the section, where a symbol begins if it has one.
    pub offset: u64,
}

impl Place {
    /// The first number of symbols of other modules.
    pub const UNDEFINED: usize = 1 << 32;
}

/// How many tables one pointer may lead to until it counts as a pointer to anything.
const MAX_PLACES: usize = 16;

/// A value, by what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer.
    Number(Range),
    /// An address on the function's stack, by the distance from where the caller left it.
    Stack(Range),
    /// An address in one of these tables, by the distance from where it begins.
    Table(BTreeSet<Place>, Range),
    /// What came from memory or the caller and may be a pointer, and what was added to it. If
    /// nothing was, it may as well be an integer.
    Pointer(Range),
    /// All ones if an index is below its limit, and 0 if not: `array_index_mask_nospec()`.
    Mask {
        /// The index.
        of: Id,
        /// The largest index below the limit, if that is a constant.
        high: Option<i128>,
    },
}

/// A value and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its name.
    pub id: Id,
    /// What it is made of.
    pub kind: Kind,
}

/// A name made from others.
pub fn mix(parts: &[u64]) -> Id {
    parts.iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| {
        let mixed = (hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    })
}

impl Value {
    /// Something of which nothing is known, of a number of bytes: only 8 can be a pointer.
    pub fn unknown(id: Id, bytes: usize) -> Self {
        let kind = if bytes < 8 {
            Kind::Number(Range::of_bytes(bytes))
        } else {
            Kind::Pointer(Range::constant(0))
        };
        Self { id, kind }
    }

    /// An integer.
    pub fn number(id: Id, range: Range) -> Self {
        Self {
            id,
            kind: Kind::Number(range),
        }
    }

    /// A constant, whose name is the same wherever it occurs.
    pub fn constant(value: i128) -> Self {
        Self::number(
            mix(&[1, value as u64, (value >> 64) as u64]),
            Range::constant(value),
        )
    }

    /// The value as an integer of a number of bytes.
    pub fn as_number(&self, bytes: usize) -> Range {
        match self.kind {
            Kind::Number(range) => range.cut(bytes),
            _ => Range::of_bytes(bytes),
        }
    }

    /// The low bytes of the value.
    pub fn low_bytes(&self, bytes: usize) -> Self {
        match self.kind {
            _ if bytes == 8 => self.clone(),
            Kind::Number(range) if range.low >= 0 && range.high <= max_of(bytes) => self.clone(),
            // A mask of fewer bits is a mask as well.
            Kind::Mask { .. } => self.clone(),
            _ => Self::number(mix(&[2, self.id, bytes as u64]), self.as_number(bytes)),
        }
    }

    /// What either of two values may be. `id` is its name if they differ.
    pub fn join(&self, other: &Self, id: Id) -> Self {
        if self == other {
            return self.clone();
        }
        let kind = match (&self.kind, &other.kind) {
            (Kind::Number(one), Kind::Number(other)) => Kind::Number(one.join(other)),
            (Kind::Stack(one), Kind::Stack(other)) => Kind::Stack(one.join(other)),
            (Kind::Pointer(one), Kind::Pointer(other)) => Kind::Pointer(one.join(other)),
            (Kind::Table(one, at), Kind::Table(other, other_at))
                if one.union(other).count() <= MAX_PLACES =>
            {
                Kind::Table(one.union(other).copied().collect(), at.join(other_at))
            }
            // A pointer or a number that stands for none.
            (Kind::Pointer(range), Kind::Number(number))
            | (Kind::Number(number), Kind::Pointer(range))
                if number.counts =>
            {
                Kind::Pointer(*range)
            }
            (Kind::Table(places, range), Kind::Number(number))
            | (Kind::Number(number), Kind::Table(places, range))
                if number.counts =>
            {
                Kind::Table(places.clone(), *range)
            }
            // What was added to either was added to the pointer that may be either.
            _ => Kind::Pointer(match (self.distance(), other.distance()) {
                (Some(one), Some(other)) => one.join(&other),
                (one, other) => one.or(other).unwrap_or(Range::constant(0)),
            }),
        };
        let id = if self.id == other.id { self.id } else { id };

        Self { id, kind }
    }

    /// How far an address is from where its object begins.
    fn distance(&self) -> Option<Range> {
        match self.kind {
            Kind::Stack(at) | Kind::Table(_, at) | Kind::Pointer(at) => Some(at),
            Kind::Number(_) | Kind::Mask { .. } => None,
        }
    }

    /// The value, which grew from another one in a loop.
    pub fn widen_from(self, before: &Self) -> Self {
        let kind = match (self.kind, &before.kind) {
            (Kind::Number(range), Kind::Number(old)) => Kind::Number(range.widen_from(old)),
            (Kind::Stack(range), Kind::Stack(old)) => Kind::Stack(range.widen_from(old)),
            (Kind::Pointer(range), Kind::Pointer(old)) => Kind::Pointer(range.widen_from(old)),
            (Kind::Table(places, range), Kind::Table(_, old)) => {
                Kind::Table(places, range.widen_from(old))
            }
            (kind, _) => kind,
        };
        Self { id: self.id, kind }
    }

    /// Takes note that a branch only goes here if the value is at most this.
    pub fn check(&mut self, high: i128) {
        if let Kind::Number(range) = &mut self.kind {
            range.checked_high = range.checked_high.min(high).max(range.low);
        }
    }

    /// The sum, for an address or as an integer of 8 bytes.
    pub fn plus(&self, other: &Self) -> Kind {
        match (&self.kind, &other.kind) {
            (Kind::Number(one), Kind::Number(other)) => {
                Kind::Number(one.plus(&signed(other)).cut(8))
            }
            (Kind::Stack(at), Kind::Number(number)) | (Kind::Number(number), Kind::Stack(at)) => {
                Kind::Stack(at.plus(&signed(number)))
            }
            (Kind::Pointer(at), Kind::Number(number))
            | (Kind::Number(number), Kind::Pointer(at)) => Kind::Pointer(at.plus(&signed(number))),
            (Kind::Table(places, at), Kind::Number(number))
            | (Kind::Number(number), Kind::Table(places, at)) => {
                Kind::Table(places.clone(), at.plus(&signed(number)))
            }
            (Kind::Table(places, at), _) | (_, Kind::Table(places, at)) => {
                Kind::Table(places.clone(), at.plus(&Range::of_bytes(8)))
            }
            (Kind::Stack(at), _) | (_, Kind::Stack(at)) => {
                Kind::Stack(at.plus(&Range::of_bytes(8)))
            }
            // One of the two is an index.
            _ => Kind::Pointer(Range::of_bytes(8)),
        }
    }

    /// The difference.
    pub fn minus(&self, other: &Self) -> Kind {
        let Kind::Number(number) = &other.kind else {
            return Kind::Number(Range::of_bytes(8));
        };
        match &self.kind {
            Kind::Number(range) => Kind::Number(range.minus(number).cut(8)),
            Kind::Stack(at) => Kind::Stack(at.minus(&signed(number))),
            Kind::Pointer(at) => Kind::Pointer(at.minus(&signed(number))),
            Kind::Table(places, at) => Kind::Table(places.clone(), at.minus(&signed(number))),
            Kind::Mask { .. } => Kind::Number(Range::of_bytes(8)),
        }
    }
}

/// A number of 8 bytes as a distance: constants with the highest bit set are negative.
fn signed(range: &Range) -> Range {
    match range.as_constant() {
        Some(value) if value > max_of(8) / 2 => Range::constant(value - max_of(8) - 1),
        _ => *range,
    }
}
