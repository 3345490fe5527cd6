// SPDX-License-Identifier: GPL-2.0

//! AMD's MSRs: `HWCR`, OS visible workarounds, and MSRs for old guests.

use super::model::{
    Effect,
    Owner,
    Vcpu,
    NOTHING, //
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

const HWCR: u32 = 0xc001_0015;
const MMIO_CONF_BASE: u32 = 0xc001_0058;
const OSVW_ID_LENGTH: u32 = 0xc001_0140;
const OSVW_STATUS: u32 = 0xc001_0141;

#[kunit_tests(kvm_msr_amd)]
mod cases {
    use super::*;

    #[test]
    fn hwcr_has_three_bits() {
        let all = Vcpu::new(Vendor::Amd);
        let lacking = Vcpu::new(Vendor::Amd).without(Feature::CpuidUserDis);

        for initiator in BOTH {
            for bit in 0..64 {
                for (vcpu, has) in [
                    (&all, matches!(bit, 18 | 24 | 35)),
                    (&lacking, matches!(bit, 18 | 24)),
                ] {
                    let data = 1 << bit;
                    let write = write_existing(vcpu, HWCR, data, initiator);

                    if has {
                        assert_eq!(write, Ok(()));
                        assert_eq!(vcpu.effects(), [Effect::Field(Field::Hwcr, data)]);
                        assert_eq!(read_existing(vcpu, HWCR, initiator), Ok(data));
                    } else if matches!(bit, 3 | 6 | 8) {
                        // These bits are accepted, and dropped.
                        assert_eq!(write, Ok(()));
                        assert_eq!(vcpu.effects(), [Effect::Field(Field::Hwcr, 0)]);
                    } else {
                        assert_eq!(write, Err(INVALID));
                        assert_eq!(vcpu.effects(), [Effect::Unimplemented(HWCR, data)]);
                    }
                }
            }
        }
    }

    #[test]
    fn osvw_is_there_if_cpuid_says_so() {
        for (index, field) in [
            (OSVW_ID_LENGTH, Field::OsvwLength),
            (OSVW_STATUS, Field::OsvwStatus),
        ] {
            for initiator in BOTH {
                let vcpu = Vcpu::new(Vendor::Amd);

                assert_eq!(write_existing(&vcpu, index, u64::MAX, initiator), Ok(()));
                assert_eq!(vcpu.effects(), [Effect::Field(field, u64::MAX)]);
                assert_eq!(read_existing(&vcpu, index, initiator), Ok(u64::MAX));

                let vcpu = vcpu.without(Feature::Osvw);

                assert_eq!(write_existing(&vcpu, index, 0, initiator), Err(INVALID));
                assert_eq!(read_existing(&vcpu, index, initiator), Err(INVALID));
                assert_eq!(vcpu.effects(), NOTHING);
            }
        }
    }

    /// They exist on Intel, too: KVM does not check the vendor in the guest's CPUID.
    #[test]
    fn workarounds_that_old_systems_apply_do_nothing() {
        for vendor in VENDORS {
            let vcpu = Vcpu::new(vendor);

            // NB_CFG, DC_CFG, TW_CFG, BU_CFG2, EX_CFG
            for index in [
                0xc001_001f,
                0xc001_1022,
                0xc001_1023,
                0xc001_102a,
                0xc001_102c,
            ] {
                for initiator in BOTH {
                    assert_eq!(write_existing(&vcpu, index, u64::MAX, initiator), Ok(()));
                    assert_eq!(read_existing(&vcpu, index, initiator), Ok(0));
                }
            }
            // K7_CLK_CTL: the clock ramp that Linux expects on a K7.
            assert_eq!(
                write_existing(&vcpu, 0xc001_001b, 0, Initiator::Guest),
                Ok(())
            );
            assert_eq!(
                read_existing(&vcpu, 0xc001_001b, Initiator::Guest),
                Ok(0x2000_0000)
            );
            assert_eq!(vcpu.effects(), NOTHING);
        }
    }

    #[test]
    fn there_is_no_mmio_configuration_space() {
        let vcpu = Vcpu::new(Vendor::Amd);

        for initiator in BOTH {
            assert_eq!(read_existing(&vcpu, MMIO_CONF_BASE, initiator), Ok(0));
            assert_eq!(write_existing(&vcpu, MMIO_CONF_BASE, 0, initiator), Ok(()));
            assert_eq!(vcpu.effects(), NOTHING);
            assert_eq!(
                write_existing(&vcpu, MMIO_CONF_BASE, 1, initiator),
                Err(INVALID)
            );
            assert_eq!(vcpu.effects(), [Effect::Unimplemented(MMIO_CONF_BASE, 1)]);
        }
    }

    #[test]
    fn what_only_svm_has() {
        let amd = Vcpu::new(Vendor::Amd);
        let intel = Vcpu::new(Vendor::Intel);

        // VIRT_SPEC_CTRL, TSC_RATIO, VM_CR, DE_CFG
        for index in [0xc001_011f, 0xc000_0104, 0xc001_0114, 0xc001_1029] {
            for initiator in BOTH {
                assert_eq!(write_existing(&amd, index, 12, initiator), Ok(()));
                assert_eq!(
                    amd.effects(),
                    [Effect::Write(Owner::Vendor(initiator), index, 12)]
                );
                assert!(read_existing(&amd, index, initiator).is_ok());
                assert_eq!(
                    amd.effects(),
                    [Effect::Read(Owner::Vendor(initiator), index)]
                );
                assert_eq!(read_existing(&intel, index, initiator), Err(UNSUPPORTED));
                assert_eq!(
                    write_existing(&intel, index, 12, initiator),
                    Err(UNSUPPORTED)
                );
            }
        }
        // The vendor module serves writes of VM_IGNNE and reads of IC_CFG.
        assert_eq!(
            write_existing(&amd, 0xc001_0115, 0, Initiator::Guest),
            Ok(())
        );
        assert_eq!(
            read_existing(&amd, 0xc001_0115, Initiator::Guest),
            Err(UNSUPPORTED)
        );
        assert!(read_existing(&amd, 0xc001_1021, Initiator::Guest).is_ok());
        assert_eq!(
            write_existing(&amd, 0xc001_1021, 0, Initiator::Guest),
            Err(UNSUPPORTED)
        );
        assert_eq!(intel.effects(), NOTHING);
    }
}
