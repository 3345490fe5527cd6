// SPDX-License-Identifier: GPL-2.0

//! `KVM_CAP_X86_USER_SPACE_MSR`: which masks are valid, and which failures exit to user space.

use crate::engine::{exit::*, request::Error};
use proptest::prelude::*;
use std::num::NonZero;

/// The table in api.rst: KVM's result, and the reason for user space.
fn documented_reason(ret: i32) -> u32 {
    if ret == 2 {
        2
    } else if ret == 3 {
        4
    } else {
        1
    }
}

proptest! {
    #[test]
    fn takes_defined_reasons_only(arg: u64) {
        let taken = reasons_of_cap(arg);

        if arg < 8 {
            prop_assert_eq!(u64::from(taken.unwrap()), arg);
        } else {
            prop_assert_eq!(taken, Err(Error::Invalid));
        }
    }

    #[test]
    fn each_high_bit_is_refused(mask in 0u64..8, bit in 3u32..64) {
        prop_assert_eq!(reasons_of_cap(mask | 1 << bit), Err(Error::Invalid));
    }

    #[test]
    fn a_failure_has_one_reason(mask in 0u32..8, ret: NonZero<i32>) {
        let reason = documented_reason(ret.get());
        let expected = (mask & reason != 0).then_some(reason);

        prop_assert_eq!(exit_reason(ret.into(), mask), expected);
    }
}

#[test]
fn all_masks_and_results() {
    for mask in 0..8 {
        for ret in [-14, -1, 1, 2, 3, 4] {
            let reason = documented_reason(ret);

            let denial = NonZero::new(ret.into()).unwrap();

            assert_eq!(
                exit_reason(denial, reasons_of_cap(mask).unwrap()),
                (mask as u32 & reason != 0).then_some(reason),
                "mask {mask}, result {ret}",
            );
        }
    }
}
