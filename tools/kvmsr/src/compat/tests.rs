// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Properties of profiles of artificial hosts.

use proptest::prelude::*;

use super::*;
use crate::compat::rule::Rule;
use crate::cpuid::Cpuid;
use crate::cpuid::Leaf;
use crate::cpuid::Register;
use crate::cpuid::Vendor;
use crate::formats;
use crate::number::Hex;
use crate::snapshot::Value;

fn file(name: &str) -> (String, Snapshot) {
    let bytes: &[u8] = match name {
        "old" => include_bytes!("../../tests/data/host-old.json"),
        "new" => include_bytes!("../../tests/data/host-new.json"),
        _ => include_bytes!("../../tests/data/host-amd.json"),
    };

    (name.to_owned(), formats::read_bytes(bytes, name).unwrap())
}

fn profile(files: &[(String, Snapshot)]) -> Snapshot {
    combine(files).unwrap().profile
}

fn msr(snapshot: &Snapshot, index: u32) -> Option<u64> {
    snapshot
        .msrs
        .iter()
        .find(|value| value.index.0 == index)
        .map(|value| value.value.0)
}

/// The file with an MSR changed, both as a feature and of the vCPU.
fn with(name: &str, index: u32, value: u64) -> (String, Snapshot) {
    let (name, mut snapshot) = file(name);

    for list in [&mut snapshot.features, &mut snapshot.msrs] {
        for known in list.iter_mut().filter(|known| known.index.0 == index) {
            known.value.0 = value;
        }
    }
    (name, snapshot)
}

#[test]
fn no_file_is_an_error() {
    assert!(combine(&[]).is_err());
}

#[test]
fn two_generations() {
    let files = [file("old"), file("new")];
    let report = combine(&files).unwrap();
    let profile = &report.profile;

    // Only the newer one has it, so it is left out, with a loss of a list, a feature and an MSR.
    assert_eq!(msr(profile, 0x10a), Some(0x4));
    assert_eq!(msr(profile, 0x48b), Some(0x33 << 32));
    assert_eq!(msr(profile, 0x8b), Some(0x28 << 32));
    assert_eq!(msr(profile, 0xe1), None);
    assert!(!profile.saved.contains(&Hex(0xe1)));
    // The LBR formats are equal, but KVM requires the host's model.
    assert_eq!(msr(profile, 0x345), Some(1 << 13 | 1 << 12));
    // Each host keeps its own reset values.
    assert_eq!(msr(profile, 0x1a0), None);
    assert_eq!(msr(profile, 0x277), Some(0x7_0406_0007_0406));
    // The clock is at the earlier time.
    assert_eq!(msr(profile, 0x10), Some(0xabcdef));
    assert_eq!(profile.cpuid.register(7, 0, Register::Ebx), 0x2729);
    assert_eq!(profile.cpuid.register(1, 0, Register::Eax), 0x306c3);
    assert_eq!(profile.cpuid.register(0, 0, Register::Eax), 0xd);
    assert_eq!(
        profile.cpuid.register(0x8000_0008, 0, Register::Eax),
        0x3027
    );
    assert_eq!(profile.host.vendor, Some(Vendor::Intel));
    assert_eq!(profile.host.cpu, "");
    let of_0x10a = report
        .lost
        .iter()
        .find(|lost| (lost.part, lost.msr) == (Part::Msrs, Some(Hex(0x10a))))
        .unwrap();

    assert_eq!(of_0x10a.bits, Some(Hex(0xc0000e2)));
    assert_eq!(of_0x10a.files, ["old"]);
    assert_eq!(report.warnings.len(), 1);
}

#[test]
fn a_profile_and_its_hosts_have_the_profile_in_common() {
    for other in ["new", "amd"] {
        let both = profile(&[file("old"), file(other)]);

        for host in ["old", other] {
            let files = [file(host), ("both".to_owned(), both.clone())];
            let mut again = profile(&files);

            // It has no name for its host.
            again.host = both.host.clone();
            assert_eq!(again, both, "{host}");
        }
    }
}

#[test]
fn bad_news_is_kept() {
    let files = [with("old", 0x10a, 1 << 2), with("new", 0x10a, 1 << 19 | 1)];

    assert_eq!(msr(&profile(&files), 0x10a), Some(1 << 2 | 1 << 19));
}

