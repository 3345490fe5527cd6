// SPDX-License-Identifier: GPL-2.0

//! The compiled filter, compared with a scan of its ranges.

use crate::engine::{
    access::Access,
    filter::{
        default_allows,
        Filter,
        Range,
        Words,
        DEFAULT_DENY,
        MAX_BITMAP_BYTES,
        MAX_RANGES,
        READ,
        WRITE, //
    },
    request::Error,
};
use kernel::prelude::*;

/// The number of words in the largest bitmap.
const WORDS: usize = MAX_BITMAP_BYTES / size_of::<u64>();

/// A xorshift64* generator, so that every run tests the same filters.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u32) -> u32 {
        ((self.next() >> 32) % u64::from(limit)) as u32
    }
}

impl Words for KVVec<u64> {
    fn word(&self, position: usize) -> u64 {
        self.get(position).copied().unwrap_or(0)
    }
}

/// A filter, and its ranges and bitmaps for the scan.
struct Linear {
    flags: u32,
    ranges: [Range; MAX_RANGES],
    /// The position of each range's bitmap, in words.
    offsets: [usize; MAX_RANGES],
    words: KVVec<u64>,
}

impl Linear {
    /// Creates a filter from ranges. `word` generates the words of the bitmaps.
    fn new(flags: u32, ranges: &[Range], mut word: impl FnMut() -> u64) -> Result<Self> {
        let mut linear = Self {
            flags,
            ranges: [Range::default(); MAX_RANGES],
            offsets: [0; MAX_RANGES],
            words: KVVec::new(),
        };

        for (i, range) in ranges.iter().enumerate() {
            linear.ranges[i] = *range;
            linear.offsets[i] = linear.words.len();
            for _ in 0..range.bitmap_words()? {
                linear.words.push(word(), GFP_KERNEL)?;
            }
        }
        Ok(linear)
    }

    fn compile(&self) -> Result<Filter<KVVec<u64>>> {
        let default_allow = default_allows(self.flags, self.ranges.into_iter())?;
        let mut filter = Filter::new(default_allow, KVVec::new());

        for (range, offset) in self.ranges.iter().zip(self.offsets) {
            filter.add(range, |words: &mut KVVec<_>, count| -> Result<usize> {
                let bitmap = self.words.get(offset..offset + count).ok_or(EINVAL)?;
                let first = words.len();

                words.extend_from_slice(bitmap, GFP_KERNEL)?;
                Ok(first)
            })?;
        }
        filter.compile();
        Ok(filter)
    }

    /// The scan: the first range that has the index and the kind of access decides.
    fn allows(&self, index: u32, access: Access) -> bool {
        let kind = match access {
            Access::Read => READ,
            Access::Write => WRITE,
        };

        if (0x800..=0x8ff).contains(&index) {
            return true;
        }
        for (range, offset) in self.ranges.iter().zip(self.offsets) {
            let end = range.base.wrapping_add(range.nmsrs);

            if range.flags & kind != 0 && index >= range.base && index < end {
                let bit = (index - range.base) as usize;

                return self.words[offset + bit / 64] >> (bit % 64) & 1 != 0;
            }
        }
        self.flags & DEFAULT_DENY == 0
    }

    /// Returns the first index at which the compiled filter differs from the scan, of the ranges'
    /// edges and of `more`.
    fn difference(&self, more: impl IntoIterator<Item = u32>) -> Result<Option<u32>> {
        let filter = self.compile()?;
        let edges = self.ranges.iter().flat_map(|range| {
            let end = range.base.wrapping_add(range.nmsrs);

            [
                range.base.wrapping_sub(1),
                range.base,
                end.wrapping_sub(1),
                end,
            ]
        });

        Ok(Iterator::chain(edges, more).find(|&index| {
            [Access::Read, Access::Write]
                .into_iter()
                .any(|access| filter.allows(index, access) != self.allows(index, access))
        }))
    }
}

fn range(flags: u32, base: u32, nmsrs: u32) -> Range {
    Range { flags, nmsrs, base }
}

/// Compares the compiled filter with the scan at all indices below 0x1000, for alternating bitmaps.
fn same_as_linear(flags: u32, ranges: &[Range]) -> bool {
    Linear::new(flags, ranges, || 0xaaaa_5555_ff00_00ff)
        .and_then(|linear| linear.difference(0..0x1000))
        .is_ok_and(|difference| difference.is_none())
}

#[kunit_tests(kvm_msr_filter)]
mod cases {
    use super::*;

    #[test]
    fn nothing_set_allows_everything() {
        assert!(same_as_linear(0, &[]));
    }

    #[test]
    fn denying_everything_is_refused() {
        let unused = [Range::default(); MAX_RANGES].into_iter();

        assert_eq!(default_allows(DEFAULT_DENY, unused), Err(Error::Invalid));
    }

    #[test]
    fn undefined_flags_are_refused() {
        for bit in 1..32 {
            let ranges = [range(READ, 0, 1); MAX_RANGES].into_iter();

            assert_eq!(default_allows(1 << bit, ranges), Err(Error::Invalid));
        }
        for bit in 2..32 {
            assert!(range(1 << bit, 0, 1).bitmap_words().is_err());
            assert!(range(1 << bit, 0, 0).bitmap_words().is_ok());
        }
        assert!(range(0, 0, 1).bitmap_words().is_err());
    }

