// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Valid and invalid files of each format.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::cpuid::Register;
use crate::cpuid::Vendor;
use crate::number::Hex;

const SNAPSHOT: &[u8] = include_bytes!("../../tests/data/host-old.json");
const TEMPLATE: &[u8] = include_bytes!("../../tests/data/firecracker-template.json");
const FINGERPRINT: &[u8] = include_bytes!("../../tests/data/firecracker-fingerprint.json");
const MSR_PROFILE: &[u8] = include_bytes!("../../tests/data/cloud-hypervisor.msr.json");
const CPUID_PROFILE: &[u8] = include_bytes!("../../tests/data/cloud-hypervisor.cpuid.json");

const FILES: [(Format, &[u8]); 5] = [
    (Format::Kvmsr, SNAPSHOT),
    (Format::Firecracker, TEMPLATE),
    (Format::FirecrackerFingerprint, FINGERPRINT),
    (Format::CloudHypervisor, MSR_PROFILE),
    (Format::CloudHypervisorCpuid, CPUID_PROFILE),
];

fn read(bytes: &[u8]) -> Snapshot {
    read_bytes(bytes, "file").unwrap()
}

fn error(text: &str) -> String {
    read_bytes(text.as_bytes(), "file").unwrap_err().to_string()
}

#[test]
fn each_is_told_by_its_keys() {
    for (format, bytes) in FILES {
        assert_eq!(detect(bytes, "file").unwrap(), format);
    }
}

#[test]
fn what_is_written_is_what_was_read() {
    for (format, bytes) in FILES {
        let json: Json = serde_json::from_slice(bytes).unwrap();
        let written: Json = serde_json::from_str(&write(format, &read(bytes)).unwrap()).unwrap();

        assert_eq!(written, json, "{format}");
    }
}

#[test]
fn a_template_gives_some_bits() {
    let snapshot = read(TEMPLATE);
    let [capabilities, pat] = &snapshot.msrs[..] else {
        panic!("{:?}", snapshot.msrs);
    };

    assert_eq!(capabilities.mask, Some(Hex(0x84)));
    assert_eq!(capabilities.apply(0xff), 0x7b);
    assert_eq!((pat.value, pat.mask), (Hex(1), None));
    assert!(snapshot.cpuid.0.is_empty());
    assert_eq!(snapshot.cpuid_modifiers.registers.len(), 3);
    assert_eq!(snapshot.host.facts["kvm_capabilities"], "171 !172");
}

#[test]
fn a_fingerprint_has_a_whole_cpuid() {
    let snapshot = read(FINGERPRINT);

    assert_eq!(snapshot.vendor(), Some(Vendor::Intel));
    assert_eq!(snapshot.cpuid.register(1, 0, Register::Eax), 0x306c3);
    assert!(snapshot.cpuid_modifiers.is_empty());
    assert_eq!(snapshot.host.kernel, "6.1.0");
    assert_eq!(snapshot.host.facts["bios_revision"], "1.4");
}

#[test]
fn adjustments_keep_what_their_mask_keeps() {
    let snapshot = read(MSR_PROFILE);
    let misc = snapshot.msrs.iter().find(|msr| msr.index.0 == 0x485);

    // cloud-hypervisor computes (value & mask) | replacements.
    assert_eq!(misc.unwrap().apply(0xffff_ffff_0000_0005), 0x2000_0065);
    assert_eq!(snapshot.saved.len(), 5);
    let mut cpuid = crate::cpuid::Cpuid(read(SNAPSHOT).cpuid.0);
    let missing = cpuid.apply(&read(CPUID_PROFILE).cpuid_modifiers);

    assert_eq!(missing, []);
    assert_eq!(cpuid.register(1, 0, Register::Ecx), 0x76fa_3223);
    assert_eq!(cpuid.register(1, 0, Register::Edx), 0);
}

