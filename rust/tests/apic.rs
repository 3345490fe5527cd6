// SPDX-License-Identifier: GPL-2.0

//! The local APIC: `IA32_APICBASE`, and the MSRs of x2APIC mode.

use super::model::{
    Effect,
    Owner,
    Vcpu,
    ANSWER, //
};
use super::{
    BOTH,
    VENDORS, //
};
use crate::engine::{
    access::{
        read_common,
        read_existing,
        write_common,
        write_existing,
        Initiator, //
    },
    exit::INVALID,
    registers::{
        Field,
        Vendor, //
    },
};
use kernel::prelude::kunit_tests;

const APICBASE: u32 = 0x1b;

#[kunit_tests(kvm_msr_apic)]
mod cases {
    use super::*;

    #[test]
    fn the_lapic_takes_its_base() {
        for initiator in BOTH {
            let mut vcpu = Vcpu::new(Vendor::Intel);

            vcpu.preset(Field::ApicBase, 0xfee0_0900);
            assert_eq!(read_existing(&vcpu, APICBASE, initiator), Ok(0xfee0_0900));
            assert_eq!(
                write_existing(&vcpu, APICBASE, 0xfee0_0d00, initiator),
                Ok(())
            );
            assert_eq!(vcpu.effects(), [Effect::ApicBase(0xfee0_0d00, initiator)]);
            vcpu.answer = Err(INVALID);
            assert_eq!(
                write_existing(&vcpu, APICBASE, 0xfee0_0d00, initiator),
                Err(INVALID)
            );
        }
    }

    #[test]
    fn the_lapic_has_the_msrs_of_its_mode() {
        for vendor in VENDORS {
            for index in 0x800..=0x8ff {
                let mut vcpu = Vcpu::new(vendor);

                for initiator in BOTH {
                    vcpu.answer = Ok(ANSWER);
                    assert_eq!(read_existing(&vcpu, index, initiator), Ok(ANSWER));
                    assert_eq!(write_existing(&vcpu, index, 12, initiator), Ok(()));
                    assert_eq!(
                        vcpu.effects(),
                        [
                            Effect::Read(Owner::X2apic, index),
                            Effect::Write(Owner::X2apic, index, 12),
                        ]
                    );
                    vcpu.answer = Err(INVALID);
                    assert_eq!(read_existing(&vcpu, index, Initiator::Guest), Err(INVALID));
                    assert_eq!(
                        write_existing(&vcpu, index, 12, Initiator::Guest),
                        Err(INVALID)
                    );
                    vcpu.effects();
                }
            }
        }
    }

    #[test]
    fn there_are_256_of_them() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for index in [0x7ff, 0x900] {
            assert!(read_common(&vcpu, index, Initiator::Guest).is_err());
            assert!(write_common(&vcpu, index, 0, Initiator::Guest).is_err());
        }
    }
}
