// SPDX-License-Identifier: GPL-2.0

//! The cache of properties of the host that are detected by trying.

use crate::{
    engine::registers::{
        lookup,
        REGISTERS, //
    },
    kvm::host::probed::{
        forget,
        has_msr,
        TSC_AUX, //
    },
};
use kernel::prelude::*;

const IA32_CR_PAT: u32 = 0x277;
/// An MSR in no list.
const UNKNOWN: u32 = 0xdead;

#[kunit_tests(kvm_msr_probed)]
mod cases {
    use super::*;

    #[test]
    fn answers_hold_until_they_are_forgotten() {
        let pat = lookup(IA32_CR_PAT);

        for answer in [true, false] {
            forget();
            assert_eq!(has_msr(pat, IA32_CR_PAT, || answer), answer);
            assert_eq!(has_msr(pat, IA32_CR_PAT, || !answer), answer);
            assert_eq!(TSC_AUX.get(|| answer), answer);
            assert_eq!(TSC_AUX.get(|| !answer), answer);
        }
        // The test's answers must not affect a VM.
        forget();
    }

    #[test]
    fn no_two_msrs_of_a_list_share_an_answer() {
        let listed = || {
            REGISTERS
                .iter()
                .filter(|register| register.list_position.is_some())
                .flat_map(|register| {
                    (register.first..=register.last).map(move |index| (register, index))
                })
        };

        forget();
        // Each MSR is detected on its own.
        for (register, index) in listed() {
            let mut asked = false;

            has_msr(register, index, || {
                asked = true;
                true
            });
            assert!(asked);
        }
        forget();
    }

    #[test]
    fn msrs_that_are_in_no_list_are_always_asked() {
        assert!(has_msr(lookup(UNKNOWN), UNKNOWN, || true));
        assert!(!has_msr(lookup(UNKNOWN), UNKNOWN, || false));
    }
}
