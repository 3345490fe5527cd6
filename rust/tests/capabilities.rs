// SPDX-License-Identifier: GPL-2.0

//! MSRs that report capabilities: `IA32_ARCH_CAPABILITIES`, `IA32_PERF_CAPABILITIES` and
//! `PLATFORM_INFO`, and `MISC_FEATURES_ENABLES`, which enables features of the last one.

use super::model::{
    Effect,
    Vcpu,
    NOTHING, //
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
    cpu::Request,
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

            for initiator in BOTH {
                assert_eq!(read_existing(&vcpu, index, initiator), Err(UNSUPPORTED));
                assert_eq!(write_existing(&vcpu, index, 0, initiator), Err(UNSUPPORTED));
            }
            assert_eq!(vcpu.effects(), NOTHING);

            let vcpu = Vcpu::new(Vendor::Amd);

            vcpu.preset(field, 0x12);
            for initiator in BOTH {
                assert_eq!(read_existing(&vcpu, index, initiator), Ok(0x12));
            }
            // For guest writes, the MSR does not exist.
            assert_eq!(
                write_existing(&vcpu, index, 0x12, Initiator::Guest),
                Err(UNSUPPORTED)
            );
            assert_eq!(write_existing(&vcpu, index, 0x13, Initiator::Host), Ok(()));
            assert_eq!(read_existing(&vcpu, index, Initiator::Guest), Ok(0x13));
        }
    }

    #[test]
    fn arch_capabilities_are_any() {
        let vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(
            write_common(&vcpu, ARCH_CAPABILITIES, u64::MAX, Initiator::Host),
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
                write_common(&vcpu, PERF_CAPABILITIES, 1 << bit, Initiator::Host),
                Err(INVALID)
            );
        }
        assert_eq!(vcpu.effects(), NOTHING);
    }

    #[test]
    fn pmus_are_refreshed_once() {
        let vcpu = Vcpu::new(Vendor::Intel);

        // If the vCPU has run, KVM kills the VM (KVM_BUG_ON).
        assert_eq!(
            write_common(&vcpu, PERF_CAPABILITIES, 0, Initiator::Host),
            Ok(())
        );
        assert_eq!(vcpu.effects(), NOTHING);
        assert_eq!(
            write_common(&vcpu, PERF_CAPABILITIES, 0x12, Initiator::Host),
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
        assert_eq!(
            read_common(&vcpu, PERF_CAPABILITIES, Initiator::Guest),
            Ok(0x12)
        );
    }

    #[test]
    fn user_space_may_hide_platform_info() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(
            write_existing(&vcpu, PLATFORM_INFO, 0x12, Initiator::Host),
            Ok(())
        );
        assert_eq!(
            write_existing(&vcpu, PLATFORM_INFO, 0x12, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(
            read_existing(&vcpu, PLATFORM_INFO, Initiator::Guest),
            Ok(0x12)
        );
        vcpu.may_read_platform_info = false;
        assert_eq!(
            read_existing(&vcpu, PLATFORM_INFO, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(
            read_existing(&vcpu, PLATFORM_INFO, Initiator::Host),
            Ok(0x12)
        );
    }

    #[test]
    fn cpuid_faults_if_the_platform_can() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for initiator in BOTH {
            for info in [0, !CPUID_FAULT, CPUID_FAULT, u64::MAX] {
                let can_fault = info & CPUID_FAULT != 0;

                vcpu.preset(Field::PlatformInfo, info);
                assert_eq!(
                    write_existing(&vcpu, MISC_FEATURES_ENABLES, 0, initiator),
                    Ok(())
                );
                assert_eq!(
                    write_existing(&vcpu, MISC_FEATURES_ENABLES, 1, initiator).is_ok(),
                    can_fault
                );
                assert_eq!(
                    read_existing(&vcpu, MISC_FEATURES_ENABLES, initiator),
                    Ok(can_fault.into())
                );
                for bit in 1..64 {
                    assert_eq!(
                        write_existing(&vcpu, MISC_FEATURES_ENABLES, 1 << bit, initiator),
                        Err(INVALID)
                    );
                }
            }
        }
    }
}
