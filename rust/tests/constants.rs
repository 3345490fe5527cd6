// SPDX-License-Identifier: GPL-2.0

//! MSRs with a constant value.

use super::model::{
    Effect,
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
    exit::UNSUPPORTED,
    registers::Vendor,
};
use kernel::prelude::kunit_tests;

const BBL_CR_CTL3: u32 = 0x11e;

#[kunit_tests(kvm_msr_constants)]
mod cases {
    use super::*;

    #[test]
    fn clocks_and_caches_are_plausible() {
        for vendor in VENDORS {
            for (index, value) in [
                // EBC_FREQUENCY_ID: the ratio of core clock to bus clock is 1.
                (0x2c, 1 << 24),
                // FSB_FREQ: 167 MHz.
                (0xcd, 3),
                // PERF_STATUS: the current state is 1000, the maximum bus ratio 4.
                (0x198, 0x400_0000_03e8),
                // BBL_CR_CTL3: the L2 cache is configured and enabled.
                (BBL_CR_CTL3, 0xbe70_2111),
            ] {
                for initiator in BOTH {
                    let vcpu = Vcpu::new(vendor);

                    assert_eq!(read_existing(&vcpu, index, initiator), Ok(value));
                    assert_eq!(vcpu.effects(), NOTHING);
                }
            }
        }
    }

    #[test]
    fn power_and_the_platform_are_zero() {
        // PLATFORM_ID, EBL_CR_POWERON, PERF_CTL, RAPL's five, SYSCFG, INT_PENDING_MSG, TSEG
        for index in [
            0x17,
            0x2a,
            0x199,
            0x606,
            0x611,
            0x619,
            0x639,
            0x641,
            0xc001_0010,
            0xc001_0055,
            0xc001_0112,
            0xc001_0113,
        ] {
            for initiator in BOTH {
                let vcpu = Vcpu::new(Vendor::Intel);

                assert_eq!(read_existing(&vcpu, index, initiator), Ok(0));
                assert_eq!(write_existing(&vcpu, index, 0, initiator), Err(UNSUPPORTED));
                assert_eq!(vcpu.effects(), NOTHING);
            }
        }
    }

    /// Windows XP sets a reserved bit of it.
    #[test]
    fn the_caches_control_is_written_to_no_effect() {
        let vcpu = Vcpu::new(Vendor::Intel);

        assert_eq!(
            write_existing(&vcpu, BBL_CR_CTL3, 1 << 19, Initiator::Guest),
            Ok(())
        );
        assert_eq!(
            vcpu.effects(),
            [Effect::Unimplemented(BBL_CR_CTL3, 1 << 19)]
        );
    }
}
