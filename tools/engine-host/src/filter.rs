// SPDX-License-Identifier: GPL-2.0

//! `KVM_X86_SET_MSR_FILTER`: compares the compiled filter with a model that checks range after
//! range.

use crate::engine::{access::Access, filter::*, request::Error};
use proptest::{collection::vec, prelude::*};

impl Words for Vec<u64> {
    fn word(&self, position: usize) -> u64 {
        self.get(position).copied().unwrap_or(0)
    }
}

/// A filter in user space's form.
#[derive(Clone, Debug, Default)]
struct UserFilter {
    flags: u32,
    ranges: Vec<(Range, Vec<u64>)>,
}

impl UserFilter {
    fn default_allows(&self) -> Result<bool, Error> {
        default_allows(self.flags, self.ranges.iter().map(|(range, _)| *range))
    }

    fn compile(&self) -> Result<Filter<Vec<u64>>, Error> {
        let mut filter = Filter::new(self.default_allows()?, Vec::new());

        for (range, bitmap) in &self.ranges {
            filter.add(range, |words: &mut Vec<_>, count| {
                let first = words.len();

                words.extend(&bitmap[..count]);
                Ok::<_, Error>(first)
            })?;
        }
        filter.compile();
        Ok(filter)
    }

    /// api.rst: the first range that contains the index and has the kind of access decides with
    /// its bitmap; otherwise the default decides. Two more rules: a range whose end is not below
    /// 2^32 contains no index, because KVM computes it in 32 bits; and the x2APIC is never
    /// filtered.
    fn allows(&self, index: u32, access: Access) -> bool {
        let kind = match access {
            Access::Read => 1,
            Access::Write => 2,
        };

        if (0x800..0x900).contains(&index) {
            return true;
        }
        for (range, bitmap) in &self.ranges {
            let start = u64::from(range.base);
            let end = start + u64::from(range.nmsrs);

            if range.flags & kind != 0 && end < 1 << 32 && (start..end).contains(&u64::from(index))
            {
                let bit = u64::from(index) - start;
                let byte = bitmap[(bit / 64) as usize].to_le_bytes()[(bit / 8 % 8) as usize];

                return byte >> (bit % 8) & 1 == 1;
            }
        }
        self.flags & 1 == 0
    }

    /// Indices at which the decision may change, and some random ones.
    fn probes(&self) -> Vec<u32> {
        let mut probes = vec![0, 1, 0x7ff, 0x800, 0x8ff, 0x900, u32::MAX - 1, u32::MAX];

        for (range, _) in &self.ranges {
            for edge in [range.base, range.base.wrapping_add(range.nmsrs)] {
                for off in [0, 1, 2, 63, 64, 65] {
                    probes.push(edge.wrapping_add(off));
                    probes.push(edge.wrapping_sub(off));
                }
            }
        }
        probes
    }

    fn check(&self, more: &[u32]) {
        let filter = self.compile().unwrap();

        for index in self.probes().into_iter().chain(more.iter().copied()) {
            for access in [Access::Read, Access::Write] {
                assert_eq!(
                    filter.allows(index, access),
                    self.allows(index, access),
                    "{access:?} {index:#x}",
                );
            }
        }
    }
}

fn range(flags: u32, base: u32, nmsrs: u32, word: u64) -> (Range, Vec<u64>) {
    (Range { flags, nmsrs, base }, vec![word; 192])
}

/// Bases for ranges that overlap: close to each other, at the ends of the index space, or
/// anywhere.
fn bases() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0u32..0x400,
        1 => 0x700u32..0xa00,
        2 => 0xc000_0000u32..0xc000_0200,
        1 => (u32::MAX - 0x4000)..=u32::MAX,
        1 => any::<u32>(),
    ]
}

fn ranges() -> impl Strategy<Value = (Range, Vec<u64>)> {
    (
        1u32..4,
        prop_oneof![4 => 0u32..200, 1 => 0u32..=0x3000],
        bases(),
        prop_oneof![
            Just(vec![0; 192]),
            Just(vec![u64::MAX; 192]),
            vec(any::<u64>(), 192)
        ],
    )
        .prop_map(|(flags, nmsrs, base, words)| (Range { flags, nmsrs, base }, words))
}

