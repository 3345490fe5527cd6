// SPDX-License-Identifier: GPL-2.0

//! MSRs that only store a value: `IA32_PAT`, `IA32_MISC_ENABLE`, `IA32_POWER_CTL`, the microcode
//! revision, and those of SMM.

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
        is_pat,
        read_common,
        read_existing,
        write_common,
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

const SMI_COUNT: u32 = 0x34;
const UCODE_REV: u32 = 0x8b;
const SMBASE: u32 = 0x9e;
const MISC_ENABLE: u32 = 0x1a0;
const POWER_CTL: u32 = 0x1fc;
const PAT: u32 = 0x277;

#[kunit_tests(kvm_msr_stored)]
mod cases {
    use super::*;

    /// SDM, chapter "Memory Cache Control": memory types 2, 3, and 8 and above are reserved.
    #[test]
    fn pat_has_six_memory_types() {
        let reset = 0x0007_0406_0007_0406_u64;

        assert!(is_pat(reset));
        for place in 0..8 {
            for kind in 0..=u8::MAX {
                let data = reset & !(0xff << (8 * place)) | u64::from(kind) << (8 * place);
                let valid = matches!(kind, 0 | 1 | 4..=7);
                let vcpu = Vcpu::new(Vendor::Intel);

                assert_eq!(is_pat(data), valid);
                for initiator in BOTH {
                    assert_eq!(write_common(&vcpu, PAT, data, initiator).is_ok(), valid);
                    if valid {
                        assert_eq!(vcpu.effects(), [Effect::Field(Field::Pat, data)]);
                        assert_eq!(read_common(&vcpu, PAT, initiator), Ok(data));
                    } else {
                        assert_eq!(vcpu.effects(), NOTHING);
                    }
                }
            }
        }
    }

    #[test]
    fn vendor_modules_hear_of_pat() {
        for vendor in VENDORS {
            let mut vcpu = Vcpu::new(vendor);

            assert_eq!(write_existing(&vcpu, PAT, 6, Initiator::Guest), Ok(()));
            assert_eq!(
                vcpu.effects(),
                [Effect::Write(Owner::Vendor(Initiator::Guest), PAT, 6)]
            );
            vcpu.preset(Field::Pat, 4);
            assert_eq!(read_existing(&vcpu, PAT, Initiator::Guest), Ok(4));
            // On SVM, L2 may have a separate PAT; VMX switches it at VM-entry.
            vcpu.is_nested = true;
            let expected = match vendor {
                Vendor::Amd => ANSWER,
                Vendor::Intel => 4,
            };
            assert_eq!(read_existing(&vcpu, PAT, Initiator::Guest), Ok(expected));
        }
    }

