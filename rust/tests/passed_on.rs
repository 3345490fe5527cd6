// SPDX-License-Identifier: GPL-2.0

//! MSRs that another part of KVM serves: the vendor module, the PMU, the MTRRs, Hyper-V and Xen.

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
        read_common,
        read_existing,
        write_common,
        write_existing,
        Initiator, //
    },
    exit::{
        Denial,
        INVALID,
        UNSUPPORTED, //
    },
    registers::Vendor,
};
use core::ops::RangeInclusive;
use kernel::prelude::kunit_tests;

/// The counters of the P6 and the K7, which existed before CPUID described the PMU.
const LEGACY_PMU: [RangeInclusive<u32>; 3] =
    [0xc1..=0xc2, 0x186..=0x187, 0xc001_0000..=0xc001_0007];

/// Checks that reads and writes of an index reach the owner with their initiator, and return the
/// owner's answer.
fn is_owned(vcpu: &mut Vcpu, index: u32, owner: impl Fn(Initiator) -> Owner) -> bool {
    BOTH.into_iter().all(|initiator| {
        [Ok(ANSWER), Err(INVALID), Err(UNSUPPORTED)]
            .into_iter()
            .chain(Denial::new(-5).map(Err))
            .all(|answer| {
                vcpu.answer = answer;
                read_existing(vcpu, index, initiator) == answer
                    && vcpu.effects() == [Effect::Read(owner(initiator), index)]
                    && write_existing(vcpu, index, 12, initiator) == answer.map(|_| ())
                    && vcpu.effects() == [Effect::Write(owner(initiator), index, 12)]
            })
    })
}

#[kunit_tests(kvm_msr_passed_on)]
mod cases {
    use super::*;

    #[test]
    fn vendor_modules_have_segments_and_system_calls() {
        for vendor in VENDORS {
            let mut vcpu = Vcpu::new(vendor);

            for index in [0x174, 0x175, 0x176, 0x1d9]
                .into_iter()
                .chain(0xc000_0081..=0xc000_0084)
                .chain(0xc000_0100..=0xc000_0102)
            {
                assert!(is_owned(&mut vcpu, index, Owner::Vendor));
            }
        }
    }

    /// LSTAR, CSTAR, and the bases of FS, GS, and the kernel's GS.
    #[test]
    fn addresses_have_to_be_canonical() {
        for vendor in VENDORS {
            for index in [
                0xc000_0082,
                0xc000_0083,
                0xc000_0100,
                0xc000_0101,
                0xc000_0102,
            ] {
                for initiator in BOTH {
                    let vcpu = Vcpu::new(vendor);

                    for data in [0, (1 << 47) - 1, !0 << 47] {
                        assert_eq!(write_existing(&vcpu, index, data, initiator), Ok(()));
                        assert_eq!(
                            vcpu.effects(),
                            [Effect::Write(Owner::Vendor(initiator), index, data)]
                        );
                    }
                    for data in [1 << 47, 1 << 63, !(1 << 63)] {
                        assert_eq!(write_existing(&vcpu, index, data, initiator), Err(INVALID));
                        assert_eq!(vcpu.effects(), NOTHING);
                    }
                }
            }
        }
    }

    /// An AMD CPU accepts any address, as it has no SYSENTER in 64-bit mode. On Intel, VM-entry
    /// would fail.
    #[test]
    fn addresses_of_sysenter_are_made_canonical() {
        for vendor in VENDORS {
            for index in [0x175, 0x176] {
                for (data, stored) in [(1 << 47, !0 << 47), (1 << 48 | 12, 12), (12, 12)] {
                    let vcpu = Vcpu::new(vendor);

                    assert_eq!(write_existing(&vcpu, index, data, Initiator::Guest), Ok(()));
                    assert_eq!(
                        vcpu.effects(),
                        [Effect::Write(
                            Owner::Vendor(Initiator::Guest),
                            index,
                            stored
                        )]
                    );
                }
            }
        }
    }

    #[test]
    fn vmx_has_its_own() {
        let amd = Vcpu::new(Vendor::Amd);
        let mut intel = Vcpu::new(Vendor::Intel);

        for index in [0x3a, 0x122, 0xe1, 0x4d0, 0xd90]
            .into_iter()
            .chain(0x8c..=0x8f)
            .chain(0x480..=0x491)
            .chain(0x560..=0x561)
            .chain(0x570..=0x572)
            .chain(0x580..=0x587)
        {
            assert!(is_owned(&mut intel, index, Owner::Vendor));
            for initiator in BOTH {
                assert_eq!(read_existing(&amd, index, initiator), Err(UNSUPPORTED));
                assert_eq!(write_existing(&amd, index, 0, initiator), Err(UNSUPPORTED));
            }
        }
        assert_eq!(amd.effects(), NOTHING);
    }

    #[test]
    fn svm_has_last_branches_and_vmx_has_zeroes() {
        let mut amd = Vcpu::new(Vendor::Amd);
        let intel = Vcpu::new(Vendor::Intel);

        for index in 0x1db..=0x1de {
            assert!(is_owned(&mut amd, index, Owner::Vendor));
            for initiator in BOTH {
                assert_eq!(read_existing(&intel, index, initiator), Ok(0));
                assert_eq!(
                    write_existing(&intel, index, 0, initiator),
                    Err(UNSUPPORTED)
                );
            }
        }
        // VM_HSAVE_PA
        assert!(is_owned(&mut amd, 0xc001_0117, Owner::Vendor));
        assert_eq!(read_existing(&intel, 0xc001_0117, Initiator::Guest), Ok(0));
        assert_eq!(
            write_existing(&intel, 0xc001_0117, 0x1000, Initiator::Guest),
            Ok(())
        );
        assert_eq!(intel.effects(), NOTHING);
    }

