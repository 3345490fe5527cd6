// SPDX-License-Identifier: GPL-2.0

//! Exits to user space.

use crate::{
    bindings,
    engine::{
        exit,
        filter::{
            DEFAULT_DENY,
            MAX_BITMAP_BYTES,
            MAX_RANGES,
            READ,
            WRITE, //
        },
    },
};
use kernel::prelude::*;

#[kunit_tests(kvm_msr_exit)]
mod cases {
    use super::*;

    #[test]
    fn constants_are_those_of_the_uapi() {
        assert_eq!(exit::REASON_INVAL, bindings::KVM_MSR_EXIT_REASON_INVAL);
        assert_eq!(exit::REASON_UNKNOWN, bindings::KVM_MSR_EXIT_REASON_UNKNOWN);
        assert_eq!(exit::REASON_FILTER, bindings::KVM_MSR_EXIT_REASON_FILTER);
        assert_eq!(
            exit::UNSUPPORTED.get(),
            i64::from(bindings::KVM_MSR_RET_UNSUPPORTED)
        );
        assert_eq!(
            exit::FILTERED.get(),
            i64::from(bindings::KVM_MSR_RET_FILTERED)
        );
        assert_eq!(READ, bindings::KVM_MSR_FILTER_READ);
        assert_eq!(WRITE, bindings::KVM_MSR_FILTER_WRITE);
        assert_eq!(DEFAULT_DENY, bindings::KVM_MSR_FILTER_DEFAULT_DENY);
        assert_eq!(MAX_RANGES, bindings::KVM_MSR_FILTER_MAX_RANGES as usize);
        assert_eq!(
            MAX_BITMAP_BYTES,
            bindings::KVM_MSR_FILTER_MAX_BITMAP_SIZE as usize
        );
    }

    #[test]
    fn reasons() {
        for mask in 0..8u32 {
            for (ret, reason) in [(1, 1), (2, 2), (3, 4), (4, 1), (-22, 1)] {
                let expected = (mask & reason != 0).then_some(reason);

                let denial = exit::Denial::new(ret.into()).unwrap();

                assert_eq!(exit::exit_reason(denial, mask), expected);
            }
        }
    }

    #[test]
    fn undefined_reasons_are_refused() {
        for bit in 0..64 {
            assert_eq!(exit::reasons_of_cap(1 << bit).is_ok(), bit < 3);
        }
    }
}
