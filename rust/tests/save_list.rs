// SPDX-License-Identifier: GPL-2.0

//! What has to be saved and restored with a vCPU.

use super::model::{
    Features,
    Vcpu, //
};
use super::{
    holds_for_all,
    VENDORS, //
};
use crate::engine::{
    exit::{
        INVALID,
        UNSUPPORTED, //
    },
    registers::{
        Feature,
        FeatureMsr,
        Field,
        Vendor,
        Write, //
    },
    save_list::*,
};
use kernel::prelude::kunit_tests;

/// A vCPU with all features except a PMU, and with 2 banks of machine checks.
fn vcpu(vendor: Vendor) -> Vcpu {
    let vcpu = Vcpu::new(vendor);

    vcpu.preset(Field::McgCap, 2);
    vcpu
}

fn find(vcpu: &Vcpu, index: u32) -> Option<Entry> {
    entries(vcpu).find(|entry| entry.index == index)
}

fn has(vcpu: &Vcpu, index: u32) -> bool {
    find(vcpu, index).is_some()
}

fn attributes(vcpu: &Vcpu, index: u32) -> Option<u32> {
    find(vcpu, index).map(|entry| entry.attributes)
}

fn owner(index: u32) -> Option<u16> {
    find(&vcpu(Vendor::Intel), index).map(|entry| entry.owner)
}

/// Whether the indices have to be restored in this order.
fn is_ordered(indices: &[u32]) -> bool {
    let mut vcpu = vcpu(Vendor::Intel);

    vcpu.has_pmu = true;
    indices.windows(2).all(|pair| match pair {
        [first, second] => match (find(&vcpu, *first), find(&vcpu, *second)) {
            (Some(first), Some(second)) => first.order < second.order,
            _ => false,
        },
        _ => true,
    })
}

#[kunit_tests(kvm_msr_save_list)]
mod cases {
    use super::*;

    #[test]
    fn all_that_can_be_written_is_there() {
        for vendor in VENDORS {
            let vcpu = vcpu(vendor);

            assert!(holds_for_all(|register, index| {
                let is_writable =
                    register.write != Write::Unsupported || register.vendor.writes(vendor);
                let is_expected = match index {
                    // The model has 2 banks.
                    0x400..=0x407 | 0x280..=0x281 => true,
                    0x408..=0x47f | 0x282..=0x29f => false,
                    // Hyper-V does not define these.
                    0x4000_0004..=0x4000_000f
                    | 0x4000_0011..=0x4000_001f
                    | 0x4000_0024..=0x4000_006f
                    | 0x4000_0074..=0x4000_007f
                    | 0x4000_0085..=0x4000_008f => false,
                    // Derived VMX capabilities: nobody can write them.
                    0x481..=0x484 | 0x487 | 0x489 => false,
                    // The current shadow stack pointer, which is an MSR only inside of KVM.
                    0x4b56_4dff => false,
                    _ => is_writable,
                };

                has(&vcpu, index) == is_expected
            }));
        }
    }

    #[test]
    fn no_index_is_there_twice() {
        let mut vcpu = vcpu(Vendor::Intel);

        vcpu.has_pmu = true;
        for entry in entries(&vcpu) {
            let count = entries(&vcpu)
                .filter(|other| other.index == entry.index)
                .count();

            assert_eq!(count, 1);
        }
    }

    /// The list of a vCPU that lacks an MSR lacks it, too.
    #[test]
    fn what_the_vcpu_lacks_is_not_there() {
        for denial in [INVALID, UNSUPPORTED] {
            let mut vcpu = vcpu(Vendor::Intel);

            vcpu.answer = Err(denial);
            // Of the vendor module, the MTRRs, the x2APIC and Hyper-V.
            for index in [0x3a, 0x200, 0x2ff, 0x802, 0x80b, 0x4000_0000, 0x4000_0084] {
                assert!(!has(&vcpu, index));
            }
        }
        let mut vcpu = vcpu(Vendor::Intel);

        vcpu.features = Features(0);
        // PRED_CMD, FLUSH_CMD, the shadow stacks, and IA32_ARCH_CAPABILITIES.
        for index in [0x49, 0x10b, 0x6a0, 0x6a4, 0x10a] {
            assert!(!has(&vcpu, index));
        }
    }

    /// They are listed by KVM_GET_MSR_INDEX_LIST, and so read as 0.
    #[test]
    fn what_is_tolerated_is_not_there() {
        let mut vcpu = vcpu(Vendor::Intel).without(Feature::ArchCapabilities);

        vcpu.is_listed = true;
        vcpu.ignores_unknown = true;
        assert!(!has(&vcpu, 0x10a));
        assert!(!has(&vcpu, 0x309));
    }

    #[test]
    fn nothing_changes() {
        for vendor in VENDORS {
            let vcpu = vcpu(vendor);

            for entry in entries(&vcpu) {
                let _ = entry;
                assert!(vcpu
                    .effects()
                    .as_ref()
                    .iter()
                    .all(|effect| matches!(effect, super::super::model::Effect::Read(..))));
            }
        }
    }

