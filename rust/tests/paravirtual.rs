// SPDX-License-Identifier: GPL-2.0

//! KVM's own MSRs.
//!
//! Source: `Documentation/virt/kvm/x86/msr.rst`.

use super::model::{
    Effect,
    Vcpu,
    NOTHING,
    WALL_CLOCK, //
};
use super::BOTH;
use crate::engine::{
    access::{
        read_existing,
        write_existing,
        Initiator, //
    },
    cpu::Request,
    exit::{
        INVALID,
        UNSUPPORTED, //
    },
    registers::{
        Field,
        Pv,
        Vendor, //
    },
};
use kernel::prelude::kunit_tests;

const WALL_CLOCK_OLD: u32 = 0x11;
const SYSTEM_TIME_OLD: u32 = 0x12;
const WALL_CLOCK_NEW: u32 = 0x4b56_4d00;
const SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;
const ASYNC_PF_EN: u32 = 0x4b56_4d02;
const STEAL_TIME: u32 = 0x4b56_4d03;
const PV_EOI_EN: u32 = 0x4b56_4d04;
const POLL_CONTROL: u32 = 0x4b56_4d05;
const ASYNC_PF_INT: u32 = 0x4b56_4d06;
const ASYNC_PF_ACK: u32 = 0x4b56_4d07;

/// Flags of `ASYNC_PF_EN`.
const ENABLED: u64 = 1 << 0;
const SEND_ALWAYS: u64 = 1 << 1;
const DELIVERY_AS_PF_VMEXIT: u64 = 1 << 2;
const DELIVERY_AS_INT: u64 = 1 << 3;

fn vcpu() -> Vcpu {
    Vcpu::new(Vendor::Intel)
}

#[kunit_tests(kvm_msr_paravirtual)]
mod cases {
    use super::*;

    /// The numbers are the bits of CPUID leaf 0x40000001, see cpuid.rst.
    #[test]
    fn each_needs_its_feature() {
        for (index, bit) in [
            (WALL_CLOCK_OLD, 0),
            (SYSTEM_TIME_OLD, 0),
            (WALL_CLOCK_NEW, 3),
            (SYSTEM_TIME_NEW, 3),
            (ASYNC_PF_EN, 4),
            (STEAL_TIME, 5),
            (PV_EOI_EN, 6),
            (POLL_CONTROL, 12),
            (ASYNC_PF_INT, 14),
            (ASYNC_PF_ACK, 14),
        ] {
            let lacking = vcpu().without_pv(Pv(bit));
            let mut lacking_others = vcpu();

            lacking_others.pv = 1 << bit;
            for initiator in BOTH {
                assert_eq!(read_existing(&lacking, index, initiator), Err(UNSUPPORTED));
                assert_eq!(
                    write_existing(&lacking, index, 0, initiator),
                    Err(UNSUPPORTED)
                );
                assert_eq!(lacking.effects(), NOTHING);
                assert!(read_existing(&lacking_others, index, initiator).is_ok());
                assert_eq!(write_existing(&lacking_others, index, 0, initiator), Ok(()));
            }
        }
    }

    #[test]
    fn wall_clocks_are_one() {
        for index in [WALL_CLOCK_OLD, WALL_CLOCK_NEW] {
            for initiator in BOTH {
                let vcpu = vcpu();

                assert_eq!(write_existing(&vcpu, index, 0x1000, initiator), Ok(()));
                assert_eq!(vcpu.effects(), [Effect::WallClock(0x1000)]);
                assert_eq!(read_existing(&vcpu, index, initiator), Ok(WALL_CLOCK));
            }
        }
    }

    #[test]
    fn system_time_is_at_an_address_or_nowhere() {
        for index in [SYSTEM_TIME_OLD, SYSTEM_TIME_NEW] {
            for (data, address) in [(0x1001, Some(0x1000)), (0x1000, None), (0, None)] {
                let vcpu = vcpu();

                assert_eq!(write_existing(&vcpu, index, data, Initiator::Host), Ok(()));
                assert_eq!(
                    vcpu.effects(),
                    [
                        Effect::Field(Field::SystemTime, data),
                        Effect::Request(Request::GlobalClockUpdate),
                        Effect::ClockAddress(address),
                    ]
                );
                for index in [SYSTEM_TIME_OLD, SYSTEM_TIME_NEW] {
                    assert_eq!(read_existing(&vcpu, index, Initiator::Guest), Ok(data));
                }
            }
        }
    }

