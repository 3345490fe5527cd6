// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The minimum number of ranges for eight MSRs of which a range can contain three, found by trying
//! all lists of ranges.

/// Number of MSRs.
pub const PLACES: u32 = 8;
/// The maximum number of MSRs in a range.
const LENGTH: u32 = 3;

/// The minimum for each set of allowed accesses: bit `i` is a read of MSR `i`, bit `8 + i` a
/// write.
pub struct Minimum(Vec<u8>);

impl Minimum {
    /// Starts with only the default, and puts each possible range before each list: the first
    /// matching range decides.
    /// the first range that matches wins.
    pub fn new() -> Self {
        const UNSEEN: u8 = u8::MAX;
        let ranges = all_ranges();
        let mut least = vec![UNSEEN; 1 << (2 * PLACES)];
        let mut sets = vec![0u16];

        least[0] = 0;
        for count in 1.. {
            let mut more = Vec::new();

            for set in sets {
                for &(matched, allowed) in &ranges {
                    let with = set & !matched | allowed;

                    if least[usize::from(with)] == UNSEEN {
                        least[usize::from(with)] = count;
                        more.push(with);
                    }
                }
            }
            if more.is_empty() {
                break;
            }
            sets = more;
        }
        Minimum(least)
    }

    /// The minimum for a set.
    pub fn of(&self, set: u16) -> usize {
        self.0[usize::from(set)].into()
    }
}

/// The accesses that each range matches, and those that it allows.
fn all_ranges() -> Vec<(u16, u16)> {
    let mut ranges = Vec::new();

    for base in 0..PLACES {
        for length in 1..=LENGTH.min(PLACES - base) {
            for bitmap in 0..1u16 << length {
                let matched = ((1u16 << length) - 1) << base;
                let allowed = bitmap << base;

                ranges.push((matched, allowed));
                ranges.push((matched << PLACES, allowed << PLACES));
                ranges.push((matched | matched << PLACES, allowed | allowed << PLACES));
            }
        }
    }
    ranges
}
