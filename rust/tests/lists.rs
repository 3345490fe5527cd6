// SPDX-License-Identifier: GPL-2.0

//! The lists of indices for user space.

use super::holds_for_all;
use super::model::{
    Features,
    Host,
    ANSWER, //
};
use crate::engine::{
    access::Access,
    cpu::Report,
    exit::{
        INVALID,
        UNSUPPORTED, //
    },
    lists::{
        feature_indices,
        indices,
        is_listed,
        read_existing_feature,
        read_feature, //
    },
    registers::{
        lookup,
        Condition,
        Feature,
        FeatureMsr,
        Listed,
        Trace,
        NR_LISTED, //
    },
};
use core::cell::Cell;
use kernel::prelude::kunit_tests;

fn lists(host: &Host<'_>, index: u32) -> bool {
    is_listed(host, lookup(index), index)
}

/// A host that lacks a property that the condition requires, or [`None`] if it requires none.
fn lacking(condition: Condition) -> Option<Host<'static>> {
    let mut host = Host::new();

    match condition {
        Condition::Always => return None,
        Condition::Either(one, other) => host.features = host.features.without(one).without(other),
        Condition::Both(one, _) => host.features = host.features.without(one),
        Condition::Offers(feature) => host.features = host.features.without(feature),
        Condition::ProcessorTrace(Trace::Any) => {
            host.features = host.features.without(Feature::IntelPt);
        }
        Condition::ProcessorTrace(Trace::Cr3Filtering) => host.cr3_filtering = false,
        Condition::ProcessorTrace(Trace::Output) => host.trace_output = false,
        Condition::ProcessorTrace(Trace::Ranges(above)) => host.trace_ranges = above,
        Condition::Counter {
            fixed: true,
            number,
        } => host.fixed_counters = number,
        Condition::Counter { number, .. } => host.general_counters = number,
        Condition::TsxCtrl => host.arch_capabilities = !(1 << 7),
        Condition::Xss => host.has_xss = false,
        Condition::Mpx => host.has_mpx = false,
    }
    Some(host)
}

#[kunit_tests(kvm_msr_lists)]
mod cases {
    use super::*;

    #[test]
    fn a_host_with_all_lists_all() {
        assert_eq!(indices(&Host::new()).count(), NR_LISTED);
        assert!(holds_for_all(|register, index| {
            lists(&Host::new(), index) == (register.listed != Listed::No)
        }));
    }

    #[test]
    fn conditions_have_to_be_met() {
        assert!(holds_for_all(|register, index| match register.listed {
            Listed::Saved(condition) | Listed::SavedPmu(condition) =>
                lacking(condition).is_none_or(|host| !lists(&host, index)),
            Listed::EmulatedHyperV => {
                let host = Host {
                    has_hyperv: false,
                    ..Host::new()
                };

                !lists(&host, index)
            }
            Listed::No | Listed::Emulated => true,
        }));
    }

    #[test]
    fn cpus_have_to_have_what_is_saved() {
        let host = Host {
            has: &|_| false,
            ..Host::new()
        };

        assert!(holds_for_all(|register, index| {
            lists(&host, index)
                == matches!(register.listed, Listed::Emulated | Listed::EmulatedHyperV)
        }));
    }

    #[test]
    fn vendor_modules_have_to_emulate_what_is_not() {
        let host = Host {
            emulates: &|_| false,
            ..Host::new()
        };

        assert!(holds_for_all(|register, index| {
            lists(&host, index) == matches!(register.listed, Listed::Saved(_) | Listed::SavedPmu(_))
        }));
    }

    #[test]
    fn counters_need_a_pmu() {
        let host = Host {
            has_pmu: false,
            ..Host::new()
        };

        assert!(holds_for_all(|register, index| {
            lists(&host, index)
                == matches!(
                    register.listed,
                    Listed::Saved(_) | Listed::Emulated | Listed::EmulatedHyperV
                )
        }));
    }

