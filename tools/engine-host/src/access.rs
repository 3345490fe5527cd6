// SPDX-License-Identifier: GPL-2.0

//! Reads and writes of MSRs: compared with a model of C, and tested against the manuals.

mod c;

use crate::engine::{
    access::{self, efer, Initiator},
    cpu::*,
    exit::{Denial, INVALID, UNSUPPORTED},
    registers::{lookup, Feature, Field, Pv, Vendor, REGISTERS},
};
use crate::model::*;
use c::C;
use proptest::{array, collection::vec, prelude::*, sample::select};
use std::fmt::Debug;

const BOTH: [Initiator; 2] = [Initiator::Guest, Initiator::Host];

/// Makes an access with C and with the engine. Results and effects have to be equal.
#[track_caller]
fn compare<'a, T: Debug + PartialEq>(
    vcpu: &'a Vcpu,
    initiator: Initiator,
    what: impl Debug,
    c: impl FnOnce(&mut C<'a>) -> c::Result<T>,
    engine: impl FnOnce() -> access::Result<T>,
) {
    let mut expected = C::new(vcpu, initiator);
    let result = c(&mut expected);

    assert_eq!(
        engine().map_err(|denial| denial.get() as i32),
        result,
        "{what:x?} by {initiator:?} of {vcpu:x?}"
    );
    assert_eq!(
        vcpu.effects(),
        expected.done,
        "{what:x?} by {initiator:?} of {vcpu:x?}"
    );
}

#[track_caller]
fn compare_reads(vcpu: &Vcpu, index: u32, initiator: Initiator) {
    let what = ("read", index);

    compare(
        vcpu,
        initiator,
        what,
        |c| c.get(index),
        || access::read_existing(vcpu, index, initiator),
    );
    compare(
        vcpu,
        initiator,
        what,
        |c| c.get_common(index),
        || access::read_common(vcpu, index, initiator),
    );
    compare(
        vcpu,
        initiator,
        what,
        |c| c.get_ignored_check(index),
        || access::read(vcpu, index, initiator),
    );
}

#[track_caller]
fn compare_writes(vcpu: &Vcpu, index: u32, data: u64, initiator: Initiator) {
    let what = ("write", index, data);

    compare(
        vcpu,
        initiator,
        what,
        |c| c.set(index, data),
        || access::write_existing(vcpu, index, data, initiator),
    );
    compare(
        vcpu,
        initiator,
        what,
        |c| c.set_common(index, data),
        || access::write_common(vcpu, index, data, initiator),
    );
    compare(
        vcpu,
        initiator,
        what,
        |c| c.set_ignored_check(index, data),
        || access::write(vcpu, index, data, initiator),
    );
}

/// The first and last index of every declaration, the indices next to them, and undeclared ones.
fn edges() -> Vec<u32> {
    let mut indices: Vec<_> = REGISTERS
        .iter()
        .filter(|register| !register.name.is_empty())
        .flat_map(|register| [register.first, register.last])
        .flat_map(|index| [index.wrapping_sub(1), index, index.wrapping_add(1)])
        .chain([0x2000, 0x4fff_ffff, 0x5000_0000, 0xc001_2000, u32::MAX])
        .collect();

    indices.sort_unstable();
    indices.dedup();
    indices
}

/// All indices in the ranges of the index space that have declarations.
fn everywhere() -> impl Iterator<Item = u32> {
    (0..0x2000)
        .chain(0x4000_0000..0x4000_0200)
        .chain(0x4b56_4d00..0x4b56_4e01)
        .chain(0xc000_0000..0xc000_0400)
        .chain(0xc001_0000..0xc001_1100)
}

/// Values of Xen's MSR index, which user space chooses.
const XEN: &[u32] = &[0x4000_0000, 0x4000_0200, 0x4b56_4d01, 0x4fff_ffff];

fn answers() -> impl Strategy<Value = access::Result<u64>> {
    select(vec![
        Ok(ANSWER),
        Ok(ANSWER),
        Err(INVALID),
        Err(UNSUPPORTED),
        Err(Denial::new(-22).unwrap()),
    ])
}

/// Random values. Values with few set bits are more frequent.
fn values() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        any::<u64>(),
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u32..64).prop_map(|bit| !(1 << bit)),
        (0u32..64, 0u32..64).prop_map(|(one, other)| 1 << one | 1 << other),
    ]
}