#[test]
fn older_profiles_of_cloud_hypervisor() {
    let old = r#"{"cpu_vendor": "Intel", "hypervisor_type": "Kvm",
                  "adjustments": [["0x8b", {"mask": "0x0000000000000000",
                                            "replacements": "0x00000000000000ff"}]],
                  "permitted_msrs": ["0x10"]}"#;
    let snapshot = read(old.as_bytes());

    assert_eq!(snapshot.host.vendor, Some(Vendor::Intel));
    assert_eq!(snapshot.saved, [Hex(0x10)]);
    assert_eq!(snapshot.msrs[0].value, Hex(0xff));
    // Without a list of MSRs, the first adjustment tells the kind of file.
    for (text, format) in [
        (
            r#"{"adjustments": [["0x8b", {}]]}"#,
            Format::CloudHypervisor,
        ),
        (
            r#"{"adjustments": [[{}, {}]]}"#,
            Format::CloudHypervisorCpuid,
        ),
        (r#"{"adjustments": []}"#, Format::CloudHypervisorCpuid),
    ] {
        assert_eq!(detect(text.as_bytes(), "file").unwrap(), format);
    }
}

#[test]
fn a_snapshot_becomes_any_of_them() {
    let snapshot = read(SNAPSHOT);

    for (format, _) in FILES {
        let written = write(format, &snapshot).unwrap();
        let again = read_bytes(written.as_bytes(), "file").unwrap();

        assert_eq!(detect(written.as_bytes(), "file").unwrap(), format);
        match format {
            Format::Kvmsr => assert_eq!(again, snapshot),
            Format::Firecracker | Format::FirecrackerFingerprint => {
                assert_eq!(again.cpuid, snapshot.cpuid);
                // A template has no clocks, no MSRs that KVM does not list, and no
                // IA32_PERF_CAPABILITIES, which Firecracker's guests lack.
                let expected = snapshot.msrs.iter().filter(|msr| {
                    !msr.moves && snapshot.saved.contains(&msr.index) && msr.index.0 != 0x345
                });

                assert!(
                    again
                        .msrs
                        .iter()
                        .map(|msr| msr.index)
                        .eq(expected.map(|msr| msr.index))
                );
            }
            Format::CloudHypervisor => {
                let bits = |msr: &crate::snapshot::Value| (msr.index, msr.value, msr.mask);

                // Feature MSRs come first in this file.
                assert!(
                    again
                        .msrs
                        .iter()
                        .map(bits)
                        .eq(snapshot.msrs[..9].iter().map(bits))
                );
                assert_eq!(again.saved.len(), 19);
            }
            Format::CloudHypervisorCpuid => {
                let mut cpuid = snapshot.cpuid.clone();

                assert_eq!(cpuid.apply(&again.cpuid_modifiers), []);
                assert_eq!(cpuid, snapshot.cpuid);
            }
        }
    }
}

#[test]
fn what_a_format_can_not_say() {
    let template = read(TEMPLATE);

    assert!(write(Format::CloudHypervisorCpuid, &template).is_err());
    assert!(write(Format::CloudHypervisorCpuid, &read(MSR_PROFILE)).is_err());
    assert!(write(Format::Firecracker, &read(CPUID_PROFILE)).is_err());
    // A profile can express a template's feature MSRs.
    let written = write(Format::CloudHypervisor, &template).unwrap();

    assert_eq!(read(written.as_bytes()).msrs, template.msrs[..1]);
}