    #[test]
    fn counters_are_counted() {
        let host = Host {
            fixed_counters: 2,
            general_counters: 3,
            ..Host::new()
        };

        for (first, last, listed) in [(0x309, 0x30b, 2), (0xc1, 0xc8, 3), (0x186, 0x18d, 3)] {
            for index in first..=last {
                assert_eq!(lists(&host, index), index - first < listed);
            }
        }
    }

    #[test]
    fn address_ranges_of_traces_are_counted() {
        for ranges in 0..=4 {
            let host = Host {
                trace_ranges: ranges,
                ..Host::new()
            };

            for index in 0x580..=0x587 {
                assert_eq!(lists(&host, index), index - 0x580 < 2 * ranges);
            }
        }
    }

    /// The order is C's, on which user space may rely.
    #[test]
    fn saved_ones_are_first() {
        let lists = [
            (0, 0x174),
            (8, 0x10),
            (44, 0x1de),
            (45, 0x309),
            (90, 0xc000_0301),
            (93, 0xc000_0303),
            (94, 0x12),
            (NR_LISTED - 1, 0x4b56_4d05),
        ];

        for (place, index) in lists {
            assert_eq!(indices(&Host::new()).nth(place), Some(index));
        }
    }

    #[test]
    fn vmx_is_the_first_of_the_models() {
        let vmx = 0x480..=0x491;
        let others = [0xc001_1029, 0x8b, 0x10a, 0x345, 0xce];

        assert!(feature_indices(&Host::new()).eq(vmx.chain(others)));

        let host = Host {
            vendor_feature: &|_| Err(UNSUPPORTED),
            ..Host::new()
        };

        assert!(feature_indices(&host).eq(others.into_iter().skip(1)));
    }

    #[test]
    fn models_are_the_hosts() {
        let host = Host {
            features: Features(0),
            arch_capabilities: 0x12,
            perf_capabilities: 0x13,
            microcode_revision: 0x14,
            ..Host::new()
        };

        assert_eq!(read_existing_feature(&host, 0x10a), Ok(0x12));
        assert_eq!(read_existing_feature(&host, 0x345), Ok(0x13));
        assert_eq!(read_existing_feature(&host, 0x8b), Ok(0x14));
        assert_eq!(read_existing_feature(&host, 0xce), Ok(1 << 31));
        assert!(holds_for_all(|register, index| match register.feature {
            FeatureMsr::No => true,
            _ if matches!(index, 0x10a | 0x345 | 0x8b | 0xce) => true,
            _ => read_existing_feature(&host, index) == Ok(ANSWER),
        }));
    }

    #[test]
    fn models_that_do_not_exist_are_excused_as_on_a_vcpu() {
        // A listed MSR that is not a feature MSR, and an unknown one.
        const LISTED: u32 = 0x174;
        const UNKNOWN: u32 = 0x1234_5678;

        let reports = Cell::new(None);
        let mut host = Host {
            vendor_feature: &|_| Err(UNSUPPORTED),
            report: &|report, index| reports.set(Some((report, index))),
            ..Host::new()
        };

        assert_eq!(read_feature(&host, LISTED), Ok(0));
        assert_eq!(reports.take(), None);
        assert_eq!(read_feature(&host, UNKNOWN), Err(UNSUPPORTED));
        assert_eq!(
            reports.take(),
            Some((Report::Unhandled(Access::Read), UNKNOWN))
        );

        host.ignores_unknown = true;
        assert_eq!(read_feature(&host, UNKNOWN), Ok(0));
        assert_eq!(
            reports.take(),
            Some((Report::Ignored(Access::Read), UNKNOWN))
        );

        // A denial of the vendor module is passed on.
        host.vendor_feature = &|_| Err(INVALID);
        assert_eq!(read_feature(&host, UNKNOWN), Err(INVALID));
        assert_eq!(reports.take(), None);
    }
}
