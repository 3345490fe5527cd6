// SPDX-License-Identifier: GPL-2.0

//! Control-flow enforcement.
//!
//! Source: Intel SDM, chapter "Control-flow Enforcement Technology (CET)".

use super::model::{
    Effect,
    Owner,
    Vcpu,
    ANSWER,
    NOTHING, //
};
use super::{
    BOTH,
    VENDORS, //
};
use crate::engine::{
    access::{
        needs_fpu,
        read_existing,
        write_existing,
        Initiator, //
    },
    exit::{
        INVALID,
        UNSUPPORTED, //
    },
    registers::{
        lookup,
        Feature,
        Vendor, //
    },
};
use kernel::prelude::kunit_tests;

const U_CET: u32 = 0x6a0;
const S_CET: u32 = 0x6a2;
const SETTINGS: [u32; 2] = [U_CET, S_CET];
const PL0_SSP: u32 = 0x6a4;
const PL3_SSP: u32 = 0x6a7;
const INT_SSP_TAB: u32 = 0x6a8;
const GUEST_SSP: u32 = 0x4b56_4dff;

fn lacking_both(vendor: Vendor) -> Vcpu {
    Vcpu::new(vendor)
        .without(Feature::ShadowStack)
        .without(Feature::BranchTracking)
}

#[kunit_tests(kvm_msr_cet)]
mod cases {
    use super::*;

    #[test]
    fn settings_need_either_feature() {
        for initiator in BOTH {
            for index in SETTINGS {
                let vcpu = lacking_both(Vendor::Intel);

                assert_eq!(read_existing(&vcpu, index, initiator), Err(UNSUPPORTED));
                assert_eq!(write_existing(&vcpu, index, 0, initiator), Err(UNSUPPORTED));
                // Even with reserved bits, the MSR does not exist.
                assert_eq!(
                    write_existing(&vcpu, index, 1 << 6, initiator),
                    Err(UNSUPPORTED)
                );
                assert_eq!(vcpu.effects(), NOTHING);
                for feature in [Feature::ShadowStack, Feature::BranchTracking] {
                    let vcpu = Vcpu::new(Vendor::Intel).without(feature);

                    assert_eq!(read_existing(&vcpu, index, initiator), Ok(ANSWER));
                    assert_eq!(write_existing(&vcpu, index, 0, initiator), Ok(()));
                }
            }
        }
    }

    #[test]
    fn each_setting_needs_its_feature() {
        let stacks = Vcpu::new(Vendor::Intel).without(Feature::BranchTracking);
        let tracking = Vcpu::new(Vendor::Intel).without(Feature::ShadowStack);
        let both = Vcpu::new(Vendor::Intel);

        for bit in 0..64 {
            // With bit 12 or 13, the bitmap's address is not a multiple of 16 KiB.
            let reserved = matches!(bit, 6..=9 | 12 | 13);
            let of_stacks = bit < 2;

            for index in SETTINGS {
                for initiator in BOTH {
                    let is_taken = |vcpu| write_existing(vcpu, index, 1 << bit, initiator).is_ok();

                    assert_eq!(is_taken(&stacks), of_stacks);
                    assert_eq!(is_taken(&tracking), !of_stacks && !reserved);
                    assert_eq!(is_taken(&both), !reserved);
                }
            }
        }
    }

