// SPDX-License-Identifier: GPL-2.0

//! MSRs that do not exist, and when accesses to them succeed.

use super::model::{
    Effect,
    Effects,
    Owner,
    Vcpu, //
};
use super::BOTH;
use crate::engine::{
    access::{
        read,
        write,
        Access, //
        Initiator,
    },
    cpu::Report,
    exit::{
        INVALID,
        UNSUPPORTED, //
    },
    registers::{
        lookup,
        Feature,
        Permission,
        Read,
        Vendor,
        Write, //
    },
};
use kernel::prelude::kunit_tests;

/// Indices without a declaration. They reach the vendor module, which does not know them either.
const UNKNOWN: [u32; 6] = [0x2, 0x1fff, 0x2000, 0x8000_0000, 0xc001_2000, u32::MAX];

/// Reads of these fail: the vCPU lacks shadow stacks, only the other vendor's module has the MSR,
/// or it is write-only.
const UNSUPPORTED_READS: [u32; 3] = [0x6a4, 0x3a, 0x49];

fn vcpu() -> Vcpu {
    Vcpu {
        answer: Err(UNSUPPORTED),
        ..Vcpu::new(Vendor::Amd).without(Feature::ShadowStack)
    }
}

/// The effects of a call to the vendor module, and of logging the outcome.
fn asked(index: u32, asked: Effect, report: Option<Effect>) -> Effects {
    let effects = if UNKNOWN.contains(&index) {
        Effects::default().and(asked)
    } else {
        Effects::default()
    };

    match report {
        Some(report) => effects.and(report),
        None => effects,
    }
}

fn read_effects(index: u32, initiator: Initiator, report: Option<Report>) -> Effects {
    asked(
        index,
        Effect::Read(Owner::Vendor(initiator), index),
        report.map(|report| Effect::Report(report, index, 0)),
    )
}

fn write_effects(index: u32, data: u64, initiator: Initiator, report: Option<Report>) -> Effects {
    asked(
        index,
        Effect::Write(Owner::Vendor(initiator), index, data),
        report.map(|report| Effect::Report(report, index, data)),
    )
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
            assert_eq!(register.read_permission, Permission::Everybody);
        }
    }

    #[test]
    fn accesses_fail_and_are_logged() {
        let vcpu = vcpu();

        for initiator in BOTH {
            for index in UNKNOWN.into_iter().chain(UNSUPPORTED_READS) {
                assert_eq!(read(&vcpu, index, initiator), Err(UNSUPPORTED));
                assert_eq!(
                    vcpu.effects(),
                    read_effects(index, initiator, Some(Report::Unhandled(Access::Read)))
                );
            }
            for index in UNKNOWN {
                assert_eq!(write(&vcpu, index, 12, initiator), Err(UNSUPPORTED));
                assert_eq!(
                    vcpu.effects(),
                    write_effects(index, 12, initiator, Some(Report::Unhandled(Access::Write)))
                );
            }
        }
    }

    #[test]
    fn ignore_msrs_makes_them_harmless() {
        let mut vcpu = vcpu();

        vcpu.ignores_unknown = true;
        for initiator in BOTH {
            for index in UNKNOWN.into_iter().chain(UNSUPPORTED_READS) {
                assert_eq!(read(&vcpu, index, initiator), Ok(0));
                assert_eq!(
                    vcpu.effects(),
                    read_effects(index, initiator, Some(Report::Ignored(Access::Read)))
                );
            }
            for index in UNKNOWN {
                assert_eq!(write(&vcpu, index, 12, initiator), Ok(()));
                assert_eq!(
                    vcpu.effects(),
                    write_effects(index, 12, initiator, Some(Report::Ignored(Access::Write)))
                );
            }
        }
    }

    #[test]
    fn ignore_msrs_does_not_make_an_access_valid() {
        let mut vcpu = vcpu();

        vcpu.ignores_unknown = true;
        // HWCR, and the MSR for the guest's shadow stack pointer.
        assert_eq!(write(&vcpu, 0xc001_0015, 1, Initiator::Guest), Err(INVALID));
        assert_eq!(read(&vcpu, 0x4b56_4dff, Initiator::Guest), Err(INVALID));
    }

    /// User space may save and restore all listed MSRs, even if the vCPU lacks them.
    #[test]
    fn zeros_of_listed_msrs_are_tolerated() {
        let mut vcpu = vcpu();

        vcpu.is_listed = true;
        for index in UNKNOWN.into_iter().chain(UNSUPPORTED_READS) {
            assert_eq!(read(&vcpu, index, Initiator::Host), Ok(0));
            assert_eq!(read(&vcpu, index, Initiator::Guest), Err(UNSUPPORTED));
            vcpu.effects();
        }
        for index in UNKNOWN.into_iter().chain([0x6a4, 0x3a]) {
            assert_eq!(write(&vcpu, index, 0, Initiator::Host), Ok(()));
            assert_eq!(
                vcpu.effects(),
                write_effects(index, 0, Initiator::Host, None)
            );
            assert_eq!(write(&vcpu, index, 12, Initiator::Host), Err(UNSUPPORTED));
            assert_eq!(write(&vcpu, index, 0, Initiator::Guest), Err(UNSUPPORTED));
            vcpu.effects();
        }
    }
}