    #[test]
    fn guests_do_not_change_what_pmus_lack() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for bit in [1 << 11, 1 << 12] {
            for old in [0, bit] {
                vcpu.preset(Field::MiscEnable, old);
                assert_eq!(
                    write_existing(&vcpu, MISC_ENABLE, old ^ bit, Initiator::Guest),
                    Err(INVALID)
                );
                assert_eq!(vcpu.effects(), NOTHING);
                assert_eq!(
                    write_existing(&vcpu, MISC_ENABLE, old ^ bit, Initiator::Host),
                    Ok(())
                );
                assert_eq!(
                    vcpu.effects(),
                    [Effect::Field(Field::MiscEnable, old ^ bit)]
                );
            }
        }
    }

    #[test]
    fn guests_do_not_switch_performance_monitoring() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for old in [0, 1 << 7] {
            vcpu.preset(Field::MiscEnable, old);
            assert_eq!(
                write_existing(&vcpu, MISC_ENABLE, 1 | old ^ 1 << 7, Initiator::Guest),
                Ok(())
            );
            assert_eq!(
                read_existing(&vcpu, MISC_ENABLE, Initiator::Guest),
                Ok(1 | old)
            );
            assert_eq!(
                write_existing(&vcpu, MISC_ENABLE, old ^ 1 << 7, Initiator::Host),
                Ok(())
            );
            assert_eq!(
                read_existing(&vcpu, MISC_ENABLE, Initiator::Guest),
                Ok(old ^ 1 << 7)
            );
        }
    }

    #[test]
    fn monitor_in_cpuid_follows_misc_enable() {
        let mwait = 1 << 18;
        let stored = Effect::Field(Field::MiscEnable, mwait);

        for initiator in BOTH {
            let vcpu = Vcpu::new(Vendor::Intel);

            assert_eq!(write_existing(&vcpu, MISC_ENABLE, mwait, initiator), Ok(()));
            assert_eq!(vcpu.effects(), [stored, Effect::InvalidateCpuid]);
            assert_eq!(write_existing(&vcpu, MISC_ENABLE, mwait, initiator), Ok(()));
            assert_eq!(vcpu.effects(), [stored]);

            // KVM requires SSE3 to change the bit.
            let mut vcpu = Vcpu::new(Vendor::Intel).without(Feature::Xmm3);

            assert_eq!(
                write_existing(&vcpu, MISC_ENABLE, mwait, initiator),
                Err(INVALID)
            );
            assert_eq!(vcpu.effects(), NOTHING);

            vcpu.misc_enable_is_quirky = true;
            assert_eq!(write_existing(&vcpu, MISC_ENABLE, mwait, initiator), Ok(()));
            assert_eq!(vcpu.effects(), [stored]);
        }
    }

    #[test]
    fn power_ctl_takes_anything() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for initiator in BOTH {
            for data in [u64::MAX, 0] {
                assert_eq!(write_existing(&vcpu, POWER_CTL, data, initiator), Ok(()));
                assert_eq!(vcpu.effects(), [Effect::Field(Field::PowerCtl, data)]);
                assert_eq!(read_existing(&vcpu, POWER_CTL, initiator), Ok(data));
            }
        }
    }

    #[test]
    fn guests_do_not_load_microcode() {
        let vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(
            write_existing(&vcpu, UCODE_REV, 0x12 << 32, Initiator::Host),
            Ok(())
        );
        assert_eq!(
            vcpu.effects(),
            [Effect::Field(Field::MicrocodeVersion, 0x12 << 32)]
        );
        // Guests write 0 before they execute CPUID, which loads the revision on hardware. The value
        // does not change.
        assert_eq!(
            write_existing(&vcpu, UCODE_REV, 0, Initiator::Guest),
            Ok(())
        );
        // IA32_UCODE_WRITE, which starts an update.
        assert_eq!(
            write_existing(&vcpu, 0x79, 0x1234, Initiator::Guest),
            Ok(())
        );
        // AMD's MSR for updates.
        assert_eq!(
            write_existing(&vcpu, 0xc001_0020, 0x1234, Initiator::Guest),
            Ok(())
        );
        assert_eq!(vcpu.effects(), NOTHING);
        assert_eq!(
            read_existing(&vcpu, UCODE_REV, Initiator::Guest),
            Ok(0x12 << 32)
        );
    }

    #[test]
    fn guests_have_no_smbase() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(
            write_existing(&vcpu, SMBASE, 0x3_0000, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(read_existing(&vcpu, SMBASE, Initiator::Guest), Err(INVALID));
        assert_eq!(
            write_existing(&vcpu, SMBASE, 0x3_0000, Initiator::Host),
            Ok(())
        );
        assert_eq!(read_existing(&vcpu, SMBASE, Initiator::Host), Ok(0x3_0000));
        // User space can't access it either if KVM does not support SMM.
        vcpu.has_smm = false;
        assert_eq!(
            write_existing(&vcpu, SMBASE, 0x3_0000, Initiator::Host),
            Err(INVALID)
        );
        assert_eq!(read_existing(&vcpu, SMBASE, Initiator::Host), Err(INVALID));
    }

    #[test]
    fn guests_do_not_count_smis() {
        let vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(write_existing(&vcpu, SMI_COUNT, 3, Initiator::Host), Ok(()));
        assert_eq!(
            write_existing(&vcpu, SMI_COUNT, 3, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(vcpu.effects(), [Effect::Field(Field::SmiCount, 3)]);
        assert_eq!(read_existing(&vcpu, SMI_COUNT, Initiator::Guest), Ok(3));
    }
}