    #[test]
    fn tracking_is_not_suppressed_while_it_waits() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for index in SETTINGS {
            assert_eq!(
                write_existing(&vcpu, index, 0b01 << 10, Initiator::Guest),
                Ok(())
            );
            assert_eq!(
                write_existing(&vcpu, index, 0b10 << 10, Initiator::Guest),
                Ok(())
            );
            assert_eq!(
                write_existing(&vcpu, index, 0b11 << 10, Initiator::Guest),
                Err(INVALID)
            );
        }
    }

    #[test]
    fn pointers_need_shadow_stacks() {
        for vendor in VENDORS {
            let vcpu = Vcpu::new(vendor).without(Feature::ShadowStack);

            for initiator in BOTH {
                for index in PL0_SSP..=INT_SSP_TAB {
                    assert_eq!(read_existing(&vcpu, index, initiator), Err(UNSUPPORTED));
                    for data in [0, 1, 1 << 63] {
                        assert_eq!(
                            write_existing(&vcpu, index, data, initiator),
                            Err(UNSUPPORTED)
                        );
                    }
                }
            }
            assert_eq!(
                read_existing(&vcpu, GUEST_SSP, Initiator::Host),
                Err(UNSUPPORTED)
            );
            assert_eq!(
                write_existing(&vcpu, GUEST_SSP, 0, Initiator::Host),
                Err(UNSUPPORTED)
            );
            assert_eq!(vcpu.effects(), NOTHING);
        }
    }

    #[test]
    fn pointers_are_aligned_and_canonical() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        for initiator in BOTH {
            for index in PL0_SSP..=PL3_SSP {
                for data in [4, (1 << 47) - 4, !0 << 47] {
                    assert_eq!(write_existing(&vcpu, index, data, initiator), Ok(()));
                    assert_eq!(vcpu.effects(), [Effect::Write(Owner::Xstate, index, data)]);
                }
                for data in [1, 2, 3, 1 << 47, 1 << 63, !0 << 48 | 2] {
                    assert_eq!(write_existing(&vcpu, index, data, initiator), Err(INVALID));
                    assert_eq!(vcpu.effects(), NOTHING);
                }
            }
        }
        vcpu.address_bits = 57;
        assert_eq!(
            write_existing(&vcpu, PL0_SSP, 1 << 47, Initiator::Guest),
            Ok(())
        );
        assert_eq!(
            write_existing(&vcpu, PL0_SSP, 1 << 56, Initiator::Guest),
            Err(INVALID)
        );
    }

    #[test]
    fn the_table_is_an_address_of_64_bit_vcpus() {
        for vendor in VENDORS {
            for initiator in BOTH {
                let vcpu = Vcpu::new(vendor);

                // Of bytes.
                assert_eq!(write_existing(&vcpu, INT_SSP_TAB, 1, initiator), Ok(()));
                assert_eq!(
                    vcpu.effects(),
                    [Effect::Write(Owner::Vendor(initiator), INT_SSP_TAB, 1)]
                );
                assert_eq!(
                    write_existing(&vcpu, INT_SSP_TAB, 1 << 63, initiator),
                    Err(INVALID)
                );

                let vcpu = Vcpu::new(vendor).without(Feature::Lm);

                assert_eq!(
                    write_existing(&vcpu, INT_SSP_TAB, 0, initiator),
                    Err(UNSUPPORTED)
                );
                // KVM does not check LM for reads.
                assert_eq!(read_existing(&vcpu, INT_SSP_TAB, initiator), Ok(ANSWER));
            }
        }
    }

    #[test]
    fn guests_have_no_msr_for_their_pointer() {
        for vendor in VENDORS {
            let vcpu = Vcpu::new(vendor);

            assert_eq!(
                read_existing(&vcpu, GUEST_SSP, Initiator::Guest),
                Err(INVALID)
            );
            assert_eq!(
                write_existing(&vcpu, GUEST_SSP, 0, Initiator::Guest),
                Err(INVALID)
            );
            assert_eq!(
                write_existing(&vcpu, GUEST_SSP, 2, Initiator::Host),
                Err(INVALID)
            );
            assert_eq!(vcpu.effects(), NOTHING);
            assert_eq!(read_existing(&vcpu, GUEST_SSP, Initiator::Host), Ok(ANSWER));
            assert_eq!(write_existing(&vcpu, GUEST_SSP, 4, Initiator::Host), Ok(()));
        }
    }

    /// The state is loaded only if the vCPU has the MSR: a load is expensive, and the access fails
    /// anyway.
    #[test]
    fn what_is_in_the_fpus_state_needs_it_loaded() {
        let all = Vcpu::new(Vendor::Intel);
        let tracking = Vcpu::new(Vendor::Intel).without(Feature::ShadowStack);
        let none = lacking_both(Vendor::Intel);

        for index in 0x680..0x700 {
            let pointer = (PL0_SSP..=PL3_SSP).contains(&index);

            assert_eq!(needs_fpu(&all, lookup(index)), index == U_CET || pointer);
            assert_eq!(needs_fpu(&tracking, lookup(index)), index == U_CET);
            assert!(!needs_fpu(&none, lookup(index)));
        }
    }
}
