// SPDX-License-Identifier: GPL-2.0

//! Speculation: `IA32_SPEC_CTRL`, `IA32_PRED_CMD` and `IA32_FLUSH_CMD`.

use super::{
    BOTH,
    VENDORS, //
};
use crate::engine::{
    access::{
        read,
        write,
        By,
        Command, //
    },
    exit::{
        INVALID,
        UNSUPPORTED, //
    },
    model::{
        Effect,
        Owner,
        Vcpu,
        ANSWER,
        NOTHING, //
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
            for by in BOTH {
                let vcpu = Vcpu::new(vendor);

                assert_eq!(read(&vcpu, SPEC_CTRL, by), Ok(ANSWER));
                assert_eq!(write(&vcpu, SPEC_CTRL, 1, by), Ok(()));
                assert_eq!(
                    vcpu.effects(),
                    [
                        Effect::Read(Owner::Vendor(by), SPEC_CTRL),
                        Effect::Write(Owner::Vendor(by), SPEC_CTRL, 1),
                    ]
                );
            }
        }
    }

    #[test]
    fn commands_are_not_read() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for index in [PRED_CMD, FLUSH_CMD] {
            assert_eq!(read(&vcpu, index, By::Guest), Err(UNSUPPORTED));
        }
    }

    #[test]
    fn barriers_reach_the_cpu() {
        let vcpu = Vcpu::new(Vendor::Amd);

        for by in BOTH {
            for data in [IBPB, SBPB, IBPB | SBPB] {
                assert_eq!(write(&vcpu, PRED_CMD, data, by), Ok(()));
                assert_eq!(vcpu.effects(), [Effect::Command(Command::Predict(data))]);
            }
            assert_eq!(write(&vcpu, PRED_CMD, 0, by), Ok(()));
            for bit in (1..64).filter(|&bit| bit != 7) {
                assert_eq!(write(&vcpu, PRED_CMD, 1 << bit, by), Err(INVALID));
            }
            assert_eq!(vcpu.effects(), NOTHING);
        }
    }

    #[test]
    fn guests_need_the_barriers_features() {
        let vcpu = Vcpu::new(Vendor::Amd).without(Feature::SpecCtrl);

        // Of two features for IBPB, one is enough.
        assert_eq!(write(&vcpu, PRED_CMD, IBPB, By::Guest), Ok(()));

        let vcpu = vcpu.without(Feature::AmdIbpb);

        assert_eq!(write(&vcpu, PRED_CMD, IBPB, By::Guest), Err(INVALID));
        assert_eq!(write(&vcpu, PRED_CMD, SBPB, By::Guest), Ok(()));
        assert_eq!(write(&vcpu, PRED_CMD, IBPB, By::Host), Ok(()));

        let vcpu = vcpu.without(Feature::Sbpb);

        // Without either, the MSR is not there.
        assert_eq!(write(&vcpu, PRED_CMD, 0, By::Guest), Err(INVALID));
        assert_eq!(write(&vcpu, PRED_CMD, SBPB, By::Host), Ok(()));

        let vcpu = Vcpu::new(Vendor::Amd).without(Feature::Sbpb);

        assert_eq!(write(&vcpu, PRED_CMD, SBPB, By::Guest), Err(INVALID));
        assert_eq!(write(&vcpu, PRED_CMD, IBPB, By::Guest), Ok(()));
    }

    #[test]
    fn nobody_commands_what_the_cpu_lacks() {
        for by in BOTH {
            let mut vcpu = Vcpu::new(Vendor::Amd);

            vcpu.host_has_ibpb = false;
            assert_eq!(write(&vcpu, PRED_CMD, IBPB, by), Err(INVALID));
            assert_eq!(write(&vcpu, PRED_CMD, SBPB, by), Ok(()));

            let mut vcpu = Vcpu::new(Vendor::Amd);

            vcpu.host_features = vcpu
                .host_features
                .without(Feature::Sbpb)
                .without(Feature::FlushL1d);
            assert_eq!(write(&vcpu, PRED_CMD, SBPB, by), Err(INVALID));
            assert_eq!(write(&vcpu, FLUSH_CMD, 1, by), Err(INVALID));
            assert_eq!(write(&vcpu, FLUSH_CMD, 0, by), Err(INVALID));
            assert_eq!(vcpu.effects(), NOTHING);
            assert_eq!(write(&vcpu, PRED_CMD, IBPB, by), Ok(()));
        }
    }

    #[test]
    fn the_l1_data_cache_is_flushed() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for by in BOTH {
            assert_eq!(write(&vcpu, FLUSH_CMD, 1, by), Ok(()));
            assert_eq!(vcpu.effects(), [Effect::Command(Command::FlushL1d)]);
            assert_eq!(write(&vcpu, FLUSH_CMD, 0, by), Ok(()));
            for bit in 1..64 {
                assert_eq!(write(&vcpu, FLUSH_CMD, 1 << bit, by), Err(INVALID));
            }
            assert_eq!(vcpu.effects(), NOTHING);
        }

        let vcpu = vcpu.without(Feature::FlushL1d);

        assert_eq!(write(&vcpu, FLUSH_CMD, 1, By::Guest), Err(INVALID));
        assert_eq!(write(&vcpu, FLUSH_CMD, 1, By::Host), Ok(()));
    }
}