    /// All vCPUs share a master clock unless the boot vCPU uses the old MSR.
    #[test]
    fn the_boot_cpu_tells_how_old_the_guest_is() {
        let rest = [
            Effect::Field(Field::SystemTime, 0),
            Effect::Request(Request::GlobalClockUpdate),
            Effect::ClockAddress(None),
        ];
        let [field, global, address] = rest;

        for (index, old) in [(SYSTEM_TIME_OLD, true), (SYSTEM_TIME_NEW, false)] {
            let mut vcpu = vcpu();

            vcpu.boot_clock_is_old = !old;
            assert_eq!(write_existing(&vcpu, index, 0, Initiator::Guest), Ok(()));
            assert_eq!(
                vcpu.effects(),
                [
                    Effect::Request(Request::MasterClockUpdate),
                    Effect::BootClockIsOld(old),
                    field,
                    global,
                    address
                ]
            );
            vcpu.boot_clock_is_old = old;
            assert_eq!(write_existing(&vcpu, index, 0, Initiator::Guest), Ok(()));
            assert_eq!(
                vcpu.effects(),
                [Effect::BootClockIsOld(old), field, global, address]
            );
            vcpu.is_boot_cpu = false;
            assert_eq!(write_existing(&vcpu, index, 0, Initiator::Guest), Ok(()));
            assert_eq!(vcpu.effects(), rest);
        }
    }

    #[test]
    fn async_page_faults_need_their_features() {
        for initiator in BOTH {
            for (lacking, flag) in [
                (vcpu().without_pv(Pv(10)), DELIVERY_AS_PF_VMEXIT),
                (vcpu().without_pv(Pv(14)), DELIVERY_AS_INT),
            ] {
                assert_eq!(
                    write_existing(&lacking, ASYNC_PF_EN, flag, initiator),
                    Err(INVALID)
                );
                assert_eq!(lacking.effects(), NOTHING);
                assert_eq!(
                    write_existing(&vcpu(), ASYNC_PF_EN, flag, initiator),
                    Ok(())
                );
            }
            for reserved in [1 << 4, 1 << 5] {
                assert_eq!(
                    write_existing(&vcpu(), ASYNC_PF_EN, reserved, initiator),
                    Err(INVALID)
                );
            }
        }
    }

    /// KVM reports that a page is ready by interrupt only.
    #[test]
    fn async_page_faults_need_interrupts() {
        for flags in 0..16 {
            let vcpu = vcpu();
            let data = 0x1_2345_6780 | flags;
            let stored = Effect::Field(Field::AsyncPfEn, data);

            assert_eq!(
                write_existing(&vcpu, ASYNC_PF_EN, data, Initiator::Guest),
                Ok(())
            );
            if flags & (ENABLED | DELIVERY_AS_INT) == ENABLED | DELIVERY_AS_INT {
                assert_eq!(
                    vcpu.effects(),
                    [
                        Effect::AsyncPfAddress(0x1_2345_6780),
                        stored,
                        Effect::WakeAsyncPf
                    ]
                );
            } else {
                assert_eq!(vcpu.effects(), [stored, Effect::ClearAsyncPf]);
            }
            assert_eq!(
                read_existing(&vcpu, ASYNC_PF_EN, Initiator::Guest),
                Ok(data)
            );
        }
    }

