// SPDX-License-Identifier: GPL-2.0

//! The list of what has to be saved, compared with what guests and user space can write.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::engine::{
    access::{read_existing, write_common, write_existing, Initiator},
    exit::{INVALID, UNSUPPORTED},
    registers::{lookup, Field, Vendor, Write},
    save_list::*,
};
use crate::model::{Features, Vcpu};

fn list(vcpu: &Vcpu) -> BTreeMap<u32, Entry> {
    let entries: Vec<_> = entries(vcpu).collect();
    let count = entries.len();
    let list: BTreeMap<_, _> = entries
        .into_iter()
        .map(|entry| (entry.index, entry))
        .collect();

    assert_eq!(list.len(), count);
    list
}

/// All indices with a declaration, and some without one.
fn indices() -> impl Iterator<Item = u32> {
    (0..0x1000)
        .chain(0x4000_0000..0x4000_0200)
        .chain(0x4b56_4d00..0x4b56_4d10)
        .chain(0xc000_0000..0xc000_0400)
        .chain(0xc001_0000..0xc001_1100)
}

/// Whether the model's Hyper-V serves an index that the TLFS does not define.
fn is_undefined(index: u32) -> bool {
    let register = lookup(index);

    register.first == 0x4000_0000
        && register.last != 0x4000_0000
        && !matches!(index & 0xff, 0x70..=0x72 | 0x81..=0x84 | 0x90..=0x9f)
}

/// Whether somebody can write one of these values.
fn is_writable(vcpu: &Vcpu, index: u32, by: Initiator) -> bool {
    let value = read_existing(vcpu, index, by).unwrap_or(0);
    let register = lookup(index);
    // The vendor module calls the common code for writes that have rules there, the model's not.
    let is_common = register.vendor.writes(vcpu.vendor)
        && !register.vendor.reads(vcpu.vendor)
        && register.write != Write::Unsupported;
    let write = if is_common {
        write_common
    } else {
        write_existing
    };

    [value, 0, 1, 0xff]
        .into_iter()
        .any(|value| write(&vcpu.clone(), index, value, by).is_ok())
}

prop_compose! {
    fn vcpu()(
        features: u32,
        host_features: u32,
        pv: u32,
        flags: [bool; 9],
        mcg_cap in 0u64..0x600,
        answer in prop_oneof![Just(Ok(0x10)), Just(Err(INVALID)), Just(Err(UNSUPPORTED))],
    ) -> Vcpu {
        let vendor = if flags[0] { Vendor::Amd } else { Vendor::Intel };
        let mut vcpu = Vcpu::new(vendor);

        vcpu.features = Features(features);
        vcpu.host_features = Features(host_features);
        vcpu.pv = pv;
        vcpu.answer = answer;
        [
            _,
            vcpu.has_pmu,
            vcpu.has_lapic,
            vcpu.has_xsaves,
            vcpu.ignores_unknown,
            vcpu.is_listed,
            vcpu.can_switch_tsc_aux,
            vcpu.has_smm,
            vcpu.has_sched_info,
        ] = flags;
        vcpu.preset(Field::McgCap, (mcg_cap & !0xff) | (mcg_cap % 33));
        vcpu
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // The model's PMU has every MSR, so some tests are of vCPUs without one.

    #[test]
    fn what_a_guest_can_write_is_there(mut vcpu in vcpu()) {
        vcpu.has_pmu = false;

        let list = list(&vcpu);

        for index in indices() {
            // VMX capabilities that KVM derives. The model's vendor module lets everyone write them.
            let is_derived = matches!(index, 0x481..=0x484 | 0x487 | 0x489);
            let is_other = lookup(index).is_undeclared() || is_undefined(index) || is_derived;

            if !is_other && is_writable(&vcpu, index, Initiator::Guest) {
                prop_assert!(list.contains_key(&index), "{:#x}", index);
            }
        }
    }

    #[test]
    fn what_is_there_can_be_written(mut vcpu in vcpu()) {
        vcpu.has_pmu = false;
        // These owners deny all writes if the answer is an error.
        prop_assume!(vcpu.answer.is_ok());
        for &index in list(&vcpu).keys() {
            let is_writable = [Initiator::Host, Initiator::Guest]
                .into_iter()
                .any(|by| is_writable(&vcpu, index, by));

            prop_assert!(is_writable, "{:#x}", index);
        }
    }

    #[test]
    fn what_is_write_only_has_no_value(vcpu in vcpu()) {
        for (&index, entry) in &list(&vcpu) {
            let read = read_existing(&vcpu, index, Initiator::Host);

            if entry.attributes & WRITE_ONLY == 0 {
                prop_assert!(read.is_ok() || vcpu.has_pmu, "{:#x}: {:?}", index, read);
            }
        }
    }

    /// Each write that has no effect is marked.
    #[test]
    fn what_is_dropped_is_marked(mut vcpu in vcpu()) {
        vcpu.has_pmu = false;
        for (&index, entry) in &list(&vcpu) {
            let wrote = vcpu.clone();
            let _ = wrote.effects();
            let written = write_existing(&wrote, index, 0, Initiator::Host);
            let is_without_effect = written.is_ok() && wrote.effects() == crate::model::NOTHING;

            if is_without_effect && entry.attributes & (IGNORED | SIDE_EFFECT) == 0 {
                // IA32_TSC_ADJUST without the feature.
                prop_assert!(index == 0x3b, "{:#x}", index);
            }
        }
    }

    #[test]
    fn order_has_all_entries(vcpu in vcpu()) {
        let entries: Vec<_> = entries(&vcpu).collect();
        let mut expected = entries.clone();

        expected.sort_by_key(|entry| entry.order);
        prop_assert_eq!(in_order(&entries).collect::<Vec<_>>(), expected);
    }
}
