// SPDX-License-Identifier: GPL-2.0

//! The time stamp counter: `IA32_TSC`, `IA32_TSC_ADJUST`, `IA32_TSC_DEADLINE` and `TSC_AUX`.

use super::model::{
    Effect,
    Owner,
    Vcpu,
    ANSWER,
    L1_TSC,
    NOTHING,
    TSC,
    TSC_DEADLINE, //
};
use super::{
    BOTH,
    VENDORS, //
};
use crate::engine::{
    access::{
        read_existing,
        write_existing,
        Initiator, //
    },
    cpu::Request,
    exit::INVALID,
    registers::{
        Feature,
        Field,
        Vendor, //
    },
};
use kernel::prelude::kunit_tests;

const TSC_MSR: u32 = 0x10;
const ADJUST: u32 = 0x3b;
const DEADLINE: u32 = 0x6e0;
const AUX: u32 = 0xc000_0103;

#[kunit_tests(kvm_msr_time)]
mod cases {
    use super::*;

    #[test]
    fn user_space_has_l1s_tsc() {
        let vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(read_existing(&vcpu, TSC_MSR, Initiator::Guest), Ok(TSC));
        assert_eq!(read_existing(&vcpu, TSC_MSR, Initiator::Host), Ok(L1_TSC));
        assert_eq!(write_existing(&vcpu, TSC_MSR, 12, Initiator::Host), Ok(()));
        assert_eq!(vcpu.effects(), [Effect::SynchronizeTsc(12)]);
    }

    /// SDM, section "Time-Stamp Counter Adjustment": a write adds the same difference to the TSC
    /// and to `IA32_TSC_ADJUST`.
    #[test]
    fn guests_adjust_by_writing_the_tsc() {
        let vcpu = Vcpu::new(Vendor::Intel);

        vcpu.preset(Field::TscAdjust, 5);
        assert_eq!(
            write_existing(&vcpu, TSC_MSR, L1_TSC + 7, Initiator::Guest),
            Ok(())
        );
        assert_eq!(
            vcpu.effects(),
            [
                Effect::AdjustTscOffset(7),
                Effect::Field(Field::TscAdjust, 12)
            ]
        );
        // 13 less than before: the difference is negative.
        assert_eq!(
            write_existing(&vcpu, TSC_MSR, L1_TSC - 13, Initiator::Guest),
            Ok(())
        );
        assert_eq!(read_existing(&vcpu, ADJUST, Initiator::Guest), Ok(u64::MAX));
    }

    #[test]
    fn guests_do_not_write_a_protected_tsc() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        vcpu.is_tsc_protected = true;
        assert_eq!(write_existing(&vcpu, TSC_MSR, 12, Initiator::Guest), Ok(()));
        assert_eq!(vcpu.effects(), NOTHING);
    }

    /// A write of `IA32_TSC_ADJUST` adds its difference to the TSC.
    #[test]
    fn guests_adjust_the_tsc() {
        let vcpu = Vcpu::new(Vendor::Intel);

        vcpu.preset(Field::TscAdjust, 5);
        assert_eq!(write_existing(&vcpu, ADJUST, 12, Initiator::Guest), Ok(()));
        assert_eq!(
            vcpu.effects(),
            [
                Effect::AdjustTscOffset(7),
                Effect::Request(Request::ClockUpdate),
                Effect::Field(Field::TscAdjust, 12),
            ]
        );
        // User space restores the TSC separately.
        assert_eq!(write_existing(&vcpu, ADJUST, 20, Initiator::Host), Ok(()));
        assert_eq!(vcpu.effects(), [Effect::Field(Field::TscAdjust, 20)]);
        for initiator in BOTH {
            assert_eq!(read_existing(&vcpu, ADJUST, initiator), Ok(20));
        }
    }

    #[test]
    fn adjusting_does_nothing_without_the_feature() {
        let vcpu = Vcpu::new(Vendor::Intel).without(Feature::TscAdjust);

        for initiator in BOTH {
            assert_eq!(write_existing(&vcpu, ADJUST, 12, initiator), Ok(()));
            assert_eq!(vcpu.effects(), NOTHING);
            assert_eq!(read_existing(&vcpu, ADJUST, initiator), Ok(0));
        }
    }

    #[test]
    fn deadlines_are_the_lapics() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for initiator in BOTH {
            assert_eq!(write_existing(&vcpu, DEADLINE, u64::MAX, initiator), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::TscDeadline(u64::MAX)]);
            assert_eq!(read_existing(&vcpu, DEADLINE, initiator), Ok(TSC_DEADLINE));
        }
    }

    #[test]
    fn tsc_aux_needs_an_instruction_that_reads_it() {
        for vendor in VENDORS {
            for (features, guest) in [
                (&[][..], true),
                (&[Feature::Rdtscp], true),
                (&[Feature::Rdpid], true),
                (&[Feature::Rdtscp, Feature::Rdpid], false),
            ] {
                let vcpu = features
                    .iter()
                    .fold(Vcpu::new(vendor), |vcpu, &feature| vcpu.without(feature));

                assert_eq!(read_existing(&vcpu, AUX, Initiator::Guest).is_ok(), guest);
                assert_eq!(
                    write_existing(&vcpu, AUX, 0, Initiator::Guest).is_ok(),
                    guest
                );
                assert_eq!(read_existing(&vcpu, AUX, Initiator::Host), Ok(ANSWER));
                assert_eq!(write_existing(&vcpu, AUX, 0, Initiator::Host), Ok(()));
            }
        }
    }

    #[test]
    fn tsc_aux_needs_the_host() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        vcpu.can_switch_tsc_aux = false;
        for initiator in BOTH {
            assert_eq!(read_existing(&vcpu, AUX, initiator), Err(INVALID));
            assert_eq!(write_existing(&vcpu, AUX, 0, initiator), Err(INVALID));
        }
        assert_eq!(vcpu.effects(), NOTHING);
    }

    /// The guest's CPUID decides, not the host's.
    #[test]
    fn tsc_aux_has_32_bits() {
        for vendor in VENDORS {
            for initiator in BOTH {
                let mut vcpu = Vcpu::new(vendor);

                vcpu.is_amd_compatible = false;
                assert_eq!(write_existing(&vcpu, AUX, 1 << 32, initiator), Err(INVALID));
                assert_eq!(vcpu.effects(), NOTHING);
                vcpu.is_amd_compatible = true;
                assert_eq!(write_existing(&vcpu, AUX, 1 << 32 | 12, initiator), Ok(()));
                assert_eq!(
                    vcpu.effects(),
                    [Effect::Write(Owner::Vendor(initiator), AUX, 12)]
                );
            }
        }
    }
}
