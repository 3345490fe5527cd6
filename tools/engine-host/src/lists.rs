// SPDX-License-Identifier: GPL-2.0

//! The index lists for user space: compared with the arrays in `arch/x86/kvm/msrs.c`, and with a
//! model of `kvm_init_msr_lists`.

use crate::engine::{
    access::Result,
    exit::UNSUPPORTED,
    lists::*,
    registers::{lookup, Feature, NR_LISTED},
};
use crate::model;
use proptest::{collection::hash_set, option, prelude::*, sample::select};

#[rustfmt::skip]
const MSRS_TO_SAVE_BASE: &[u32] = &[
    0x174, 0x175, 0x176, 0xc000_0081, 0xc000_0083, 0xc000_0102, 0xc000_0084, 0xc000_0082, 0x10,
    0x277, 0xc001_0117, 0x3a, 0xd90, 0xc000_0103, 0x48, 0x122, 0x570, 0x571, 0x572, 0x560, 0x561,
    0x580, 0x581, 0x582, 0x583, 0x584, 0x585, 0x586, 0x587, 0xe1, 0x1c4, 0x1c5, 0xda0, 0x6a0,
    0x6a2, 0x6a4, 0x6a5, 0x6a6, 0x6a7, 0x6a8, 0x1d9, 0x1db, 0x1dc, 0x1dd, 0x1de,
];

#[rustfmt::skip]
const MSRS_TO_SAVE_PMU: &[u32] = &[
    0x309, 0x30a, 0x30b, 0x38d, 0x38e, 0x38f, 0x3f1, 0x600, 0x3f2,
    0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8,
    0x186, 0x187, 0x188, 0x189, 0x18a, 0x18b, 0x18c, 0x18d,
    0xc001_0000, 0xc001_0001, 0xc001_0002, 0xc001_0003,
    0xc001_0004, 0xc001_0005, 0xc001_0006, 0xc001_0007,
    0xc001_0200, 0xc001_0202, 0xc001_0204, 0xc001_0206, 0xc001_0208, 0xc001_020a,
    0xc001_0201, 0xc001_0203, 0xc001_0205, 0xc001_0207, 0xc001_0209, 0xc001_020b,
    0xc000_0301, 0xc000_0300, 0xc000_0302, 0xc000_0303,
];

#[rustfmt::skip]
const EMULATED_MSRS: &[u32] = &[
    0x12, 0x11, 0x4b56_4d01, 0x4b56_4d00,
    0x4000_0000, 0x4000_0001, 0x4000_0020, 0x4000_0021, 0x4000_0022, 0x4000_0023,
    0x4000_0100, 0x4000_0101, 0x4000_0102, 0x4000_0103, 0x4000_0104, 0x4000_0105,
    0x4000_0003, 0x4000_0002, 0x4000_0010, 0x4000_0080, 0x4000_00b0, 0x4000_0073,
    0x4000_0106, 0x4000_0107, 0x4000_0108, 0x4000_0118,
    0x4000_00ff, 0x4000_00f1, 0x4000_00f2, 0x4000_00f3, 0x4000_00f4, 0x4000_00f5,
    0x4b56_4d02, 0x4b56_4d03, 0x4b56_4d04, 0x4b56_4d06, 0x4b56_4d07,
    0x3b, 0x6e0, 0x10a, 0x345, 0x1a0, 0x17a, 0x17b, 0x4d0, 0x9e, 0x34, 0xce, 0x140,
    0xc001_011f, 0xc000_0104, 0x1fc, 0x8b,
    0x480, 0x48d, 0x48e, 0x48f, 0x490, 0x485, 0x486, 0x488, 0x48a, 0x48b, 0x48c, 0x491,
    0xc001_0015, 0x4b56_4d05,
];

const MSR_BASED_FEATURES_EXCEPT_VMX: &[u32] = &[0xc001_1029, 0x8b, 0x10a, 0x345, 0xce];

/// A host that lacks some indices.
#[derive(Clone, Debug)]
struct Lacking {
    cpu: Vec<u32>,
    emulation: Vec<u32>,
    features: Vec<u32>,
}

impl Lacking {
    fn vendor_feature(&self, index: u32) -> Result<u64> {
        if self.features.contains(&index) {
            Err(UNSUPPORTED)
        } else {
            Ok(index.into())
        }
    }
}

/// `kvm_probe_msr_to_save`
fn is_saved(host: &model::Host<'_>, index: u32) -> bool {
    let cap = |feature| host.features.has(feature);

    if !(host.has)(index) {
        return false;
    }
    match index {
        0xd90 => host.has_mpx,
        0xc000_0103 => cap(Feature::Rdtscp) || cap(Feature::Rdpid),
        0xe1 => cap(Feature::Waitpkg),
        0x570 | 0x571 => cap(Feature::IntelPt),
        0x572 => cap(Feature::IntelPt) && host.cr3_filtering,
        0x560 | 0x561 => cap(Feature::IntelPt) && host.trace_output,
        0x580..=0x587 => {
            cap(Feature::IntelPt) && u64::from(index - 0x580) < u64::from(host.trace_ranges) * 2
        }
        0xc1..=0xc8 => index - 0xc1 < host.general_counters,
        0x186..=0x18d => index - 0x186 < host.general_counters,
        0x309..=0x30b => index - 0x309 < host.fixed_counters,
        0xc000_0300..=0xc000_0303 => cap(Feature::PerfmonV2),
        0x1c4 | 0x1c5 => cap(Feature::Xfd),
        0x122 => host.arch_capabilities & 0x80 != 0,
        0xda0 => host.has_xss,
        0x6a0 | 0x6a2 => cap(Feature::ShadowStack) || cap(Feature::BranchTracking),
        0x6a8 => cap(Feature::Lm) && cap(Feature::ShadowStack),
        0x6a4..=0x6a7 => cap(Feature::ShadowStack),
        _ => true,
    }
}