#[test]
fn vendors_share_what_both_have() {
    let report = combine(&[file("new"), file("amd")]).unwrap();
    let profile = report.profile;

    assert_eq!(
        profile
            .msrs
            .iter()
            .map(|msr| msr.index.0)
            .collect::<Vec<_>>(),
        [0x10a, 0xce, 0x10, 0x3b, 0x48, 0x174, 0x277]
    );
    assert_eq!(profile.host.vendor, None);
    assert!(report.warnings[0].contains("different vendors"));
}

#[test]
fn other_revisions_of_vmx_leave_none() {
    let files = [with("old", 0x480, 0xda_0400_0000_0005), file("new")];
    let profile = profile(&files);

    assert_eq!(profile.cpuid.register(1, 0, Register::Ecx) & 1 << 5, 0);
    for index in [0x480, 0x48d, 0x48b] {
        assert_eq!(msr(&profile, index), None);
        assert!(!profile.saved.contains(&Hex(index)));
    }
    assert_ne!(msr(&profile, 0x10a), None);
}

#[test]
fn demands_that_another_can_not_meet_leave_no_vmx() {
    // One host requires control 1, the other one lacks it.
    let files = [with("old", 0x48d, 0x2_0000_0002), with("new", 0x48d, 0)];

    assert_eq!(msr(&profile(&files), 0x48d), None);
    assert_eq!(msr(&profile(&files), 0x480), None);
}

#[test]
fn a_timer_at_two_rates_is_none() {
    let files = [with("old", 0x485, 0x2000_0067), file("new")];
    let profile = profile(&files);

    assert_eq!(msr(&profile, 0x485), Some(0x2000_0060));
    assert_eq!(msr(&profile, 0x48d), Some(0x3f_0000_0016));
}

#[test]
fn components_of_xsave_that_lie_elsewhere_go() {
    let (name, mut new) = file("new");

    for leaf in new.cpuid.0.iter_mut() {
        if (leaf.function.0, leaf.index.0) == (0xd, 2) {
            leaf.ebx.0 = 0x300;
        }
    }
    let profile = profile(&[file("old"), (name, new)]);

    assert_eq!(profile.cpuid.register(0xd, 0, Register::Eax), 3);
    assert_eq!(profile.cpuid.leaf(0xd, 2), None);
}

#[test]
fn a_template_takes_away_only() {
    let template = formats::read_bytes(
        include_bytes!("../../tests/data/firecracker-template.json"),
        "template",
    )
    .unwrap();
    let report = combine(&[file("new"), ("template".to_owned(), template)]).unwrap();
    let profile = report.profile;

    // The template clears bit 2 of ECX, and sets bit 0 of EDX, which is set already.
    assert_eq!(profile.cpuid.register(1, 0, Register::Ecx), 0xfffa_fbfb);
    assert_eq!(profile.cpuid.register(1, 0, Register::Edx), 0x0fab_fbff);
    assert_eq!(profile.cpuid.register(7, 0, Register::Ebx), 0xf1bf_26ab);
    assert!(profile.cpuid_modifiers.is_empty());
    let value = profile
        .msrs
        .iter()
        .find(|msr| msr.index.0 == 0x10a)
        .unwrap();

    // It clears bit 7, and leaves to the host what it does not give. Bit 2 is RSBA, a weakness
    // that a template can't remove.
    assert_eq!(value.apply(0xc0000e6), 0xc000066);
    assert_eq!(value.apply(u64::MAX), 0xc080066);
}

/// Indices of every kind: state, features with each rule, values that change.
const INDICES: [u32; 14] = [
    0x10, 0x174, 0x277, 0x8b, 0xce, 0x10a, 0x345, 0x480, 0x485, 0x486, 0x48b, 0x48d, 0x48c, 0x491,
];
const LEAVES: [(u32, u32); 12] = [
    (0, 0),
    (1, 0),
    (4, 0),
    (7, 0),
    (7, 1),
    (0xa, 0),
    (0xd, 0),
    (0xd, 2),
    (0x15, 0),
    (0x4000_0001, 0),
    (0x8000_0001, 0),
    (0x8000_0008, 0),
];

fn values() -> impl Strategy<Value = Vec<Value>> {
    // Few bits and few values, so that hosts sometimes agree.
    let value = prop_oneof![Just(0), Just(0x0004_0000_0000_0001), any::<u64>()];
    let values = proptest::collection::vec(value, INDICES.len());
    let indices = proptest::sample::subsequence(INDICES.to_vec(), 0..=INDICES.len()).prop_shuffle();

    (indices, values).prop_map(|(indices, values)| {
        indices
            .into_iter()
            .zip(values)
            .map(|(index, value)| Value {
                index: Hex(index),
                name: None,
                // On a real CPU, controls that must be 1 may be 1.
                value: Hex(if features::VMX_CONTROLS.contains(&index) {
                    value & (value >> 32 | 0xffff_ffff << 32)
                } else {
                    value
                }),
                mask: None,
                moves: index == 0x10,
            })
            .collect()
    })
}