#[test]
fn bad_files_are_explained() {
    for (text, says) in [
        ("", "file is empty"),
        ("  \n", "file is empty"),
        (
            "{\"schema\": 1,\n\"kind\"",
            "is incomplete: the JSON ends at line 2",
        ),
        ("{\"schema\": 1, \"kind\": 7}", "line 1 column"),
        ("\u{feff}{}", "is not JSON"),
        ("hello", "is not JSON"),
        ("[]", "none of"),
        ("7", "none of"),
        ("{}", "none of"),
        ("{\"name\": \"x\"}", "none of"),
        ("{\"schema\": 2, \"news\": []}", "has schema 2"),
        (
            "{\"schema\": \"1\"}",
            "is not a snapshot or profile of kvmsr",
        ),
        (
            "{\"schema\": 1, \"kind\": \"snapshot\", \"msrs\": [], \"colour\": 1}",
            "unknown field `colour`",
        ),
        (
            "{\"schema\": 1, \"kind\": \"snapshot\", \"msrs\": [{\"index\": \"0x100000000\", \"value\": 0}]}",
            "more than 32 bits",
        ),
        (
            "{\"schema\": 1, \"kind\": \"snapshot\", \"msrs\": [{\"index\": 1, \"value\": \"0x10000000000000000\"}]}",
            "more than 64 bits",
        ),
        (
            "{\"schema\": 1, \"kind\": \"snapshot\", \"msrs\": [{\"index\": 1, \"value\": 0}, {\"index\": \"0x1\", \"value\": 0}]}",
            "has MSR 0x1 twice in msrs",
        ),
        ("{\"reg_modifiers\": []}", "for Arm"),
        ("{\"guest_cpu_config\": {\"vcpu_features\": []}}", "for Arm"),
        (
            "{\"msr_modifiers\": [{\"addr\": \"0x10\", \"bitmap\": \"0b12\"}]}",
            "has '2' in it",
        ),
        (
            "{\"msr_modifiers\": [{\"addr\": \"10x\", \"bitmap\": \"0b1\"}]}",
            "'10x' is not a number",
        ),
        (
            "{\"cpuid_modifiers\": [{\"leaf\": \"0x0\", \"subleaf\": \"0x0\", \"flags\": 0, \"modifiers\": [{\"register\": \"ekx\", \"bitmap\": \"0b1\"}]}]}",
            "unknown variant `ekx`",
        ),
        (
            "{\"guest_cpu_config\": {}}",
            "is not a fingerprint of Firecracker: missing field",
        ),
        (
            "{\"adjustments\": [[\"0x10\", {\"replacements\": \"0x0\"}]]}",
            "missing field `mask`",
        ),
        (
            "{\"adjustments\": [], \"required_msrs\": [\"0x100000000\"]}",
            "more than 32 bits",
        ),
        ("{\"adjustments\": 7}", "CPU profile of cloud-hypervisor"),
    ] {
        let error = error(text);

        assert!(error.starts_with("file "), "{error}");
        assert!(error.contains(says), "{text}: {error}");
    }
    for deep in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        format!("{{\"adjustments\": {}", "[".repeat(100_000)),
        format!("{{\"schema\": 1, \"msrs\": {}", "[".repeat(100_000)),
    ] {
        assert!(!error(&deep).is_empty());
    }
}

#[test]
fn files_that_can_not_be_read() {
    for (path, says) in [
        ("/nowhere/at/all.json", "no file /nowhere/at/all.json"),
        ("/", "/ is a directory"),
    ] {
        let error = super::read(Path::new(path)).unwrap_err().to_string();

        assert!(error.contains(says), "{error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = read_bytes(&bytes, "file");
    }

    #[test]
    fn no_damage_makes_it_panic(
        file in 0..FILES.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = FILES[file].1.to_vec();

        for (at, byte) in changes {
            let at = at.index(bytes.len());

            bytes[at] = byte;
        }
        let _ = read_bytes(&bytes, "file");
        bytes.truncate(end.index(bytes.len()));
        let _ = read_bytes(&bytes, "file");
    }

    #[test]
    fn tokens_in_other_places_do_not_make_it_panic(
        file in 0..FILES.len(),
        tokens in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
    ) {
        let text = String::from_utf8(FILES[file].1.to_vec()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();

        for (from, to) in tokens {
            let line = lines[from.index(lines.len())];
            let to = to.index(lines.len());

            lines.insert(to, line);
        }
        if let Ok(snapshot) = read_bytes(lines.join("\n").as_bytes(), "file") {
            for (format, _) in FILES {
                let _ = write(format, &snapshot);
            }
        }
    }

    #[test]
    fn all_that_can_be_written_can_be_read(
        msrs in proptest::collection::btree_map(any::<u32>(), (any::<u64>(), any::<Option<u64>>()), 0..9),
    ) {
        let values: Vec<_> = msrs.iter().map(|(&index, &(value, mask))| crate::snapshot::Value {
            index: Hex(index),
            name: None,
            value: Hex(value & mask.unwrap_or(u64::MAX)),
            mask: mask.map(Hex),
            moves: false,
        }).collect();
        let snapshot = Snapshot { schema: SCHEMA, msrs: values.clone(), features: values, ..Default::default() };

        for (format, _) in FILES.iter().filter(|(format, _)| *format != Format::CloudHypervisorCpuid) {
            let again = read_bytes(write(*format, &snapshot).unwrap().as_bytes(), "file").unwrap();

            for msr in &again.msrs {
                let (value, mask) = msrs[&msr.index.0];

                prop_assert_eq!(msr.given(), mask.unwrap_or(u64::MAX));
                prop_assert_eq!(msr.value.0 & msr.given(), value & msr.given());
            }
        }
    }
}