/// Whether Hyper-V's TLFS defines an MSR; the prefix is its own.
fn is_hyperv(index: u32) -> bool {
    index >> 16 == 0x4000
}

/// The indices that `KVM_GET_MSR_INDEX_LIST` has in C.
fn c_indices(host: &model::Host<'_>) -> Vec<u32> {
    let saved = |&index: &u32| is_saved(host, index);
    let pmu = if host.has_pmu { MSRS_TO_SAVE_PMU } else { &[] };

    MSRS_TO_SAVE_BASE
        .iter()
        .copied()
        .filter(saved)
        .chain(pmu.iter().copied().filter(saved))
        .chain(
            EMULATED_MSRS
                .iter()
                .copied()
                // Without CONFIG_KVM_HYPERV, C's array has none of Hyper-V's.
                .filter(|&index| host.has_hyperv || !is_hyperv(index))
                .filter(|&index| (host.emulates)(index)),
        )
        .collect()
}

/// `kvm_get_feature_msr`
fn c_feature(host: &model::Host<'_>, index: u32) -> Result<u64> {
    match index {
        0x10a => Ok(host.arch_capabilities),
        0x345 => Ok(host.perf_capabilities),
        0xce => Ok(1 << 31),
        0x8b => Ok(host.microcode_revision),
        _ => (host.vendor_feature)(index),
    }
}

fn c_features(host: &model::Host<'_>) -> Vec<u32> {
    (0x480..=0x491)
        .chain(MSR_BASED_FEATURES_EXCEPT_VMX.iter().copied())
        .filter(|&index| c_feature(host, index).is_ok())
        .collect()
}

fn everything() -> Vec<u32> {
    [MSRS_TO_SAVE_BASE, MSRS_TO_SAVE_PMU, EMULATED_MSRS].concat()
}

fn some_of(indices: Vec<u32>) -> impl Strategy<Value = Vec<u32>> {
    option::of(hash_set(select(indices), 0..8))
        .prop_map(|some| some.into_iter().flatten().collect())
}

prop_compose! {
    fn lacking()(
        cpu in some_of(everything()),
        emulation in some_of(everything()),
        features in some_of((0x480..=0x491).chain([0xc001_1029, 0x8b, 0xce]).collect()),
    ) -> Lacking {
        Lacking { cpu, emulation, features }
    }
}

/// Some of the features and numbers on which the lists depend.
type Traits = (u32, [bool; 6], [u32; 3], [u64; 3]);

fn traits() -> impl Strategy<Value = Traits> {
    (
        any::<u32>(),
        any::<[bool; 6]>(),
        [0u32..10, 0..10, 0..6],
        any::<[u64; 3]>(),
    )
}

fn with_host(lacking: &Lacking, traits: Traits, test: impl FnOnce(&model::Host<'_>)) {
    let (features, flags, counts, values) = traits;
    let has = |index| !lacking.cpu.contains(&index);
    let emulates = |index| !lacking.emulation.contains(&index);
    let vendor_feature = |index| lacking.vendor_feature(index);
    let mut host = model::Host {
        has: &has,
        emulates: &emulates,
        vendor_feature: &vendor_feature,
        ..model::Host::new()
    };

    host.features.0 = features;
    [
        host.has_mpx,
        host.has_xss,
        host.has_hyperv,
        host.has_pmu,
        host.cr3_filtering,
        host.trace_output,
    ] = flags;
    [
        host.fixed_counters,
        host.general_counters,
        host.trace_ranges,
    ] = counts;
    [
        host.arch_capabilities,
        host.perf_capabilities,
        host.microcode_revision,
    ] = values;
    test(&host);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn lists_are_those_of_c(lacking in lacking(), traits in traits()) {
        with_host(&lacking, traits, |host| {
            let expected = c_indices(host);

            assert_eq!(indices(host).collect::<Vec<_>>(), expected);
            for index in everything() {
                assert_eq!(
                    is_listed(host, lookup(index), index),
                    expected.contains(&index),
                    "{index:#x}"
                );
            }
        });
    }

    #[test]
    fn features_are_those_of_c(lacking in lacking(), traits in traits(), any: u32) {
        with_host(&lacking, traits, |host| {
            assert_eq!(feature_indices(host).collect::<Vec<_>>(), c_features(host));
            for index in (0x480..0x492).chain([0xc001_1029, 0x8b, 0x10a, 0x345, 0xce, 0x277, any]) {
                assert_eq!(read_existing_feature(host, index), c_feature(host, index), "{index:#x}");
            }
        });
    }
}

#[test]
fn a_host_with_all_there_is_lists_all() {
    assert_eq!(
        indices(&model::Host::new()).collect::<Vec<_>>(),
        everything()
    );
    assert_eq!(everything().len(), NR_LISTED);
}

/// On any host, the lists have only indices of C's arrays.
#[test]
fn nothing_else_is_listed() {
    let everything = everything();

    for index in (0..0x2000)
        .chain(0x4000_0000..0x4000_0200)
        .chain(0x4b56_4d00..0x4b56_4e00)
        .chain(0xc000_0000..0xc000_0400)
        .chain(0xc001_0000..0xc001_1100)
        .chain([u32::MAX])
    {
        assert_eq!(
            is_listed(&model::Host::new(), lookup(index), index),
            everything.contains(&index),
            "{index:#x}"
        );
    }
}