fn filters() -> impl Strategy<Value = UserFilter> {
    (0u32..2, vec(ranges(), 0..=MAX_RANGES))
        .prop_map(|(flags, ranges)| UserFilter { flags, ranges })
        .prop_filter("denies everything", |filter| {
            filter.default_allows().is_ok()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn judges_as_the_model(filter in filters(), more in vec(bases(), 32)) {
        filter.check(&more);
    }

    #[test]
    fn describes_what_it_judges(filter in filters()) {
        let compiled = filter.compile().unwrap();

        for access in [Access::Read, Access::Write] {
            let mut next = Some(0);

            for segment in compiled.describe(access) {
                assert_eq!(Some(segment.first), next, "no gap, no overlap");
                assert!(segment.first <= segment.last);

                let mut next_run = segment.first;
                segment.for_each_run(|first, last, allowed| {
                    assert_eq!(first, next_run);
                    assert!(last <= segment.last);
                    next_run = last.wrapping_add(1);
                    for index in [first, last] {
                        if !(0x800..0x900).contains(&index) {
                            assert_eq!(allowed, filter.allows(index, access), "{index:#x}");
                        }
                    }
                });
                assert_eq!(next_run, segment.last.wrapping_add(1));
                next = segment.last.checked_add(1);
            }
            assert_eq!(next, None, "the last segment ends the space");
        }
    }

    #[test]
    fn refuses_as_documented(flags: u32, range in any::<(u32, u32, u32)>()) {
        let (range_flags, nmsrs, base) = range;
        let checked = Range { flags: range_flags, nmsrs, base }.bitmap_words();

        if nmsrs == 0 {
            prop_assert_eq!(checked, Ok(0));
        } else if !(1..4).contains(&range_flags) || nmsrs > 0x600 * 8 {
            prop_assert_eq!(checked, Err(Error::Invalid));
        } else {
            prop_assert_eq!(checked, Ok((nmsrs as usize).div_ceil(64)));
        }

        let ranges = [Range { flags: range_flags, nmsrs, base }; MAX_RANGES].into_iter();
        prop_assert_eq!(
            default_allows(flags, ranges),
            match (flags, nmsrs) {
                (0, _) => Ok(true),
                (1, 1..) => Ok(false),
                _ => Err(Error::Invalid),
            },
        );
    }
}

#[test]
fn an_empty_filter_must_allow() {
    let unused = || [Range::default(); MAX_RANGES].into_iter();

    assert_eq!(default_allows(0, unused()), Ok(true));
    assert_eq!(default_allows(1, unused()), Err(Error::Invalid));
}

#[test]
fn bitmap_size_limits() {
    let words = |nmsrs| range(READ, 0, nmsrs, 0).0.bitmap_words();

    assert_eq!(words(1), Ok(1));
    assert_eq!(words(64), Ok(1));
    assert_eq!(words(65), Ok(2));
    assert_eq!(words(0x3000), Ok(0x600 / 8));
    assert_eq!(words(0x3001), Err(Error::Invalid));
    assert_eq!(words(u32::MAX), Err(Error::Invalid));
}

#[test]
fn more_ranges_than_there_may_be_are_refused() {
    let mut filter = Filter::new(true, Vec::new());
    let mut add = |first| {
        filter.add(&range(READ | WRITE, first, 5, 0).0, |words, count| {
            words.extend(vec![0; count]);
            Ok::<_, Error>(0)
        })
    };

    for i in 0..MAX_RANGES as u32 {
        assert_eq!(add(1 + 10 * i), Ok(()));
    }
    assert_eq!(add(1000), Err(Error::Invalid));
    filter.compile();
    assert!(filter.allows(1000, Access::Read));
    assert!(!filter.allows(151, Access::Read));
}

#[test]
fn an_invalid_range_is_refused_and_its_bitmap_not_read() {
    let mut filter = Filter::new(true, vec![]);
    let (range, _) = range(4, 0, 65, 0);
    let added = filter.add(&range, |_, _| -> Result<usize, Error> { unreachable!() });

    assert_eq!(added, Err(Error::Invalid));
    filter.compile();
    assert!(filter.allows(0, Access::Read));
}

#[test]
fn a_range_whose_bitmap_cannot_be_read_is_not_there() {
    let mut filter = Filter::new(true, vec![]);
    let (range, _) = range(READ, 0, 65, 0);

    assert_eq!(
        filter.add(&range, |_, _| Err(Error::TooBig)),
        Err(Error::TooBig)
    );
    filter.compile();
    assert!(filter.allows(0, Access::Read));
}

#[test]
fn a_range_that_is_not_in_use_has_no_bitmap() {
    let mut filter = Filter::new(true, vec![]);
    let (range, _) = range(4, 0, 0, 0);
    let added = filter.add(&range, |_, _| -> Result<usize, Error> { unreachable!() });

    assert_eq!(added, Ok(()));
    filter.compile();
    assert!(filter.allows(0, Access::Read));
}

#[test]
fn what_decides_nothing_is_not_described() {
    let filter = UserFilter {
        flags: 0,
        ranges: vec![
            range(READ, 0x100, 0x40, 0),
            // A range for writes only, within the first; for reads, the first one covers it.
            range(WRITE, 0x110, 8, 0),
            range(READ, 0x120, 8, 0),
        ],
    };
    let compiled = filter.compile().unwrap();
    let described = |access| -> Vec<_> {
        compiled
            .describe(access)
            .map(|segment| (segment.first, segment.last))
            .collect()
    };

    assert_eq!(
        described(Access::Read),
        [(0, 0xff), (0x100, 0x13f), (0x140, u32::MAX)],
    );
    assert_eq!(
        described(Access::Write),
        [(0, 0x10f), (0x110, 0x117), (0x118, u32::MAX)],
    );
}

#[test]
fn sixteen_full_size_ranges() {
    let alternating = 0xaaaa_aaaa_aaaa_aaaa;

    for (step, start) in [(0x3000, 0), (0x2fff, 5), (0x3001, 9), (0x1000_0000, 0x123)] {
        let ranges = (0..MAX_RANGES as u32)
            .map(|i| range(1 + i % 3, start + i * step, 0x3000, alternating << (i % 2)))
            .collect();
        let filter = UserFilter {
            flags: DEFAULT_DENY,
            ranges,
        };

        filter.check(&(0..0x34000).step_by(7).collect::<Vec<_>>());
    }
}

#[test]
fn thirty_two_cuts_are_all_used() {
    // Ranges that do not touch, so that there are 33 segments.
    let ranges = (0..MAX_RANGES as u32)
        .map(|i| range(READ | WRITE, 1 + 10 * i, 5, u64::MAX))
        .collect();
    let filter = UserFilter {
        flags: DEFAULT_DENY,
        ranges,
    };

    assert_eq!(filter.compile().unwrap().describe(Access::Read).count(), 33);
    filter.check(&(0..200).collect::<Vec<_>>());
}

#[test]
fn a_range_that_reaches_the_end_has_no_index() {
    for (base, nmsrs) in [(u32::MAX, 1), (u32::MAX - 63, 64), (u32::MAX - 10, 64)] {
        let filter = UserFilter {
            flags: 0,
            ranges: vec![range(READ | WRITE, base, nmsrs, 0)],
        };

        assert!(filter.compile().unwrap().allows(base, Access::Read));
        filter.check(&[]);
    }
    let filter = UserFilter {
        flags: 0,
        ranges: vec![range(READ | WRITE, u32::MAX - 64, 64, 0)],
    };
    assert!(!filter.compile().unwrap().allows(u32::MAX - 1, Access::Read));
    assert!(filter.compile().unwrap().allows(u32::MAX, Access::Read));
}