    #[test]
    fn async_page_faults_need_an_address() {
        let mut vcpu = vcpu();
        let data = ENABLED | SEND_ALWAYS | DELIVERY_AS_INT;

        vcpu.answer = Err(INVALID);
        assert_eq!(
            write_existing(&vcpu, ASYNC_PF_EN, data, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(vcpu.effects(), [Effect::AsyncPfAddress(0)]);
        assert_eq!(read_existing(&vcpu, ASYNC_PF_EN, Initiator::Guest), Ok(0));
    }

    #[test]
    fn async_page_faults_need_a_lapic() {
        let mut vcpu = vcpu();

        vcpu.has_lapic = false;
        for initiator in BOTH {
            assert_eq!(write_existing(&vcpu, ASYNC_PF_EN, 0, initiator), Ok(()));
            assert_eq!(
                write_existing(&vcpu, ASYNC_PF_EN, 0x40, initiator),
                Err(INVALID)
            );
            assert_eq!(
                write_existing(&vcpu, ASYNC_PF_INT, 0, initiator),
                Err(INVALID)
            );
            assert_eq!(vcpu.effects(), NOTHING);
        }
    }

    #[test]
    fn async_page_faults_have_a_vector() {
        let vcpu = vcpu();

        for initiator in BOTH {
            assert_eq!(write_existing(&vcpu, ASYNC_PF_INT, 0xec, initiator), Ok(()));
            assert_eq!(
                vcpu.effects(),
                [
                    Effect::Field(Field::AsyncPfInt, 0xec),
                    Effect::AsyncPfVector(0xec)
                ]
            );
            assert_eq!(read_existing(&vcpu, ASYNC_PF_INT, initiator), Ok(0xec));
            for bit in 8..64 {
                assert_eq!(
                    write_existing(&vcpu, ASYNC_PF_INT, 1 << bit, initiator),
                    Err(INVALID)
                );
            }
            assert_eq!(write_existing(&vcpu, ASYNC_PF_ACK, !0, initiator), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::AcknowledgeAsyncPf]);
            assert_eq!(write_existing(&vcpu, ASYNC_PF_ACK, !1, initiator), Ok(()));
            assert_eq!(vcpu.effects(), NOTHING);
            assert_eq!(read_existing(&vcpu, ASYNC_PF_ACK, initiator), Ok(0));
        }
    }

    #[test]
    fn steal_time_is_at_a_multiple_of_64() {
        for initiator in BOTH {
            let mut vcpu = vcpu();

            assert_eq!(write_existing(&vcpu, STEAL_TIME, 0x1041, initiator), Ok(()));
            assert_eq!(
                vcpu.effects(),
                [
                    Effect::Field(Field::StealTime, 0x1041),
                    Effect::Request(Request::StealUpdate)
                ]
            );
            assert_eq!(write_existing(&vcpu, STEAL_TIME, 0x1040, initiator), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::Field(Field::StealTime, 0x1040)]);
            for bit in 1..6 {
                assert_eq!(
                    write_existing(&vcpu, STEAL_TIME, 1 | 1 << bit, initiator),
                    Err(INVALID)
                );
            }
            vcpu.has_sched_info = false;
            assert_eq!(
                write_existing(&vcpu, STEAL_TIME, 0, initiator),
                Err(INVALID)
            );
            assert_eq!(vcpu.effects(), NOTHING);
        }
    }

    #[test]
    fn the_lapic_takes_pv_eoi() {
        let mut vcpu = vcpu();

        for initiator in BOTH {
            vcpu.answer = Ok(0);
            vcpu.preset(Field::PvEoi, 0x1001);
            assert_eq!(write_existing(&vcpu, PV_EOI_EN, 0x2001, initiator), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::PvEoi(0x2001)]);
            assert_eq!(read_existing(&vcpu, PV_EOI_EN, initiator), Ok(0x1001));
            vcpu.answer = Err(INVALID);
            assert_eq!(
                write_existing(&vcpu, PV_EOI_EN, 0x2001, initiator),
                Err(INVALID)
            );
            vcpu.effects();
        }
    }

    #[test]
    fn polling_is_a_bit() {
        for initiator in BOTH {
            let vcpu = vcpu();

            for data in [0, 1] {
                assert_eq!(write_existing(&vcpu, POLL_CONTROL, data, initiator), Ok(()));
                assert_eq!(vcpu.effects(), [Effect::Field(Field::PollControl, data)]);
                assert_eq!(read_existing(&vcpu, POLL_CONTROL, initiator), Ok(data));
            }
            for bit in 1..64 {
                assert_eq!(
                    write_existing(&vcpu, POLL_CONTROL, 1 << bit, initiator),
                    Err(INVALID)
                );
            }
        }
    }
}