prop_compose! {
    /// vCPUs in any state, including states that can't occur.
    fn vcpus()(
        sets in any::<[u32; 3]>(),
        flags in any::<[bool; 16]>(),
        // Rare, because it hides the other rules.
        is_protected in prop::bool::weighted(0.1),
        amd: bool,
        answer in answers(),
        xen in prop::option::of(select(XEN)),
        address_bits in select(vec![48, 57]),
        masks in array::uniform4(values()),
        banks in 0u64..=32,
        fields in vec(values(), Field::ALL.len()),
    ) -> Vcpu {
        let mut vcpu = Vcpu::new(if amd { Vendor::Amd } else { Vendor::Intel });

        for (&field, value) in Field::ALL.iter().zip(fields) {
            vcpu.preset(field, value);
        }
        vcpu.preset(Field::McgCap, vcpu.field(Field::McgCap) & !0xff | banks);
        [vcpu.features.0, vcpu.host_features.0, vcpu.pv] = sets;
        [
            vcpu.supported_efer,
            vcpu.supported_perf_capabilities,
            vcpu.supported_xss,
            vcpu.supported_xfd,
        ] = masks;
        [
            vcpu.is_amd_compatible,
            vcpu.has_xsaves,
            vcpu.is_paging,
            vcpu.is_boot_cpu,
            vcpu.has_lapic,
            vcpu.is_nested,
            vcpu.is_tsc_protected,
            vcpu.host_has_ibpb,
            vcpu.can_switch_tsc_aux,
            vcpu.has_smm,
            vcpu.has_sched_info,
            vcpu.has_pmu,
            vcpu.may_read_platform_info,
            vcpu.misc_enable_is_quirky,
            vcpu.boot_clock_is_old,
            vcpu.ignores_unknown,
        ] = flags;
        vcpu.is_listed = sets[0] % 3 == 0;
        vcpu.is_protected = is_protected;
        vcpu.answer = answer;
        vcpu.xen = xen;
        vcpu.address_bits = address_bits;
        vcpu
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every MSR on any vCPU, with every single bit set, cleared and inverted.
    #[test]
    fn single_bits_are_as_in_c(vcpu in vcpus()) {
        for index in edges() {
            for initiator in BOTH {
                compare_reads(&vcpu, index, initiator);

                let old = C::new(&vcpu, Initiator::Host).get_common(index).unwrap_or(0);

                for data in [0, u64::MAX, old] {
                    compare_writes(&vcpu, index, data, initiator);
                }
                for bit in 0..64 {
                    for data in [1 << bit, !(1 << bit), old ^ 1 << bit] {
                        compare_writes(&vcpu, index, data, initiator);
                    }
                }
            }
        }
    }

    #[test]
    fn every_index_is_as_in_c(vcpu in vcpus(), values in vec(values(), 2)) {
        for index in everywhere() {
            for initiator in BOTH {
                compare_reads(&vcpu, index, initiator);
                for &data in &values {
                    compare_writes(&vcpu, index, data, initiator);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(0x800))]

    #[test]
    fn what_needs_the_fpu_is_as_in_c(vcpu in vcpus(), index in 0x690u32..0x6b0) {
        prop_assert_eq!(
            access::needs_fpu(&vcpu, lookup(index)),
            C::new(&vcpu, Initiator::Host).is_xstate_managed(index)
        );
    }

    /// Registers whose valid bits depend only on what KVM supports.
    #[test]
    fn efer_values_are_as_in_c(vcpu in vcpus(), efer in values()) {
        let supported = efer & !vcpu.supported_efer == 0;

        prop_assert_eq!(
            efer::is_valid(&vcpu, efer),
            supported && C::new(&vcpu, Initiator::Guest).is_valid_efer(efer)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(0x4000))]

    /// A sequence of accesses, which depend on values that earlier ones stored.
    #[test]
    fn sequences_are_as_in_c(
        vcpu in vcpus(),
        writes in vec((select(edges()), values(), any::<bool>()), 1..16),
    ) {
        for (index, data, host) in writes {
            let initiator = BOTH[usize::from(host)];

            compare_writes(&vcpu, index, data, initiator);
            compare_reads(&vcpu, index, initiator);
        }
    }

    /// Indices whose lower bits are those of declared ones.
    #[test]
    fn indices_elsewhere_are_as_in_c(page in 0u32..1 << 20, index in select(edges())) {
        let index = page << 12 | index & 0xfff;

        for initiator in BOTH {
            compare_reads(&Vcpu::new(Vendor::Amd), index, initiator);
            compare_writes(&Vcpu::new(Vendor::Intel), index, 1, initiator);
        }
    }

    /// SDM, "Canonical Addressing": bits 63 to the highest implemented one are equal.
    #[test]
    fn addresses_are_canonical_in_two_halves(
        near in select(vec![0, 1 << 47, 1 << 56, !0 << 47, !0 << 56, 1 << 63]),
        offset in -4096i64..4096,
        any: u64,
        wide: bool,
    ) {
        for address in [any, u64::wrapping_add_signed(near, offset)] {
            let mut vcpu = Vcpu::new(Vendor::Intel);
            let half = if wide { 1 << 56 } else { 1 << 47 };
            let canonical = address < half || address > u64::MAX - half;

            vcpu.address_bits = if wide { 57 } else { 48 };
            for index in [0xc000_0082, 0xc000_0083, 0xc000_0100, 0xc000_0101, 0xc000_0102] {
                let write = access::write_existing(&vcpu, index, address, Initiator::Guest);

                prop_assert_eq!(write, if canonical { Ok(()) } else { Err(INVALID) });
            }
        }
    }

    /// SDM, "IA32_PAT MSR": memory types 2 and 3 are reserved, as are those above 7.
    #[test]
    fn pat_has_eight_memory_types(data: [u8; 8], valid: [u8; 8], place in 0usize..8) {
        const TYPES: [u8; 6] = [0, 1, 4, 5, 6, 7];
        let mut kinds = valid.map(|kind| TYPES[usize::from(kind) % TYPES.len()]);

        prop_assert!(access::is_pat(u64::from_le_bytes(kinds)));
        kinds[place] = data[place];
        prop_assert_eq!(access::is_pat(u64::from_le_bytes(kinds)), TYPES.contains(&data[place]));
        prop_assert_eq!(
            access::is_pat(u64::from_le_bytes(data)),
            data.iter().all(|kind| TYPES.contains(kind))
        );
    }
}

#[test]
fn every_byte_of_pat() {
    for place in 0..8 {
        for kind in 0..=u8::MAX {
            let data =
                0x0006_0006_0006_0006 & !(0xff << (8 * place)) | u64::from(kind) << (8 * place);

            assert_eq!(
                access::is_pat(data),
                [0, 1, 4, 5, 6, 7].contains(&kind),
                "{data:#x}"
            );
        }
    }
}

/// All combinations of EFER's features and of its bits, by guest and host.
#[test]
fn efer_needs_a_feature_for_each_bit() {
    const BITS: [(u64, Option<Feature>); 7] = [
        (1 << 0, None),
        (1 << 8, Some(Feature::Lm)),
        (1 << 10, Some(Feature::Lm)),
        (1 << 11, Some(Feature::Nx)),
        (1 << 12, Some(Feature::Svm)),
        (1 << 14, Some(Feature::FxsrOpt)),
        (1 << 21, Some(Feature::AutoIbrs)),
    ];
    const FEATURES: [Feature; 5] = [
        Feature::Lm,
        Feature::Nx,
        Feature::Svm,
        Feature::FxsrOpt,
        Feature::AutoIbrs,
    ];

    for lacks in 0u32..1 << FEATURES.len() {
        let mut vcpu = Vcpu::new(Vendor::Amd);

        for (i, &feature) in FEATURES.iter().enumerate() {
            if lacks & 1 << i != 0 {
                vcpu = vcpu.without(feature);
            }
        }
        for set in 0u32..1 << BITS.len() {
            let bits = || (0..).zip(BITS).filter(|(i, _)| set & 1 << i != 0);
            let efer = bits().map(|(_, (bit, _))| bit).sum();
            let allowed = bits().all(|(_, (_, feature))| feature.is_none_or(|f| vcpu.has(f)));

            assert_eq!(efer::is_valid(&vcpu, efer), allowed, "{efer:#x}");
            assert_eq!(
                access::write_existing(&vcpu, 0xc000_0080, efer, Initiator::Guest).is_ok(),
                allowed
            );
            assert!(access::write_existing(&vcpu, 0xc000_0080, efer, Initiator::Host).is_ok());
        }
    }
}

/// SDM, "Control-flow Enforcement Technology": reserved bits, bits that need a feature, bits that
/// exclude each other. All values of the 14 bits that have rules, with an aligned and an unaligned
/// bitmap.
#[test]
fn all_cet_settings() {
    for [stacks, tracking] in [[false, true], [true, false], [true, true]] {
        let mut vcpu = Vcpu::new(Vendor::Intel);

        if !stacks {
            vcpu = vcpu.without(Feature::ShadowStack);
        }
        if !tracking {
            vcpu = vcpu.without(Feature::BranchTracking);
        }
        for data in (0u64..1 << 14).flat_map(|low| [low, low | 0x7fff_0000_0000, low | 1 << 63]) {
            let set = |bit: u32| data >> bit & 1 == 1;
            let mut valid = !(6..=9).any(set);

            if !stacks {
                valid &= !set(0) && !set(1);
            }
            if !tracking {
                valid &= !(2..=5).any(set) && !(10..=63).any(set);
            }
            valid &= !set(12) && !set(13);
            valid &= !(set(10) && set(11));
            for index in [0x6a0, 0x6a2] {
                for initiator in BOTH {
                    assert_eq!(
                        access::write_existing(&vcpu, index, data, initiator),
                        if valid { Ok(()) } else { Err(INVALID) },
                        "{data:#x}"
                    );
                }
            }
        }
    }
}

/// msr.rst, MSR_KVM_ASYNC_PF_EN: bits 0 to 3 are flags, 4 and 5 are reserved, the rest is an
/// address.
#[test]
fn all_async_pf_flags() {
    for (flags, absent, lapic) in (0u64..64)
        .flat_map(|flags| (0u32..4).map(move |absent| (flags, absent)))
        .flat_map(|(flags, absent)| [false, true].map(|lapic| (flags, absent, lapic)))
    {
        let mut vcpu = Vcpu::new(Vendor::Intel);
        let data = 0x12_3456_7000 | flags;
        let vmexit = absent & 1 == 0;
        let int = absent & 2 == 0;

        vcpu.has_lapic = lapic;
        if !vmexit {
            vcpu = vcpu.without_pv(Pv::ASYNC_PF_VMEXIT);
        }
        if !int {
            vcpu = vcpu.without_pv(Pv::ASYNC_PF_INT);
        }
        let valid = lapic && flags < 16 && (vmexit || flags & 4 == 0) && (int || flags & 8 == 0);
        let written = access::write_existing(&vcpu, 0x4b56_4d02, data, Initiator::Guest);

        if !valid {
            assert_eq!(written, Err(INVALID));
            assert_eq!(vcpu.effects(), NOTHING);
        } else if flags & 1 != 0 && flags & 8 != 0 {
            assert_eq!(
                vcpu.effects(),
                [
                    Effect::AsyncPfAddress(0x12_3456_7000),
                    Effect::Field(Field::AsyncPfEn, data),
                    Effect::WakeAsyncPf,
                ]
            );
        } else {
            assert_eq!(
                vcpu.effects(),
                [Effect::Field(Field::AsyncPfEn, data), Effect::ClearAsyncPf]
            );
        }
    }
}

/// APM, "Machine Check Architecture", and SDM, "IA32_MCi_STATUS MSRS": a guest can only write 0 to
/// a status, unless the guest is AMD's and enables other writes. User space can write any value.
#[test]
fn machine_check_status() {
    for (amd, enabled, initiator, data) in [false, true]
        .into_iter()
        .flat_map(|amd| [false, true].map(|enabled| (amd, enabled)))
        .flat_map(|(amd, enabled)| BOTH.map(|initiator| (amd, enabled, initiator)))
        .flat_map(|(amd, enabled, initiator)| {
            [0, 1, 1 << 63, !0].map(|data| (amd, enabled, initiator, data))
        })
    {
        let mut vcpu = Vcpu::new(Vendor::Intel);
        let valid = data == 0 || initiator == Initiator::Host || amd && enabled;

        vcpu.is_amd_compatible = amd;
        vcpu.preset(Field::Hwcr, if enabled { 1 << 18 } else { !(1 << 18) });
        vcpu.preset(Field::McgCap, 2);
        assert_eq!(
            access::write_existing(&vcpu, 0x405, data, initiator).is_ok(),
            valid
        );
        if valid {
            assert_eq!(vcpu.effects(), [Effect::MceBank(5, data)]);
        }
        // There are only two banks.
        assert_eq!(
            access::write_existing(&vcpu, 0x409, data, initiator),
            Err(INVALID)
        );
        assert_eq!(access::read_existing(&vcpu, 0x409, initiator), Err(INVALID));
    }
}