    #[test]
    fn owners_are_those_of_kvm() {
        for (index, expected) in [
            (0x1b, Owner::Sregs),
            (0xc000_0080, Owner::Sregs),
            (0xc000_0100, Owner::Sregs),
            (0xc000_0101, Owner::Sregs),
            (0xc000_0102, Owner::Msrs),
            (0x802, Owner::Lapic),
            (0x83f, Owner::Lapic),
            (0x6e0, Owner::Msrs),
            (0x4000_0071, Owner::Lapic),
            (0x4000_0073, Owner::Msrs),
            (0x6a0, Owner::Msrs),
            (0x277, Owner::Msrs),
            (0x9e, Owner::Msrs),
        ] {
            assert_eq!(owner(index), Some(expected as u16));
        }
    }

    #[test]
    fn what_others_depend_on_is_first() {
        // PERF_CAPABILITIES, counters, fixed counters' control, global control.
        assert!(is_ordered(&[0x345, 0xc1, 0x38d, 0x38f]));
        assert!(is_ordered(&[0x3a, 0x1a0, 0xc000_0080, 0x802, 0x277]));
        // PLATFORM_INFO, MISC_FEATURES_ENABLES.
        assert!(is_ordered(&[0xce, 0x140]));
        // APICBASE, TMICT, TSC, TSC_DEADLINE.
        assert!(is_ordered(&[0x1b, 0x838, 0x10, 0x6e0]));
        // TSC, and clocks that are computed from it.
        assert!(is_ordered(&[0x10, 0x4b56_4d01]));
        assert!(is_ordered(&[0x10, 0x4000_0021]));
        // GUEST_OS_ID, HYPERCALL.
        assert!(is_ordered(&[0x4000_0000, 0x4000_0001]));
        // SCONTROL, SINT0, STIMERi_COUNT, STIMERi_CONFIG.
        assert!(is_ordered(&[0x4000_0080, 0x4000_00b0]));
        assert!(is_ordered(&[0x4000_0090, 0x4000_00b0]));
        assert!(is_ordered(&[0x4000_00b3, 0x4000_00b2]));
        // Variable and fixed MTRRs, MTRRdefType.
        assert!(is_ordered(&[0x20f, 0x2ff]));
        assert!(is_ordered(&[0x26f, 0x2ff]));
        // Intel PT.
        assert!(is_ordered(&[0x571, 0x570]));
        assert!(is_ordered(&[0x587, 0x570]));
        // ASYNC_PF_INT, ASYNC_PF_EN.
        assert!(is_ordered(&[0x4b56_4d06, 0x4b56_4d02]));
    }

    #[test]
    fn order_is_kept() {
        let mut vcpu = vcpu(Vendor::Intel);
        vcpu.has_pmu = true;

        let all = [0x38f, 0x6e0, 0x2ff, 0x345, 0x10, 0x277, 0x1b]
            .map(|index| find(&vcpu, index).unwrap_or_default());

        assert!(in_order(&all)
            .map(|entry| entry.index)
            .eq([0x345, 0x1b, 0x277, 0x10, 0x2ff, 0x6e0, 0x38f]));
    }

    #[test]
    fn feature_msrs_are_fixed() {
        for vendor in VENDORS {
            let vcpu = vcpu(vendor);

            assert!(holds_for_all(|register, index| {
                attributes(&vcpu, index).is_none_or(|attributes| {
                    (attributes & FIXED != 0) == (register.feature == FeatureMsr::Immutable)
                })
            }));
        }
    }

    #[test]
    fn attributes_are_as_declared() {
        let vcpu = vcpu(Vendor::Intel);

        for (index, expected) in [
            (0x10, VOLATILE | SIDE_EFFECT),
            (0x277, 0),
            (0x2ff, 0),
            (0x49, WRITE_ONLY | SIDE_EFFECT),
            (0x79, WRITE_ONLY | IGNORED),
            (0x1a0, SIDE_EFFECT),
            (0x1b, SIDE_EFFECT | GUEST_MEMORY),
            (0x480, FIXED),
            (0x6e0, VOLATILE | SIDE_EFFECT),
            (0x80b, WRITE_ONLY | SIDE_EFFECT),
            (0x820, VOLATILE | SIDE_EFFECT),
            (0x4b56_4d03, SIDE_EFFECT | GUEST_MEMORY),
            (0x4b56_4d07, WRITE_ONLY | SIDE_EFFECT | GUEST_MEMORY),
            (0x4000_0084, WRITE_ONLY | SIDE_EFFECT | GUEST_MEMORY),
            // VM_HSAVE_PA, on Intel, and a counter without a PMU.
            (0xc001_0117, IGNORED),
            (0xc001_0004, IGNORED),
        ] {
            assert_eq!(attributes(&vcpu, index), Some(expected));
        }
    }

    #[test]
    fn attributes_depend_on_the_vcpu() {
        let amd = Vcpu::new(Vendor::Amd);
        let mut with_pmu = Vcpu::new(Vendor::Amd);
        let mut listed = Vcpu::new(Vendor::Amd);

        with_pmu.has_pmu = true;
        listed.is_listed = true;
        assert_eq!(attributes(&amd, 0xc001_0117), Some(0));
        assert_eq!(attributes(&with_pmu, 0xc001_0004), Some(0));
        assert_eq!(attributes(&listed, 0x277), Some(LISTED));
        // VM_IGNNE
        assert_eq!(attributes(&amd, 0xc001_0115), Some(WRITE_ONLY | IGNORED));
        // Without a declaration, and a command of the PMU.
        assert_eq!(attributes(&with_pmu, 0x4c1), Some(0));
        assert_eq!(attributes(&with_pmu, 0x390), Some(WRITE_ONLY | IGNORED));
        assert_eq!(attributes(&amd, 0x390), None);
    }
}
