// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds the bits of a value that KVM refuses, by trying.

use crate::error::Result;

/// As few bits as will do to be taken from `other`, for `accepts` to take `value`: a mask of bits
/// such that leaving any of them as they are in `value` is refused.
///
/// `accepts` refuses `value` and takes `other`.
pub(super) fn bits_to_change(
    value: u64,
    other: u64,
    mut accepts: impl FnMut(u64) -> Result<bool>,
) -> Result<u64> {
    // Bits that are still taken from `other`.
    let mut changed = value ^ other;
    let with = |changed: u64| value & !changed | other & changed;
    // Halves that are still to be tried; a bit that is left alone has been tried.
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
    // What was needed at first may not be needed any more. That matters for a few bits; a
    // register that takes all or nothing would cost 64 more.
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
