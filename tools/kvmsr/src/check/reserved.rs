// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds the bits of a value that KVM refuses.

use crate::error::Result;

/// Finds a mask of as few bits as possible that have to come from `other`, for `accepts` to accept
/// `value`.
///
/// `accepts` refuses `value` and accepts `other`.
pub(super) fn bits_to_change(
    value: u64,
    other: u64,
    mut accepts: impl FnMut(u64) -> Result<bool>,
) -> Result<u64> {
    // Bits that still come from `other`.
    let mut changed = value ^ other;
    let with = |changed: u64| value & !changed | other & changed;
    // Halves that were not tried yet.
    let mut groups = vec![changed];

    while let Some(group) = groups.pop() {
        if accepts(with(changed & !group))? {
            changed &= !group;
        } else if group.count_ones() > 1 {
            let low = lower_half(group);

            groups.push(low);
            groups.push(group & !low);
        }
    }
    // A bit that was needed at first may no longer be. This is only tried for a few bits: a
    // register that accepts all bits or none would cost 64 more attempts.
    if changed.count_ones() <= 8 {
        for bit in bits(changed) {
            if changed & !bit != 0 && accepts(with(changed & !bit))? {
                changed &= !bit;
            }
        }
    }
    Ok(changed)
}

/// The lower half of the bits that are set.
fn lower_half(mask: u64) -> u64 {
    bits(mask)
        .take(mask.count_ones() as usize / 2)
        .fold(0, |half, bit| half | bit)
}

fn bits(mask: u64) -> impl Iterator<Item = u64> {
    (0..64)
        .map(|bit| 1 << bit)
        .filter(move |bit| mask & bit != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mask_of_reserved_bits_is_found(value: u64, reserved: u64) {
            prop_assume!(value & reserved != 0);
            let found = bits_to_change(value, 0, |value| Ok(value & reserved == 0)).unwrap();

            prop_assert_eq!(found, value & reserved);
        }

        #[test]
        fn bits_that_must_be_set_are_found(value: u64, must_be_0: u64, ones: u64) {
            let must_be_1 = ones & !must_be_0;
            let accepts = |value: u64| value & must_be_0 == 0 && value & must_be_1 == must_be_1;
            prop_assume!(!accepts(value));
            let found = bits_to_change(value, must_be_1, |value| Ok(accepts(value))).unwrap();

            prop_assert_eq!(found, value & must_be_0 | !value & must_be_1);
        }
    }

    #[test]
    fn few_tries_are_needed() {
        let mut tries = 0;
        let found = bits_to_change(u64::MAX, 0, |value| {
            tries += 1;
            Ok(value & 1 << 40 == 0)
        });

        assert_eq!(found.unwrap(), 1 << 40);
        assert!(tries <= 14, "{tries}");
    }

    #[test]
    fn a_type_that_is_reserved_changes_in_one_bit() {
        // As in a variable MTRR.
        let accepts = |value: u64| Ok(matches!(value & 0xff, 0 | 1 | 4 | 5 | 6));

        assert_eq!(bits_to_change(0x1003, 0, accepts).unwrap(), 2);
    }

    #[test]
    fn all_or_nothing_is_all() {
        let accepts = |value: u64| Ok(value == 0 || value == u64::MAX);

        assert_eq!(bits_to_change(0x1234, 0, accepts).unwrap(), 0x1234);
    }
}
