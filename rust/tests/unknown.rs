// SPDX-License-Identifier: GPL-2.0

//! MSRs that do not exist, and what is excused of them.

use super::BOTH;
use crate::engine::{
    access::{
        read_excused,
        write_excused,
        By,
        Report,
        Way, //
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
        lookup,
        Feature,
        Guard,
        Read,
        Vendor,
        Write, //
    },
};
use kernel::prelude::kunit_tests;

/// Nobody has these.
const UNKNOWN: [u32; 6] = [0x2, 0x1fff, 0x2000, 0x8000_0000, 0xc001_2000, u32::MAX];

/// These exist, but not for a vCPU without shadow stacks, nor with another vendor's module, nor in
/// both ways.
const UNSUPPORTED_READS: [u32; 3] = [0x6a4, 0x3a, 0x49];

fn vcpu() -> Vcpu {
    Vcpu::new(Vendor::Amd).without(Feature::ShadowStack)
}

#[kunit_tests(kvm_msr_unknown)]
mod cases {
    use super::*;

    #[test]
    fn nothing_is_declared() {
        for index in UNKNOWN {
            let register = lookup(index);

            assert!(register.name.is_empty());
            assert_eq!(register.read, Read::Unsupported);
            assert_eq!(register.write, Write::Unsupported);
            assert_eq!(register.read_guard, Guard::None);
        }
    }

    #[test]
    fn accesses_fail_and_the_log_says_so() {
        let vcpu = vcpu();

        for by in BOTH {
            for index in UNKNOWN.into_iter().chain(UNSUPPORTED_READS) {
                assert_eq!(read_excused(&vcpu, index, by), Err(UNSUPPORTED));
                assert_eq!(
                    vcpu.effects(),
                    [Effect::Report(Report::Unhandled(Way::Read), index, 0)]
                );
            }
            for index in UNKNOWN {
                assert_eq!(write_excused(&vcpu, index, 12, by), Err(UNSUPPORTED));
                assert_eq!(
                    vcpu.effects(),
                    [Effect::Report(Report::Unhandled(Way::Write), index, 12)]
                );
            }
        }
    }

    #[test]
    fn ignore_msrs_makes_them_harmless() {
        let mut vcpu = vcpu();

        vcpu.ignores_unknown = true;
        for by in BOTH {
            for index in UNKNOWN.into_iter().chain(UNSUPPORTED_READS) {
                assert_eq!(read_excused(&vcpu, index, by), Ok(0));
                assert_eq!(
                    vcpu.effects(),
                    [Effect::Report(Report::Ignored(Way::Read), index, 0)]
                );
            }
            for index in UNKNOWN {
                assert_eq!(write_excused(&vcpu, index, 12, by), Ok(()));
                assert_eq!(
                    vcpu.effects(),
                    [Effect::Report(Report::Ignored(Way::Write), index, 12)]
                );
            }
        }
    }

    #[test]
    fn ignore_msrs_does_not_make_an_access_valid() {
        let mut vcpu = vcpu();

        vcpu.ignores_unknown = true;
        // HWCR, and the MSR for the guest's shadow stack pointer.
        assert_eq!(
            write_excused(&vcpu, 0xc001_0015, 1, By::Guest),
            Err(INVALID)
        );
        assert_eq!(read_excused(&vcpu, 0x4b56_4dff, By::Guest), Err(INVALID));
    }

    /// User space may save what the list has and restore it, even if the vCPU has none of it.
    #[test]
    fn zeroes_of_listed_msrs_are_excused() {
        let mut vcpu = vcpu();

        vcpu.is_listed = true;
        for index in UNKNOWN.into_iter().chain(UNSUPPORTED_READS) {
            assert_eq!(read_excused(&vcpu, index, By::Host), Ok(0));
            assert_eq!(read_excused(&vcpu, index, By::Guest), Err(UNSUPPORTED));
            vcpu.effects();
        }
        for index in UNKNOWN.into_iter().chain([0x6a4, 0x3a]) {
            assert_eq!(write_excused(&vcpu, index, 0, By::Host), Ok(()));
            assert_eq!(vcpu.effects(), NOTHING);
            assert_eq!(write_excused(&vcpu, index, 12, By::Host), Err(UNSUPPORTED));
            assert_eq!(write_excused(&vcpu, index, 0, By::Guest), Err(UNSUPPORTED));
            vcpu.effects();
        }
    }
}
