// SPDX-License-Identifier: GPL-2.0

//! MSRs that tell what there is: `IA32_ARCH_CAPABILITIES`, `IA32_PERF_CAPABILITIES` and
//! `PLATFORM_INFO`, and `MISC_FEATURES_ENABLES`, which enables what that has.

use super::BOTH;
use crate::engine::{
    access::{
        read,
        read_common,
        write,
        write_common,
        By,
        Request, //
    },
    exit::{
        INVALID,
        UNSUPPORTED, //
    },
    model::{
        Effect,
        Vcpu,
        NOTHING, //
    },
    registers::{
        Feature,
        Field,
        Vendor, //
    },
};
use kernel::prelude::kunit_tests;

const PLATFORM_INFO: u32 = 0xce;
const ARCH_CAPABILITIES: u32 = 0x10a;
const MISC_FEATURES_ENABLES: u32 = 0x140;
const PERF_CAPABILITIES: u32 = 0x345;

const CPUID_FAULT: u64 = 1 << 31;

#[kunit_tests(kvm_msr_capabilities)]
mod cases {
    use super::*;

    #[test]
    fn cpuid_has_a_bit_for_each() {
        for (index, feature, field) in [
            (
                ARCH_CAPABILITIES,
                Feature::ArchCapabilities,
                Field::ArchCapabilities,
            ),
            (PERF_CAPABILITIES, Feature::Pdcm, Field::PerfCapabilities),
        ] {
            let vcpu = Vcpu::new(Vendor::Amd).without(feature);

            for by in BOTH {
                assert_eq!(read(&vcpu, index, by), Err(UNSUPPORTED));
                assert_eq!(write(&vcpu, index, 0, by), Err(UNSUPPORTED));
            }
            assert_eq!(vcpu.effects(), NOTHING);

            let vcpu = Vcpu::new(Vendor::Amd);

            vcpu.preset(field, 0x12);
            for by in BOTH {
                assert_eq!(read(&vcpu, index, by), Ok(0x12));
            }
            // To guests it is not there to be written.
            assert_eq!(write(&vcpu, index, 0x12, By::Guest), Err(UNSUPPORTED));
            assert_eq!(write(&vcpu, index, 0x13, By::Host), Ok(()));
            assert_eq!(read(&vcpu, index, By::Guest), Ok(0x13));
        }
    }

    #[test]
    fn arch_capabilities_are_any() {
        let vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(
            write_common(&vcpu, ARCH_CAPABILITIES, u64::MAX, By::Host),
            Ok(())
        );
        assert_eq!(
            vcpu.effects(),
            [Effect::Field(Field::ArchCapabilities, u64::MAX)]
        );
    }

    #[test]
    fn perf_capabilities_are_those_that_kvm_has() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        vcpu.supported_perf_capabilities = 0x3f;
        for bit in 6..64 {
            assert_eq!(
                write_common(&vcpu, PERF_CAPABILITIES, 1 << bit, By::Host),
                Err(INVALID)
            );
        }
        assert_eq!(vcpu.effects(), NOTHING);
    }

    #[test]
    fn pmus_are_refreshed_once() {
        let vcpu = Vcpu::new(Vendor::Intel);

        // KVM bugs the VM if a vCPU ran before.
        assert_eq!(write_common(&vcpu, PERF_CAPABILITIES, 0, By::Host), Ok(()));
        assert_eq!(vcpu.effects(), NOTHING);
        assert_eq!(
            write_common(&vcpu, PERF_CAPABILITIES, 0x12, By::Host),
            Ok(())
        );
        assert_eq!(
            vcpu.effects(),
            [
                Effect::Field(Field::PerfCapabilities, 0x12),
                Effect::RefreshPmu,
                Effect::Request(Request::RecalcIntercepts)
            ]
        );
        assert_eq!(read_common(&vcpu, PERF_CAPABILITIES, By::Guest), Ok(0x12));
    }

    #[test]
    fn user_space_may_hide_platform_info() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(write(&vcpu, PLATFORM_INFO, 0x12, By::Host), Ok(()));
        assert_eq!(write(&vcpu, PLATFORM_INFO, 0x12, By::Guest), Err(INVALID));
        assert_eq!(read(&vcpu, PLATFORM_INFO, By::Guest), Ok(0x12));
        vcpu.may_read_platform_info = false;
        assert_eq!(read(&vcpu, PLATFORM_INFO, By::Guest), Err(INVALID));
        assert_eq!(read(&vcpu, PLATFORM_INFO, By::Host), Ok(0x12));
    }

    #[test]
    fn cpuid_faults_if_the_platform_can() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for by in BOTH {
            for info in [0, !CPUID_FAULT, CPUID_FAULT, u64::MAX] {
                let can_fault = info & CPUID_FAULT != 0;

                vcpu.preset(Field::PlatformInfo, info);
                assert_eq!(write(&vcpu, MISC_FEATURES_ENABLES, 0, by), Ok(()));
                assert_eq!(
                    write(&vcpu, MISC_FEATURES_ENABLES, 1, by).is_ok(),
                    can_fault
                );
                assert_eq!(read(&vcpu, MISC_FEATURES_ENABLES, by), Ok(can_fault.into()));
                for bit in 1..64 {
                    assert_eq!(
                        write(&vcpu, MISC_FEATURES_ENABLES, 1 << bit, by),
                        Err(INVALID)
                    );
                }
            }
        }
    }
}
