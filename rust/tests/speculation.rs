// SPDX-License-Identifier: GPL-2.0

//! Speculation: `IA32_SPEC_CTRL`, `IA32_PRED_CMD` and `IA32_FLUSH_CMD`.

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
        Vendor, //
    },
};
use kernel::prelude::kunit_tests;

const SPEC_CTRL: u32 = 0x48;
const PRED_CMD: u32 = 0x49;
const FLUSH_CMD: u32 = 0x10b;

const IBPB: u64 = 1 << 0;
const SBPB: u64 = 1 << 7;

#[kunit_tests(kvm_msr_speculation)]
mod cases {
    use super::*;

    #[test]
    fn spec_ctrl_is_the_vendor_modules() {
        for vendor in VENDORS {
            for initiator in BOTH {
                let vcpu = Vcpu::new(vendor);

                assert_eq!(read_existing(&vcpu, SPEC_CTRL, initiator), Ok(ANSWER));
                assert_eq!(write_existing(&vcpu, SPEC_CTRL, 1, initiator), Ok(()));
                assert_eq!(
                    vcpu.effects(),
                    [
                        Effect::Read(Owner::Vendor(initiator), SPEC_CTRL),
                        Effect::Write(Owner::Vendor(initiator), SPEC_CTRL, 1),
                    ]
                );
            }
        }
    }

    #[test]
    fn commands_are_not_read() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for index in [PRED_CMD, FLUSH_CMD] {
            assert_eq!(
                read_existing(&vcpu, index, Initiator::Guest),
                Err(UNSUPPORTED)
            );
        }
    }

    #[test]
    fn barriers_reach_the_cpu() {
        let vcpu = Vcpu::new(Vendor::Amd);

        for initiator in BOTH {
            for data in [IBPB, SBPB, IBPB | SBPB] {
                assert_eq!(write_existing(&vcpu, PRED_CMD, data, initiator), Ok(()));
                assert_eq!(vcpu.effects(), [Effect::Predict(data)]);
            }
            assert_eq!(write_existing(&vcpu, PRED_CMD, 0, initiator), Ok(()));
            for bit in (1..64).filter(|&bit| bit != 7) {
                assert_eq!(
                    write_existing(&vcpu, PRED_CMD, 1 << bit, initiator),
                    Err(INVALID)
                );
            }
            assert_eq!(vcpu.effects(), NOTHING);
        }
    }

    #[test]
    fn guests_need_the_barriers_features() {
        let vcpu = Vcpu::new(Vendor::Amd).without(Feature::SpecCtrl);

        // Either feature is enough for IBPB.
        assert_eq!(
            write_existing(&vcpu, PRED_CMD, IBPB, Initiator::Guest),
            Ok(())
        );

        let vcpu = vcpu.without(Feature::AmdIbpb);

        assert_eq!(
            write_existing(&vcpu, PRED_CMD, IBPB, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(
            write_existing(&vcpu, PRED_CMD, SBPB, Initiator::Guest),
            Ok(())
        );
        assert_eq!(
            write_existing(&vcpu, PRED_CMD, IBPB, Initiator::Host),
            Ok(())
        );

        let vcpu = vcpu.without(Feature::Sbpb);

        // Without either feature, the MSR does not exist.
        assert_eq!(
            write_existing(&vcpu, PRED_CMD, 0, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(
            write_existing(&vcpu, PRED_CMD, SBPB, Initiator::Host),
            Ok(())
        );

        let vcpu = Vcpu::new(Vendor::Amd).without(Feature::Sbpb);

        assert_eq!(
            write_existing(&vcpu, PRED_CMD, SBPB, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(
            write_existing(&vcpu, PRED_CMD, IBPB, Initiator::Guest),
            Ok(())
        );
    }

    #[test]
    fn nobody_commands_what_the_cpu_lacks() {
        for initiator in BOTH {
            let mut vcpu = Vcpu::new(Vendor::Amd);

            vcpu.host_has_ibpb = false;
            assert_eq!(
                write_existing(&vcpu, PRED_CMD, IBPB, initiator),
                Err(INVALID)
            );
            assert_eq!(write_existing(&vcpu, PRED_CMD, SBPB, initiator), Ok(()));

            let mut vcpu = Vcpu::new(Vendor::Amd);

            vcpu.host_features = vcpu
                .host_features
                .without(Feature::Sbpb)
                .without(Feature::FlushL1d);
            assert_eq!(
                write_existing(&vcpu, PRED_CMD, SBPB, initiator),
                Err(INVALID)
            );
            assert_eq!(write_existing(&vcpu, FLUSH_CMD, 1, initiator), Err(INVALID));
            assert_eq!(write_existing(&vcpu, FLUSH_CMD, 0, initiator), Err(INVALID));
            assert_eq!(vcpu.effects(), NOTHING);
            assert_eq!(write_existing(&vcpu, PRED_CMD, IBPB, initiator), Ok(()));
        }
    }

    #[test]
    fn the_l1_data_cache_is_flushed() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for initiator in BOTH {
            assert_eq!(write_existing(&vcpu, FLUSH_CMD, 1, initiator), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::FlushL1d]);
            assert_eq!(write_existing(&vcpu, FLUSH_CMD, 0, initiator), Ok(()));
            for bit in 1..64 {
                assert_eq!(
                    write_existing(&vcpu, FLUSH_CMD, 1 << bit, initiator),
                    Err(INVALID)
                );
            }
            assert_eq!(vcpu.effects(), NOTHING);
        }

        let vcpu = vcpu.without(Feature::FlushL1d);

        assert_eq!(
            write_existing(&vcpu, FLUSH_CMD, 1, Initiator::Guest),
            Err(INVALID)
        );
        assert_eq!(write_existing(&vcpu, FLUSH_CMD, 1, Initiator::Host), Ok(()));
    }
}