fn cpuids() -> impl Strategy<Value = Cpuid> {
    let leaves = proptest::sample::subsequence(LEAVES.to_vec(), 0..=LEAVES.len()).prop_shuffle();

    (leaves, any::<[u32; 4]>()).prop_map(|(leaves, [a, b, c, d])| {
        Cpuid(
            leaves
                .into_iter()
                .map(|(function, index)| Leaf {
                    function: Hex(function),
                    index: Hex(index),
                    flags: u32::from(function == 7),
                    eax: Hex(a),
                    ebx: Hex(b),
                    ecx: Hex(c),
                    edx: Hex(d),
                })
                .collect(),
        )
    })
}

prop_compose! {
    fn host()(
        cpuid in cpuids(),
        features in values(),
        msrs in values(),
        saved in proptest::sample::subsequence(INDICES.to_vec(), 0..=INDICES.len()).prop_shuffle(),
        vendor in proptest::option::of(prop_oneof![Just(Vendor::Amd), Just(Vendor::Intel)]),
        kernel in "[67]",
    ) -> (String, Snapshot) {
        let snapshot = Snapshot {
            schema: SCHEMA,
            kind: Kind::Snapshot,
            host: Host { kernel, vendor, ..Default::default() },
            cpuid,
            saved: saved.into_iter().map(Hex).collect(),
            features,
            msrs,
            ..Default::default()
        };

        ("host".to_owned(), snapshot)
    }
}

fn as_profile(host: &(String, Snapshot)) -> Snapshot {
    Snapshot {
        kind: Kind::Profile,
        ..host.1.clone()
    }
}

/// The bits that are features of the host.
fn offers(rules: &[Rule]) -> u64 {
    rules
        .iter()
        .fold(u64::MAX, |bits, rule| bits & !rule.mask())
}

proptest! {
    #[test]
    fn one_host_is_its_own_profile(host in host()) {
        let report = combine(std::slice::from_ref(&host)).unwrap();

        prop_assert_eq!(report.profile, as_profile(&host));
        prop_assert_eq!(report.lost, []);
    }

    #[test]
    fn twice_the_same_is_the_same(host in host()) {
        prop_assert_eq!(profile(&[host.clone(), host.clone()]), as_profile(&host));
    }

    #[test]
    fn the_order_does_not_matter(a in host(), b in host(), c in host()) {
        let one = profile(&[a.clone(), b.clone(), c.clone()]);

        prop_assert_eq!(&profile(&[c.clone(), a.clone(), b.clone()]), &one);
        prop_assert_eq!(&profile(&[b, a, c]), &one);
    }

    #[test]
    fn a_host_counts_once(a in host(), b in host()) {
        prop_assert_eq!(profile(&[a.clone(), b.clone(), a.clone()]), profile(&[a, b]));
    }

    #[test]
    fn nothing_is_offered_that_a_host_does_not(a in host(), b in host()) {
        let profile = profile(&[a.clone(), b.clone()]);

        for host in [&a.1, &b.1] {
            for value in &profile.msrs {
                let of_host = msr(host, value.index.0).unwrap();
                let offers = features::rules(value.index.0).map_or(0, offers);

                prop_assert_eq!(value.value.0 & offers & !of_host, 0);
            }
            for leaf in profile.cpuid.0.iter().filter(|_| !host.cpuid.0.is_empty()) {
                for register in Register::ALL {
                    let (function, index) = (leaf.function.0, leaf.index.0);
                    let offers = offers(leaves::rules(function, index, register)) as u32;
                    let of_host = host.cpuid.register(function, index, register);

                    prop_assert_eq!(leaf.get(register) & offers & !of_host, 0);
                }
            }
        }
    }

    #[test]
    fn what_is_said_of_lost_bits_is_true(a in host(), b in host()) {
        let report = combine(&[("a".to_owned(), a.1.clone()), ("b".to_owned(), b.1.clone())]).unwrap();

        for lost in &report.lost {
            prop_assert!(!lost.files.is_empty());
            if lost.part == Part::Msrs && lost.is_missing() {
                for file in &lost.files {
                    let host = if file == "a" { &a.1 } else { &b.1 };

                    prop_assert_eq!(msr(host, lost.msr.unwrap().0), None);
                }
            }
        }
    }
}