    #[test]
    fn bitmaps_have_a_limit() {
        assert_eq!(range(READ, 0, 0x3000).bitmap_words(), Ok(WORDS));
        assert_eq!(range(READ, 0, 0x3001).bitmap_words(), Err(Error::Invalid));
        assert_eq!(range(READ, 0, u32::MAX).bitmap_words(), Err(Error::Invalid));
    }

    #[test]
    fn overlaps_go_to_the_first() {
        for flags in [0, DEFAULT_DENY] {
            assert!(same_as_linear(
                flags,
                &[range(3, 10, 100), range(3, 50, 100)]
            ));
            assert!(same_as_linear(
                flags,
                &[range(3, 50, 100), range(3, 10, 100)]
            ));
            assert!(same_as_linear(
                flags,
                &[range(3, 50, 10), range(3, 10, 100)]
            ));
            assert!(same_as_linear(
                flags,
                &[range(3, 10, 100), range(3, 50, 10)]
            ));
            assert!(same_as_linear(
                flags,
                &[range(3, 10, 100), range(3, 10, 100)]
            ));
        }
    }

    #[test]
    fn adjacent_ranges_and_gaps() {
        for flags in [0, DEFAULT_DENY] {
            assert!(same_as_linear(flags, &[range(3, 0, 64), range(3, 64, 64)]));
            assert!(same_as_linear(flags, &[range(3, 64, 64), range(3, 0, 64)]));
            assert!(same_as_linear(flags, &[range(3, 0, 63), range(3, 64, 64)]));
            assert!(same_as_linear(
                flags,
                &[range(3, 1, 1), range(3, 3, 1), range(3, 5, 1)]
            ));
        }
    }

    #[test]
    fn every_mix_of_flags() {
        for mix in 0..27 {
            let [a, b, c] = [1 + mix % 3, 1 + mix / 3 % 3, 1 + mix / 9];

            for flags in [0, DEFAULT_DENY] {
                assert!(same_as_linear(
                    flags,
                    &[range(a, 0, 200), range(b, 100, 200), range(c, 50, 400)]
                ));
            }
        }
    }

    #[test]
    fn wrapping_ranges_have_no_index() {
        for (base, nmsrs) in [(u32::MAX, 1), (u32::MAX - 63, 64), (u32::MAX - 10, 64)] {
            let linear = Linear::new(0, &[range(3, base, nmsrs)], || 0);

            assert!(linear.is_ok_and(|linear| linear
                .difference([base, u32::MAX, 0, 1])
                .is_ok_and(|difference| difference.is_none())));
        }
        let linear = Linear::new(0, &[range(3, u32::MAX - 64, 64)], || 0);
        assert!(linear.is_ok_and(|linear| linear
            .compile()
            .is_ok_and(|filter| !filter.allows(u32::MAX - 1, Access::Read)
                && filter.allows(u32::MAX, Access::Read))));
    }

    #[test]
    fn x2apic_is_exempt() {
        let linear = Linear::new(DEFAULT_DENY, &[range(3, 0x700, 0x300)], || 0);

        assert!(
            linear.is_ok_and(|linear| linear.compile().is_ok_and(|filter| {
                (0x700..0xa00).all(|index| {
                    let exempt = (0x800..=0x8ff).contains(&index);

                    filter.allows(index, Access::Read) == exempt
                        && filter.allows(index, Access::Write) == exempt
                })
            }))
        );
    }

    #[test]
    fn sixteen_full_size_ranges() {
        for step in [0x3000, 0x2fff, 0x3001, 0x800, 0x1000_0000] {
            let mut ranges = [Range::default(); MAX_RANGES];
            let mut random = Random(step.into());

            for (i, slot) in (0..).zip(&mut ranges) {
                *slot = range(1 + i % 3, i.wrapping_mul(step), 0x3000);
            }
            let linear = Linear::new(DEFAULT_DENY, &ranges, || random.next());
            assert!(linear.is_ok_and(|linear| linear
                .difference((0..0x32000).step_by(5))
                .is_ok_and(|difference| difference.is_none())));
        }
    }

    #[test]
    fn a_hundred_thousand_random_filters() {
        let mut random = Random(0x6b76_6d2d_6d73_7200);

        for _ in 0..100_000 {
            let mut ranges = [Range::default(); MAX_RANGES];
            let nr = random.below(MAX_RANGES as u32 + 1) as usize;

            for slot in &mut ranges[..nr] {
                let base = match random.below(8) {
                    0 => random.next() as u32,
                    1 => u32::MAX - random.below(0x400),
                    2 | 3 => 0xc000_0000 + random.below(0x200),
                    _ => random.below(0x200),
                };
                *slot = range(1 + random.below(3), base, random.below(130));
            }
            let flags = match ranges.iter().any(|range| range.nmsrs != 0) {
                true => random.below(2),
                false => 0,
            };
            let mut words = Random(random.next() | 1);
            let more = [random.next() as u32, random.below(0x400), u32::MAX, 0];
            let same = Linear::new(flags, &ranges[..nr], || words.next())
                .and_then(|linear| linear.difference(more))
                .is_ok_and(|difference| difference.is_none());

            if !same {
                assert!(same);
                break;
            }
        }
    }
}
