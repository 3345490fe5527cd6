// SPDX-License-Identifier: GPL-2.0

//! `IA32_XSS`, `IA32_XFD` and `IA32_XFD_ERR`.

use super::BOTH;
use crate::engine::{
    access::{
        read,
        read_common,
        write,
        write_common,
        By, //
    },
    exit::{
        INVALID,
        UNSUPPORTED, //
    },
    model::{
        Effect,
        Owner,
        Vcpu,
        NOTHING,
        XFD, //
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

/// AMX, the one component that may fault.
const TILE_DATA: u64 = 1 << 18;

#[kunit_tests(kvm_msr_xsave)]
mod cases {
    use super::*;

    #[test]
    fn xss_needs_xsaves() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        vcpu.has_xsaves = false;
        for by in BOTH {
            assert_eq!(write(&vcpu, XSS, 0, by), Err(UNSUPPORTED));
        }
        assert_eq!(read(&vcpu, XSS, By::Guest), Err(INVALID));
        assert_eq!(read(&vcpu, XSS, By::Host), Ok(0));
        assert_eq!(vcpu.effects(), NOTHING);
    }

    #[test]
    fn xss_has_the_components_of_the_guest() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        vcpu.supported_xss = 0b11 << 11;
        for by in BOTH {
            for bit in 0..64 {
                let valid = bit == 11 || bit == 12;

                assert_eq!(write(&vcpu, XSS, 1 << bit, by).is_ok(), valid);
            }
        }
    }

    #[test]
    fn cpuid_follows_xss() {
        let vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(write(&vcpu, XSS, 0x800, By::Guest), Ok(()));
        assert_eq!(
            vcpu.effects(),
            [Effect::Field(Field::Xss, 0x800), Effect::CpuidChanged]
        );
        assert_eq!(write(&vcpu, XSS, 0x800, By::Guest), Ok(()));
        assert_eq!(vcpu.effects(), NOTHING);
        assert_eq!(read(&vcpu, XSS, By::Guest), Ok(0x800));
    }

    #[test]
    fn guests_need_xfd_and_user_space_does_not() {
        let vcpu = Vcpu::new(Vendor::Amd).without(Feature::Xfd);

        for index in [XFD_MSR, XFD_ERR] {
            assert_eq!(read(&vcpu, index, By::Guest), Err(INVALID));
            assert_eq!(write(&vcpu, index, 0, By::Guest), Err(INVALID));
            assert!(read(&vcpu, index, By::Host).is_ok());
            assert_eq!(write(&vcpu, index, 0, By::Host), Ok(()));
        }
    }

    #[test]
    fn what_faults_has_to_be_in_xcr0() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        vcpu.supported_xfd = TILE_DATA;
        for by in BOTH {
            assert_eq!(write_common(&vcpu, XFD_MSR, TILE_DATA, by), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::Xfd(TILE_DATA)]);
            assert_eq!(read_common(&vcpu, XFD_MSR, by), Ok(XFD));
            assert_eq!(write_common(&vcpu, XFD_ERR, TILE_DATA, by), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::Field(Field::XfdErr, TILE_DATA)]);
            assert_eq!(read_common(&vcpu, XFD_ERR, by), Ok(TILE_DATA));
            for index in [XFD_MSR, XFD_ERR] {
                for data in [1, TILE_DATA << 1, u64::MAX] {
                    assert_eq!(write_common(&vcpu, index, data, by), Err(INVALID));
                }
            }
            assert_eq!(vcpu.effects(), NOTHING);
        }
    }

    #[test]
    fn vmx_hears_of_xfd() {
        let vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(write(&vcpu, XFD_MSR, 0, By::Guest), Ok(()));
        assert_eq!(
            vcpu.effects(),
            [Effect::Write(Owner::Vendor(By::Guest), XFD_MSR, 0)]
        );
        assert_eq!(read(&vcpu, XFD_MSR, By::Guest), Ok(XFD));
    }
}
