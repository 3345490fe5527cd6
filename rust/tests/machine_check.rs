// SPDX-License-Identifier: GPL-2.0

//! Machine checks.
//!
//! Source: Intel SDM, chapter "Machine-Check Architecture"; AMD APM, chapter "Machine Check
//! Architecture".

use super::model::{
    Effect,
    Vcpu,
    MCE_BANKS,
    MCE_CTL2,
    NOTHING, //
};
use super::BOTH;
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
        Field,
        Vendor, //
    },
};
use kernel::prelude::kunit_tests;

const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MCG_CTL: u32 = 0x17b;
const MC0_CTL2: u32 = 0x280;
const MC0_CTL: u32 = 0x400;
const MC0_STATUS: u32 = 0x401;
const MC0_ADDR: u32 = 0x402;

const CTL_P: u64 = 1 << 8;
const CMCI_P: u64 = 1 << 10;
const MAX_BANKS: u32 = 32;

/// Returns a vCPU with the given capabilities and number of banks.
fn vcpu_with(capabilities: u64) -> Vcpu {
    let vcpu = Vcpu::new(Vendor::Intel);

    vcpu.preset(Field::McgCap, capabilities);
    vcpu
}

#[kunit_tests(kvm_msr_machine_check)]
mod cases {
    use super::*;

    #[test]
    fn as_many_banks_as_there_are() {
        for banks in 0..=MAX_BANKS {
            let vcpu = vcpu_with(CTL_P | CMCI_P | u64::from(banks));

            for initiator in BOTH {
                for bank in 0..MAX_BANKS {
                    let has = bank < banks;

                    for index in (MC0_CTL..).skip(4 * bank as usize).take(4) {
                        let value = MCE_BANKS + u64::from(index - MC0_CTL);

                        assert_eq!(
                            read_existing(&vcpu, index, initiator),
                            has.then_some(value).ok_or(INVALID)
                        );
                        assert_eq!(write_existing(&vcpu, index, 0, initiator).is_ok(), has);
                        if has {
                            let offset = (index - MC0_CTL) as usize;

                            assert_eq!(vcpu.effects(), [Effect::MceBank(offset, 0)]);
                        }
                    }

                    let index = MC0_CTL2 + bank;
                    let value = MCE_CTL2 + u64::from(bank);

                    assert_eq!(
                        read_existing(&vcpu, index, initiator),
                        has.then_some(value).ok_or(INVALID)
                    );
                    assert_eq!(write_existing(&vcpu, index, 1, initiator).is_ok(), has);
                    if has {
                        assert_eq!(vcpu.effects(), [Effect::MceCtl2(bank as usize, 1)]);
                    }
                    assert_eq!(vcpu.effects(), NOTHING);
                }
            }
        }
    }

    #[test]
    fn banks_are_enabled_whole() {
        let vcpu = vcpu_with(2);

        for initiator in BOTH {
            for index in [MC0_CTL, MC0_CTL + 4] {
                // Old guests: Linux clears bit 10 on a K8, and UnixWare bit 0.
                for data in [0, u64::MAX, !(1 << 10), !1, !(1 << 10 | 1)] {
                    assert_eq!(write_existing(&vcpu, index, data, initiator), Ok(()));
                }
                for data in [1, 1 << 10, 1 << 63, !(1 << 9), !(1 << 63)] {
                    assert_eq!(write_existing(&vcpu, index, data, initiator), Err(INVALID));
                }
            }
        }
    }

    #[test]
    fn guests_clear_statuses_only() {
        let mut vcpu = vcpu_with(2);

        for enabled in [0, 1 << 18] {
            vcpu.preset(Field::Hwcr, enabled);
            for amd in [false, true] {
                vcpu.is_amd_compatible = amd;
                for index in [MC0_STATUS, MC0_STATUS + 4] {
                    let may_set = amd && enabled != 0;

                    assert_eq!(write_existing(&vcpu, index, 0, Initiator::Guest), Ok(()));
                    assert_eq!(
                        write_existing(&vcpu, index, 1 << 63, Initiator::Guest).is_ok(),
                        may_set
                    );
                    assert_eq!(
                        write_existing(&vcpu, index, 1 << 63, Initiator::Host),
                        Ok(())
                    );
                }
            }
        }
    }

