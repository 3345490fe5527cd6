// SPDX-License-Identifier: GPL-2.0

//! Statistics: which row and which bucket an access is counted in.

use crate::{
    engine::stats::{
        Claim,
        Row,
        Rows,
        MAX_MSRS,
        NR_BUCKETS,
        NR_ROWS, //
    },
    kvm::Histogram, //
};
use core::cell::Cell;
use kernel::prelude::*;

/// A number that only one vCPU uses.
struct Word(Cell<u64>);

impl Claim for Word {
    fn get(&self) -> u64 {
        self.0.get()
    }

    fn claim(&self, value: u64) -> u64 {
        let old = self.0.get();

        if old == 0 {
            self.0.set(value);
        }
        old
    }
}

/// A slot that another vCPU claims between a load and a claim.
struct Contested(Cell<u64>, u64);

impl Claim for Contested {
    fn get(&self) -> u64 {
        self.0.get()
    }

    fn claim(&self, _: u64) -> u64 {
        self.0.set(self.1);
        self.1
    }
}

fn empty() -> Rows<Word> {
    Rows::new([const { Word(Cell::new(0)) }; NR_ROWS])
}

#[kunit_tests(kvm_msr_stats)]
mod cases {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        assert_eq!(Histogram::bucket(0), Some(0));
        for bit in 0..u32::BITS {
            let least = 1 << bit;

            assert_eq!(Histogram::bucket(least), Some(bit as usize));
            assert_eq!(Histogram::bucket(least | (least - 1)), Some(bit as usize));
        }
        assert_eq!(Histogram::bucket(u32::MAX), Some(NR_BUCKETS - 1));
    }

    #[test]
    fn each_msr_has_a_row_of_its_own() {
        let rows = empty();
        // Indices that follow one another, and some with the same hash.
        let index = |number: u32| match number % 2 {
            0 => 0xc000_0000 + number,
            _ => number.wrapping_mul(0x144c_bc89),
        };

        for number in 0..MAX_MSRS as u32 {
            let row = rows.of(index(number));

            assert!(row != Row::LOST);
            assert!(row.position() != 0);
            assert_eq!(rows.of(index(number)), row);
        }
        assert_eq!(rows.used().count(), MAX_MSRS);
        for number in 0..MAX_MSRS as u32 {
            let row = rows.of(index(number));

            assert!(rows.used().any(|used| used == (row, index(number))));
        }
        assert_eq!(rows.of(0x1234_5678), Row::LOST);
        assert_eq!(rows.used().count(), MAX_MSRS);
    }

    #[test]
    fn index_zero_is_an_msr() {
        let rows = empty();
        let row = rows.of(0);

        assert!(rows.used().eq([(row, 0)]));
    }

    #[test]
    fn a_row_is_claimed_once() {
        // Another vCPU gets all rows: for the same MSR, they are this one's, too.
        let same = Rows::new([const { Contested(Cell::new(0), 1 << 32 | 0x10) }; NR_ROWS]);
        let other = Rows::new([const { Contested(Cell::new(0), 1 << 32 | 0x11) }; NR_ROWS]);

        assert!(same.of(0x10) != Row::LOST);
        assert_eq!(same.used().count(), 1);
        assert_eq!(other.of(0x10), Row::LOST);
    }

    #[test]
    fn zero_is_no_row() {
        assert!(Row::from_raw(0).is_none());
        for raw in 1..=u8::MAX {
            assert_eq!(Row::from_raw(raw).map(Row::into_raw), Some(raw));
        }
    }
}
