// SPDX-License-Identifier: GPL-2.0

//! `EFER`.

use super::model::{
    Effect,
    Vcpu,
    NOTHING, //
};
use super::{
    BOTH,
    VENDORS, //
};
use crate::engine::{
    access::{
        efer,
        read_existing,
        write_existing,
        Initiator, //
    },
    exit::INVALID,
    registers::{
        Feature,
        Field,
        Vendor, //
    },
};
use kernel::prelude::kunit_tests;

const EFER: u32 = 0xc000_0080;
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;

#[kunit_tests(kvm_msr_efer)]
mod cases {
    use super::*;

    #[test]
    fn bits_need_features() {
        for (bit, feature) in [
            (8, Feature::Lm),
            (10, Feature::Lm),
            (11, Feature::Nx),
            (12, Feature::Svm),
            (14, Feature::FxsrOpt),
            (21, Feature::AutoIbrs),
        ] {
            let vcpu = Vcpu::new(Vendor::Amd);

            assert!(efer::is_valid(&vcpu, 1 << bit));
            assert_eq!(
                write_existing(&vcpu, EFER, 1 << bit, Initiator::Guest),
                Ok(())
            );

            let vcpu = Vcpu::new(Vendor::Amd).without(feature);

            assert!(!efer::is_valid(&vcpu, 1 << bit));
            assert_eq!(
                write_existing(&vcpu, EFER, 1 << bit, Initiator::Guest),
                Err(INVALID)
            );
            assert_eq!(vcpu.effects(), NOTHING);
            // User space may set EFER before CPUID.
            assert_eq!(
                write_existing(&vcpu, EFER, 1 << bit, Initiator::Host),
                Ok(())
            );
        }
    }

    #[test]
    fn bits_that_kvm_lacks_are_refused() {
        for initiator in BOTH {
            let mut vcpu = Vcpu::new(Vendor::Intel);

            vcpu.supported_efer = !(1 << 13);
            assert!(!efer::is_valid(&vcpu, 1 << 13));
            assert_eq!(
                write_existing(&vcpu, EFER, 1 << 13, initiator),
                Err(INVALID)
            );
            assert_eq!(vcpu.effects(), NOTHING);
            assert_eq!(write_existing(&vcpu, EFER, 1 << 15, initiator), Ok(()));
        }
    }

    #[test]
    fn the_vendor_module_stores_it() {
        for vendor in VENDORS {
            let vcpu = Vcpu::new(vendor);

            vcpu.preset(Field::Efer, 1);
            assert_eq!(write_existing(&vcpu, EFER, LME, Initiator::Guest), Ok(()));
            assert_eq!(
                vcpu.effects(),
                [Effect::VendorEfer(LME), Effect::EferChanged(1, LME)]
            );
            assert_eq!(read_existing(&vcpu, EFER, Initiator::Guest), Ok(1));
        }
    }

    #[test]
    fn the_vendor_module_may_refuse() {
        let mut vcpu = Vcpu::new(Vendor::Amd);

        vcpu.answer = Err(INVALID);
        for initiator in BOTH {
            assert_eq!(write_existing(&vcpu, EFER, 1, initiator), Err(INVALID));
            assert_eq!(vcpu.effects(), [Effect::VendorEfer(1)]);
        }
    }

    #[test]
    fn nobody_writes_long_mode_active() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for initiator in BOTH {
            vcpu.preset(Field::Efer, 0);
            assert_eq!(write_existing(&vcpu, EFER, LMA, initiator), Ok(()));
            assert_eq!(
                vcpu.effects(),
                [Effect::VendorEfer(0), Effect::EferChanged(0, 0)]
            );

            vcpu.preset(Field::Efer, LME | LMA);
            assert_eq!(write_existing(&vcpu, EFER, LME, initiator), Ok(()));
            assert_eq!(
                vcpu.effects(),
                [
                    Effect::VendorEfer(LME | LMA),
                    Effect::EferChanged(LME | LMA, LME | LMA)
                ]
            );
        }
    }

    #[test]
    fn long_mode_stays_while_paging_is_on() {
        for (old, new) in [(0, LME), (LME, 0)] {
            let mut vcpu = Vcpu::new(Vendor::Intel);

            vcpu.is_paging = true;
            vcpu.preset(Field::Efer, old);
            assert_eq!(
                write_existing(&vcpu, EFER, new, Initiator::Guest),
                Err(INVALID)
            );
            assert_eq!(vcpu.effects(), NOTHING);
            assert_eq!(
                write_existing(&vcpu, EFER, old | 1, Initiator::Guest),
                Ok(())
            );
            assert_eq!(write_existing(&vcpu, EFER, new, Initiator::Host), Ok(()));
        }
    }
}
