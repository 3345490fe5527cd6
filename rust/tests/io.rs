// SPDX-License-Identifier: GPL-2.0

//! The lists of `KVM_GET_MSRS` and `KVM_SET_MSRS`, and which MSRs need the guest's FPU state.

use super::VENDORS;
use crate::engine::{
    registers::{
        lookup,
        Register, //
    },
    request::{
        self,
        Error, //
    },
};
use kernel::prelude::*;

#[kunit_tests(kvm_msr_io)]
mod cases {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(request::check_count(0), Ok(()));
        assert_eq!(request::check_count(255), Ok(()));
        assert_eq!(request::check_count(256), Err(Error::TooBig));
        assert_eq!(request::check_count(u32::MAX), Err(Error::TooBig));
    }

    #[test]
    fn immutable_features() {
        let nr = (0..0x2000)
            .filter(|&index| lookup(index).is_immutable())
            .count();

        assert_eq!(nr, 18 + 3);
        assert!(lookup(0xc001_1029).is_immutable());
        assert!(!lookup(0x8b).is_immutable());
    }

    #[test]
    fn user_space_writes_some_msrs_with_a_check() {
        let is_unchecked = |register: &Register, vendor| {
            register.is_simple_write || register.vendor.writes_unchecked(vendor)
        };

        for vendor in VENDORS {
            assert!((0..0x2000)
                .map(lookup)
                .filter(|register| register.is_immutable() || register.is_xstate)
                .all(|register| !is_unchecked(register, vendor)));
        }
    }

    #[test]
    fn xstate_has_the_user_cet_msrs() {
        let nr = (0..0x2000).filter(|&index| lookup(index).is_xstate).count();

        assert_eq!(nr, 5);
        for index in [0x6a0, 0x6a4, 0x6a5, 0x6a6, 0x6a7] {
            assert!(lookup(index).is_xstate);
        }
    }
}
