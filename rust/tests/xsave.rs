// SPDX-License-Identifier: GPL-2.0

//! `IA32_XSS`, `IA32_XFD` and `IA32_XFD_ERR`.

use super::model::{
    Effect,
    Owner,
    Vcpu,
    NOTHING,
    XFD, //
};
use super::BOTH;
use crate::engine::{
    access::{
        read_common,
        read_existing,
        write_common,
        write_existing,
        Initiator, //
    },
    exit::{
        INVALID,
        UNSUPPORTED, //
    },
    registers::{
        Feature,
        Field,
        Vendor, //
    },
};
use kernel::prelude::kunit_tests;

const XFD_MSR: u32 = 0x1c4;
const XFD_ERR: u32 = 0x1c5;
const XSS: u32 = 0xda0;

/// AMX: the only component that `IA32_XFD` can disable.
const TILE_DATA: u64 = 1 << 18;

#[kunit_tests(kvm_msr_xsave)]
mod cases {
    use super::*;

    #[test]
    fn xss_needs_xsaves() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        vcpu.has_xsaves = false;
        for initiator in BOTH {
            assert_eq!(write_existing(&vcpu, XSS, 0, initiator), Err(UNSUPPORTED));
        }
        assert_eq!(read_existing(&vcpu, XSS, Initiator::Guest), Err(INVALID));
        assert_eq!(read_existing(&vcpu, XSS, Initiator::Host), Ok(0));
        assert_eq!(vcpu.effects(), NOTHING);
    }

    #[test]
    fn xss_has_the_components_of_the_guest() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        vcpu.supported_xss = 0b11 << 11;
        for initiator in BOTH {
            for bit in 0..64 {
                let valid = bit == 11 || bit == 12;

                assert_eq!(
                    write_existing(&vcpu, XSS, 1 << bit, initiator).is_ok(),
                    valid
                );
            }
        }
    }

    #[test]
    fn cpuid_follows_xss() {
        let vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(write_existing(&vcpu, XSS, 0x800, Initiator::Guest), Ok(()));
        assert_eq!(
            vcpu.effects(),
            [Effect::Field(Field::Xss, 0x800), Effect::InvalidateCpuid]
        );
        assert_eq!(write_existing(&vcpu, XSS, 0x800, Initiator::Guest), Ok(()));
        assert_eq!(vcpu.effects(), NOTHING);
        assert_eq!(read_existing(&vcpu, XSS, Initiator::Guest), Ok(0x800));
    }

    #[test]
    fn guests_need_xfd_and_user_space_does_not() {
        let vcpu = Vcpu::new(Vendor::Amd).without(Feature::Xfd);

        for index in [XFD_MSR, XFD_ERR] {
            assert_eq!(read_existing(&vcpu, index, Initiator::Guest), Err(INVALID));
            assert_eq!(
                write_existing(&vcpu, index, 0, Initiator::Guest),
                Err(INVALID)
            );
            assert!(read_existing(&vcpu, index, Initiator::Host).is_ok());
            assert_eq!(write_existing(&vcpu, index, 0, Initiator::Host), Ok(()));
        }
    }

    #[test]
    fn what_faults_has_to_be_in_xcr0() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        vcpu.supported_xfd = TILE_DATA;
        for initiator in BOTH {
            assert_eq!(write_common(&vcpu, XFD_MSR, TILE_DATA, initiator), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::Xfd(TILE_DATA)]);
            assert_eq!(read_common(&vcpu, XFD_MSR, initiator), Ok(XFD));
            assert_eq!(write_common(&vcpu, XFD_ERR, TILE_DATA, initiator), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::Field(Field::XfdErr, TILE_DATA)]);
            assert_eq!(read_common(&vcpu, XFD_ERR, initiator), Ok(TILE_DATA));
            for index in [XFD_MSR, XFD_ERR] {
                for data in [1, TILE_DATA << 1, u64::MAX] {
                    assert_eq!(write_common(&vcpu, index, data, initiator), Err(INVALID));
                }
            }
            assert_eq!(vcpu.effects(), NOTHING);
        }
    }

    #[test]
    fn vmx_hears_of_xfd() {
        let vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(write_existing(&vcpu, XFD_MSR, 0, Initiator::Guest), Ok(()));
        assert_eq!(
            vcpu.effects(),
            [Effect::Write(Owner::Vendor(Initiator::Guest), XFD_MSR, 0)]
        );
        assert_eq!(read_existing(&vcpu, XFD_MSR, Initiator::Guest), Ok(XFD));
    }
}