    #[test]
    fn addresses_and_the_rest_are_any() {
        let vcpu = vcpu_with(2);

        for initiator in BOTH {
            for index in [MC0_ADDR, MC0_ADDR + 1, MC0_ADDR + 4] {
                assert_eq!(write_existing(&vcpu, index, 0x1234_5678, initiator), Ok(()));
            }
        }
    }

    #[test]
    fn corrected_errors_have_a_threshold() {
        for initiator in BOTH {
            let vcpu = vcpu_with(CMCI_P | 1);

            for bit in 0..64 {
                let valid = bit == 30 || bit < 15;

                assert_eq!(
                    write_existing(&vcpu, MC0_CTL2, 1 << bit, initiator).is_ok(),
                    valid
                );
            }
        }

        let vcpu = vcpu_with(1);

        assert_eq!(
            read_existing(&vcpu, MC0_CTL2, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(
            write_existing(&vcpu, MC0_CTL2, 0, Initiator::Guest),
            Err(INVALID)
        );
        // Without the capability, user space may read it, and write 0.
        assert_eq!(
            read_existing(&vcpu, MC0_CTL2, Initiator::Host),
            Ok(MCE_CTL2)
        );
        assert_eq!(write_existing(&vcpu, MC0_CTL2, 0, Initiator::Host), Ok(()));
        assert_eq!(
            write_existing(&vcpu, MC0_CTL2, 1, Initiator::Host),
            Err(INVALID)
        );
    }

    #[test]
    fn the_global_control_is_all_or_nothing() {
        for initiator in BOTH {
            let vcpu = vcpu_with(CTL_P);

            for data in [0, u64::MAX] {
                assert_eq!(write_existing(&vcpu, MCG_CTL, data, initiator), Ok(()));
                assert_eq!(vcpu.effects(), [Effect::Field(Field::McgCtl, data)]);
                assert_eq!(read_existing(&vcpu, MCG_CTL, initiator), Ok(data));
            }
            for data in [1, !1] {
                assert_eq!(
                    write_existing(&vcpu, MCG_CTL, data, initiator),
                    Err(INVALID)
                );
            }
        }

        let vcpu = vcpu_with(0);

        assert_eq!(
            read_existing(&vcpu, MCG_CTL, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(
            write_existing(&vcpu, MCG_CTL, 0, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(read_existing(&vcpu, MCG_CTL, Initiator::Host), Ok(0));
        assert_eq!(write_existing(&vcpu, MCG_CTL, 0, Initiator::Host), Ok(()));
        assert_eq!(
            write_existing(&vcpu, MCG_CTL, u64::MAX, Initiator::Host),
            Err(INVALID)
        );
    }

    #[test]
    fn capabilities_are_read_and_the_status_is_any() {
        let vcpu = vcpu_with(0x12);

        for initiator in BOTH {
            assert_eq!(read_existing(&vcpu, MCG_CAP, initiator), Ok(0x12));
            // User space sets the capabilities with KVM_X86_SETUP_MCE.
            assert_eq!(
                write_existing(&vcpu, MCG_CAP, 0x12, initiator),
                Err(UNSUPPORTED)
            );
            assert_eq!(
                write_existing(&vcpu, MCG_STATUS, u64::MAX, initiator),
                Ok(())
            );
            assert_eq!(read_existing(&vcpu, MCG_STATUS, initiator), Ok(u64::MAX));
            // The machine check MSRs of the Pentium.
            for index in [0, 1] {
                assert_eq!(read_existing(&vcpu, index, initiator), Ok(0));
                assert_eq!(write_existing(&vcpu, index, 0, initiator), Err(UNSUPPORTED));
            }
        }
    }
}
