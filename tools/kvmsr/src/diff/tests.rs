// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Differences of artificial files.

use proptest::prelude::*;

use super::*;
use crate::formats;

fn file(bytes: &[u8]) -> Snapshot {
    formats::read_bytes(bytes, "file").unwrap()
}

fn old() -> Snapshot {
    file(include_bytes!("../../tests/data/host-old.json"))
}

fn new() -> Snapshot {
    file(include_bytes!("../../tests/data/host-new.json"))
}

fn difference(a: &Snapshot, b: &Snapshot) -> Report {
    compare(("a", a), ("b", b), &Scope::default())
}

#[test]
fn a_file_is_as_itself() {
    for bytes in [
        &include_bytes!("../../tests/data/host-old.json")[..],
        include_bytes!("../../tests/data/firecracker-template.json"),
        include_bytes!("../../tests/data/cloud-hypervisor.msr.json"),
        include_bytes!("../../tests/data/cloud-hypervisor.cpuid.json"),
    ] {
        let snapshot = file(bytes);

        assert!(difference(&snapshot, &snapshot).equal);
    }
}

#[test]
fn clocks_are_compared_on_demand() {
    let a = old();
    let mut b = old();

    for msr in b.msrs.iter_mut().filter(|msr| msr.moves) {
        msr.value.0 += 1;
    }
    let report = difference(&a, &b);

    assert!(report.equal);
    assert_eq!(report.moving, 1);
    let scope = Scope {
        moving: true,
        ..Default::default()
    };
    let report = compare(("a", &a), ("b", &b), &scope);

    assert!(!report.equal);
    assert_eq!((report.msrs.len(), report.moving), (1, 0));
    // An MSR in only one of them is always a difference.
    b.msrs.retain(|msr| !msr.moves);
    assert_eq!(difference(&a, &b).msrs.len(), 1);
}

#[test]
fn parts_can_be_left_out() {
    let scope = |ignored: &[Part]| Scope {
        ignored: ignored.to_vec(),
        ..Default::default()
    };
    let compare = |ignored: &[Part]| compare(("a", &old()), ("b", &new()), &scope(ignored));
    let all = [
        Part::Host,
        Part::Cpuid,
        Part::Lists,
        Part::Features,
        Part::Msrs,
    ];

    assert!(compare(&all).equal);
    for part in all {
        let others: Vec<Part> = all.into_iter().filter(|&other| other != part).collect();

        assert!(!compare(&others).equal, "{part:?}");
    }
}

#[test]
fn bits_are_told() {
    let report = difference(&old(), &new());
    let leaf = report
        .cpuid
        .iter()
        .find(|leaf| leaf.function.0 == 7)
        .unwrap();

    assert_eq!(leaf.register, Register::Ebx);
    assert_eq!((leaf.bits[0], leaf.bits[1]), (1, 7));
    let misc = report.msrs.iter().find(|msr| msr.index.0 == 0x1a0).unwrap();

    assert_eq!((misc.a, misc.b), (Some(Hex(1)), Some(Hex(0x1801))));
    assert!(!misc.fields.is_empty());
    assert_eq!(
        report
            .saved
            .only_b
            .iter()
            .map(|m| m.index)
            .collect::<Vec<_>>(),
        [Hex(0xe1)]
    );
    assert_eq!(report.saved.only_a, []);
}

#[test]
fn bits_that_one_gives() {
    let template = file(include_bytes!("../../tests/data/firecracker-template.json"));
    let report = difference(&template, &old());
    let capabilities = report.msrs.iter().find(|msr| msr.index.0 == 0x10a).unwrap();

    assert_eq!(capabilities.given_by_one, Some(Hex(!0x84)));
    // Of the bits that both give, bit 2 differs.
    assert_eq!(capabilities.fields.len(), 1);
}

proptest! {
    #[test]
    fn the_other_way_round_it_is_the_same(
        a in proptest::collection::btree_map(0u32..9, 0u64..4, 0..9),
        b in proptest::collection::btree_map(0u32..9, 0u64..4, 0..9),
    ) {
        let snapshot = |values: &BTreeMap<u32, u64>| Snapshot {
            msrs: values
                .iter()
                .map(|(&index, &value)| Value {
                    index: Hex(index),
                    name: None,
                    value: Hex(value),
                    mask: None,
                    moves: false,
                })
                .collect(),
            ..Default::default()
        };
        let there = difference(&snapshot(&a), &snapshot(&b));
        let back = difference(&snapshot(&b), &snapshot(&a));

        prop_assert_eq!(there.equal, a == b);
        prop_assert_eq!(there.msrs.len(), back.msrs.len());
        for (there, back) in there.msrs.iter().zip(&back.msrs) {
            prop_assert_eq!((there.a, there.b), (back.b, back.a));
            // If both have the MSR, the fields have all bits that differ.
            prop_assert_eq!(there.fields.is_empty(), there.a.is_none() || there.b.is_none());
        }
    }
}