    #[test]
    fn vendor_modules_have_all_of_encrypted_guests() {
        for vendor in VENDORS {
            let mut vcpu = Vcpu::new(vendor);

            vcpu.is_protected = true;
            for index in [0x10, 0x1b, 0x277, 0x2ff, 0x800, 0x1234, 0xc000_0080] {
                assert!(is_owned(&mut vcpu, index, Owner::Vendor));
            }
        }
    }

    #[test]
    fn mtrrs() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        for index in (0x200..=0x26f).chain([0x2ff]) {
            assert!(is_owned(&mut vcpu, index, |_| Owner::Mtrr));
        }
        // MTRRcap is read-only.
        vcpu.answer = Ok(ANSWER);
        assert_eq!(read_existing(&vcpu, 0xfe, Initiator::Guest), Ok(ANSWER));
        assert_eq!(vcpu.effects(), [Effect::Read(Owner::Mtrr, 0xfe)]);
        assert_eq!(
            write_existing(&vcpu, 0xfe, 0, Initiator::Host),
            Err(UNSUPPORTED)
        );
        assert_eq!(
            read_common(&vcpu, 0x270, Initiator::Guest),
            Err(UNSUPPORTED)
        );
    }

    #[test]
    fn pmus_have_what_nobody_else_has() {
        let mut vcpu = Vcpu::new(Vendor::Intel);
        let others = [0xc3, 0x188, 0x309, 0x38f, 0xc001_0200, 0xc000_0301];

        vcpu.has_pmu = true;
        for index in LEGACY_PMU.into_iter().flatten().chain(others) {
            assert!(is_owned(&mut vcpu, index, Owner::Pmu));
        }
        // An unknown MSR that the vendor module passes back to the engine.
        vcpu.answer = Ok(ANSWER);
        vcpu.effects();
        assert_eq!(read_common(&vcpu, 0x1234, Initiator::Guest), Ok(ANSWER));
        assert_eq!(
            vcpu.effects(),
            [Effect::Read(Owner::Pmu(Initiator::Guest), 0x1234)]
        );
        // Nor the MSRs of other owners.
        assert_eq!(read_existing(&vcpu, 0xcd, Initiator::Guest), Ok(3));

        let vcpu = Vcpu::new(Vendor::Intel);

        for index in others {
            for initiator in BOTH {
                assert_eq!(read_existing(&vcpu, index, initiator), Err(UNSUPPORTED));
                assert_eq!(write_existing(&vcpu, index, 0, initiator), Err(UNSUPPORTED));
            }
        }
        assert_eq!(vcpu.effects(), NOTHING);
    }

    /// Old guests access them without checking CPUID.
    #[test]
    fn legacy_counters_are_there_without_a_pmu() {
        let vcpu = Vcpu::new(Vendor::Intel);

        for index in LEGACY_PMU.into_iter().flatten() {
            for initiator in BOTH {
                assert_eq!(read_existing(&vcpu, index, initiator), Ok(0));
                assert_eq!(write_existing(&vcpu, index, 0, initiator), Ok(()));
                assert_eq!(vcpu.effects(), NOTHING);
                assert_eq!(write_existing(&vcpu, index, 12, initiator), Ok(()));
                assert_eq!(vcpu.effects(), [Effect::Unimplemented(index, 12)]);
            }
        }
    }

    #[test]
    fn hyperv() {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        for index in (0x4000_0000..=0x4000_009f)
            .chain(0x4000_00b0..=0x4000_00b7)
            .chain(0x4000_00f1..=0x4000_00f5)
            .chain(0x4000_00ff..=0x4000_0108)
            .chain([0x4000_0118])
        {
            assert!(is_owned(&mut vcpu, index, Owner::HyperV));
        }
        for index in [
            0x3fff_ffff,
            0x4000_00a0,
            0x4000_00b8,
            0x4000_0109,
            0x4000_0119,
        ] {
            assert_eq!(
                read_common(&vcpu, index, Initiator::Guest),
                Err(UNSUPPORTED)
            );
            assert_eq!(
                write_common(&vcpu, index, 0, Initiator::Guest),
                Err(UNSUPPORTED)
            );
        }
    }

    /// User space chooses the index. A guest write to it does not reach another MSR with that
    /// index.
    #[test]
    fn xen_guests_get_their_hypercalls() {
        for index in [0x4000_0000, 0x4000_0200, 0x4b56_4d01, 0x4fff_ffff] {
            let without = Vcpu::new(Vendor::Intel);
            let mut vcpu = Vcpu::new(Vendor::Intel);

            vcpu.xen = Some(index);
            // Only a guest write to this index sets up the page.
            for (index, initiator) in [(index, Initiator::Host), (index ^ 1, Initiator::Guest)] {
                assert_eq!(
                    write_common(&vcpu, index, 0x1000, initiator),
                    write_common(&without, index, 0x1000, initiator)
                );
                assert_eq!(vcpu.effects(), without.effects());
            }
            for answer in [Ok(ANSWER), Err(INVALID)] {
                vcpu.answer = answer;
                assert_eq!(
                    write_common(&vcpu, index, 0x1000, Initiator::Guest),
                    answer.map(|_| ())
                );
                assert_eq!(
                    vcpu.effects(),
                    [Effect::Write(Owner::XenHypercallPage, index, 0x1000)]
                );
            }
        }
    }
}
