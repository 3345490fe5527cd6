// SPDX-License-Identifier: GPL-2.0

//! The local APIC: `IA32_APICBASE`, and the MSRs of x2APIC mode.

use super::{
    BOTH,
    VENDORS, //
};
use crate::engine::{
    access::{
        read,
        write,
        By, //
    },
    exit::INVALID,
    model::{
        Effect,
        Owner,
        Vcpu,
        ANSWER, //
    },
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
        for by in BOTH {
            let mut vcpu = Vcpu::new(Vendor::Intel);

            vcpu.preset(Field::ApicBase, 0xfee0_0900);
            assert_eq!(read(&vcpu, APICBASE, by), Ok(0xfee0_0900));
            assert_eq!(write(&vcpu, APICBASE, 0xfee0_0d00, by), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::ApicBase(0xfee0_0d00, by)]);
            vcpu.answer = Err(INVALID);
            assert_eq!(write(&vcpu, APICBASE, 0xfee0_0d00, by), Err(INVALID));
        }
    }

    #[test]
    fn the_lapic_has_the_msrs_of_its_mode() {
        for vendor in VENDORS {
            for index in 0x800..=0x8ff {
                let mut vcpu = Vcpu::new(vendor);

                for by in BOTH {
                    vcpu.answer = Ok(ANSWER);
                    assert_eq!(read(&vcpu, index, by), Ok(ANSWER));
                    assert_eq!(write(&vcpu, index, 12, by), Ok(()));
                    assert_eq!(
                        vcpu.effects(),
                        [
                            Effect::Read(Owner::X2apic, index),
                            Effect::Write(Owner::X2apic, index, 12),
                        ]
                    );
                    vcpu.answer = Err(INVALID);
                    assert_eq!(read(&vcpu, index, By::Guest), Err(INVALID));
                    assert_eq!(write(&vcpu, index, 12, By::Guest), Err(INVALID));
                    vcpu.effects();
                }
            }
        }
    }

    #[test]
    fn there_are_256_of_them() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for index in [0x7ff, 0x900] {
            assert!(read(&vcpu, index, By::Guest).is_err());
            assert!(write(&vcpu, index, 0, By::Guest).is_err());
        }
    }
}
