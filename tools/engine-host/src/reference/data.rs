// SPDX-License-Identifier: GPL-2.0

//! Generates `tools/kvmsr/data/registers.json` from the register table: the content of the
//! reference, for programs.
//!
//! The values of its members are defined here, and describe the effect, not the table's form.

use serde::{Serialize, Serializer};

use super::words;
use crate::engine::registers::{
    lookup, Condition, Feature, FeatureMsr, Listed, Permission, PreCheck, Read, Register, Trace,
    Vendor, VendorSet, Write, REGISTERS,
};

/// A number as a string, because many JSON readers do not support 64 bits.
struct Hex(u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// An MSR, or several similar ones.
#[derive(Serialize)]
struct Entry {
    first: Hex,
    last: Hex,
    /// The name in `asm/msr-index.h`; for several MSRs, the first one's.
    name: &'static str,
    served: Served,
    /// In the order in which they are made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
    read: Access,
    write: Access,
    #[serde(skip_serializing_if = "Option::is_none")]
    listed: Option<List>,
    /// In `KVM_GET_MSR_FEATURE_INDEX_LIST`: `fixed` once the vCPU has run, or `changing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_msr: Option<&'static str>,
    words: Words,
}

/// What serves it on each vendor's hosts.
#[derive(Serialize)]
struct Served {
    amd: Ways,
    intel: Ways,
}

/// `kvm`: KVM's common code, which the engine replaces. `vendor`: the vendor's module, which may
/// call the common code. For reads also `vendor-in-l2`: the vendor's module while L2 runs.
#[derive(Serialize)]
struct Ways {
    read: &'static str,
    write: &'static str,
}

/// A condition of an access. If it is not met, the access ends as `otherwise` says.
#[derive(Default, Serialize)]
struct Check {
    /// `read` or `write`.
    way: &'static str,
    /// `guest`, or `any` for the host too.
    by: &'static str,
    /// Checked even if the vendor's module serves the MSR.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    first: bool,
    /// The vCPU's CPUID needs one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    any_of: Vec<String>,
    /// Guests always fail.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    host_only: bool,
    /// Checked only if user space has enabled this: `KVM_CAP_ENFORCE_PV_FEATURE_CPUID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    only_with: Option<&'static str>,
    /// What KVM itself needs: `smm`, or `tsc-aux`.
    #[serde(skip_serializing_if = "Option::is_none")]
    kvm: Option<&'static str>,
    /// `unknown`, `invalid`, or `dropped` (the access succeeds without effect).
    otherwise: &'static str,
}

/// The effect of an access.
#[derive(Default, Serialize)]
struct Access {
    does: &'static str,
    /// The value, if it is constant.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Hex>,
    /// Bits that nobody can set.
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved: Option<Hex>,
    /// The written value is an address: `canonical`, `canonical-multiple-of-4` (both are refused
    /// otherwise), or `made-canonical`.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'static str>,
}

/// `KVM_GET_MSR_INDEX_LIST`
#[derive(Serialize)]
struct List {
    /// `saved`, if the host's CPU has it, or `emulated`, if the vendor's module does.
    kind: &'static str,
    /// Only if KVM has a PMU.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pmu: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Needs>,
}

/// The conditions for an MSR to be in the list.
#[derive(Default, Serialize)]
struct Needs {
    /// KVM offers one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    any_of: Vec<&'static str>,
    /// KVM offers all of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    all_of: Vec<&'static str>,
    /// `pt-cr3-filtering`, `pt-output`, `pt-ranges`, `counter`, `fixed-counter`, `tsx-ctrl` or
    /// `xss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<&'static str>,
    /// The minimum number of them, for this MSR.
    #[serde(skip_serializing_if = "Option::is_none")]
    above: Option<u32>,
}

/// The sentences of the reference.
#[derive(Serialize)]
struct Words {
    served: String,
    checked: String,
    read: String,
    write: String,
    lists: String,
}

/// The content of the file, one entry per line. If two entries have an index, the first one
/// applies.
pub fn json() -> String {
    let line = |register| {
        serde_json::to_string(&entry(register)).expect("there are neither maps nor errors in it")
    };
    let entries: Vec<_> = REGISTERS
        .iter()
        .filter(|register| !register.name.is_empty())
        .map(line)
        .collect();

    // This index is not declared.
    let undeclared = line(lookup(u32::MAX));

    format!(
        "{{\n\"spdx\": \"Apache-2.0 OR MIT\",\n\
         \"about\": \"Generated by `make registers`. Do not edit.\",\n\
         \"registers\": [\n{}\n],\n\"undeclared\": {undeclared}\n}}\n",
        entries.join(",\n")
    )
}

fn entry(register: &Register) -> Entry {
    Entry {
        first: Hex(register.first.into()),
        last: Hex(register.last.into()),
        name: register.name,
        served: Served {
            amd: ways(register.vendor, Vendor::Amd),
            intel: ways(register.vendor, Vendor::Intel),
        },
        checks: checks(register),
        read: read(register),
        write: write(register),
        listed: listed(register),
        feature_msr: match register.feature {
            FeatureMsr::No => None,
            FeatureMsr::Immutable => Some("fixed"),
            FeatureMsr::Mutable => Some("changing"),
        },
        words: Words {
            served: words::served_by(register.vendor),
            checked: words::checked(register),
            read: words::read(register),
            write: words::write(register),
            lists: words::lists(register),
        },
    }
}

fn ways(set: VendorSet, vendor: Vendor) -> Ways {
    Ways {
        read: if set.reads(vendor) {
            "vendor"
        } else if set.reads_nested(vendor) {
            "vendor-in-l2"
        } else {
            "kvm"
        },
        write: if set.writes(vendor) { "vendor" } else { "kvm" },
    }
}

fn checks(register: &Register) -> Vec<Check> {
    let mut checks = Vec::new();

    for way in ["read", "write"] {
        checks.extend(
            pre_check(register.pre_check, way)
                .into_iter()
                .map(|check| Check {
                    way,
                    first: true,
                    ..check
                }),
        );
    }
    for (way, of) in [
        ("read", register.read_permission),
        ("write", register.write_permission),
    ] {
        checks.extend(permission(of).map(|check| Check { way, ..check }));
    }
    checks.extend(reads_need(register.read).map(|check| Check {
        way: "read",
        ..check
    }));
    checks.extend(writes_need(register.write).map(|check| Check {
        way: "write",
        ..check
    }));
    checks
}

/// The vCPU's CPUID needs one of these.
fn any_of(by: &'static str, features: &[Feature], otherwise: &'static str) -> Check {
    Check {
        by,
        any_of: features
            .iter()
            .map(|&feature| feature.name().to_owned())
            .collect(),
        otherwise,
        ..Check::default()
    }
}

/// Guests always fail.
fn host_only(otherwise: &'static str) -> Check {
    Check {
        by: "guest",
        host_only: true,
        otherwise,
        ..Check::default()
    }
}

/// KVM itself needs it.
fn of_kvm(what: &'static str, otherwise: &'static str) -> Check {
    Check {
        by: "any",
        kvm: Some(what),
        otherwise,
        ..Check::default()
    }
}

fn pre_check(pre_check: PreCheck, way: &str) -> Vec<Check> {
    let shadow_stack = any_of("any", &[Feature::ShadowStack], "unknown");

    match pre_check {
        PreCheck::None | PreCheck::Canonical | PreCheck::MakeCanonical => vec![],
        PreCheck::TscAux => vec![
            of_kvm("tsc-aux", "invalid"),
            any_of("guest", &[Feature::Rdtscp, Feature::Rdpid], "invalid"),
        ],
        PreCheck::Cet => vec![any_of(
            "any",
            &[Feature::ShadowStack, Feature::BranchTracking],
            "unknown",
        )],
        PreCheck::ShadowStackTable if way == "write" => {
            vec![shadow_stack, any_of("any", &[Feature::Lm], "unknown")]
        }
        PreCheck::ShadowStackPointer | PreCheck::ShadowStackTable => vec![shadow_stack],
        PreCheck::GuestShadowStackPointer => vec![host_only("invalid"), shadow_stack],
    }
}

fn permission(permission: Permission) -> impl Iterator<Item = Check> {
    match permission {
        Permission::Everybody => vec![],
        Permission::Feature(feature) => vec![any_of("any", &[feature], "unknown")],
        Permission::FeatureElseInvalid(feature) => vec![any_of("any", &[feature], "invalid")],
        Permission::GuestFeature(feature) => vec![any_of("guest", &[feature], "invalid")],
        Permission::HostFeature(feature) => {
            vec![host_only("unknown"), any_of("any", &[feature], "unknown")]
        }
        Permission::Pv(feature) => vec![Check {
            by: "any",
            any_of: vec![words::pv(feature)],
            only_with: Some("KVM_CAP_ENFORCE_PV_FEATURE_CPUID"),
            otherwise: "unknown",
            ..Check::default()
        }],
        Permission::Host => vec![host_only("invalid")],
        Permission::Smm => vec![host_only("invalid"), of_kvm("smm", "invalid")],
    }
    .into_iter()
}

/// XSAVES is not a feature of the table, because KVM checks it differently.
fn xsaves(by: &'static str, otherwise: &'static str) -> Check {
    Check {
        by,
        any_of: vec!["XSAVES".to_owned()],
        otherwise,
        ..Check::default()
    }
}

fn reads_need(read: Read) -> Option<Check> {
    match read {
        Read::Xss => Some(xsaves("guest", "invalid")),
        _ => None,
    }
}

fn writes_need(write: Write) -> Option<Check> {
    match write {
        Write::Xss => Some(xsaves("any", "unknown")),
        Write::TscAdjust => Some(any_of("any", &[Feature::TscAdjust], "dropped")),
        Write::PredCmd => Some(any_of(
            "guest",
            &[Feature::SpecCtrl, Feature::AmdIbpb, Feature::Sbpb],
            "invalid",
        )),
        Write::FlushCmd => Some(any_of("guest", &[Feature::FlushL1d], "invalid")),
        _ => None,
    }
}

fn read(register: &Register) -> Access {
    let does = match register.read {
        Read::Unsupported if words::both(register, VendorSet::reads) => "vendor",
        Read::Unsupported => "pmu-or-unknown",
        Read::Constant(_) => "constant",
        Read::Field(_) => "stored",
        Read::WallClock => "stored-for-vm",
        Read::Tsc => "tsc",
        Read::PlatformInfo => "platform-info",
        Read::Xss => "stored",
        Read::MachineCheckCtl | Read::MachineCheckBank | Read::MachineCheckCtl2 => "machine-check",
        Read::LegacyPmu => "pmu-or-zero",
        Read::Mtrr => "mtrr",
        Read::X2apic => "x2apic",
        Read::TscDeadline => "tsc-deadline",
        Read::HyperV => "hyper-v",
        Read::Xstate | Read::Xfd => "fpu-state",
    };

    Access {
        does,
        value: match register.read {
            Read::Constant(value) => Some(Hex(value)),
            _ => None,
        },
        ..Access::default()
    }
}

fn write(register: &Register) -> Access {
    let does = match register.write {
        Write::Unsupported if words::both(register, VendorSet::writes) => "vendor",
        Write::Unsupported => "pmu-or-unknown",
        Write::Ignore | Write::Drop => "dropped",
        Write::Zero => "dropped-if-zero",
        Write::Field(_) | Write::Reserved(..) => "stored",
        Write::HostField(_) => "stored-if-host",
        Write::Efer => "efer",
        Write::Pat => "pat",
        Write::ApicBase => "apic-base",
        Write::Tsc => "tsc",
        Write::TscAdjust => "tsc-adjust",
        Write::MiscEnable => "misc-enable",
        Write::PerfCapabilities => "perf-capabilities",
        Write::PredCmd | Write::FlushCmd => "command",
        Write::Xss => "stored",
        Write::Xfd => "fpu-state",
        Write::XfdErr => "stored",
        Write::Hwcr => "hwcr",
        Write::MiscFeaturesEnables => "stored",
        Write::MachineCheckCtl | Write::MachineCheckBank | Write::MachineCheckCtl2 => {
            "machine-check"
        }
        Write::LegacyPmu => "pmu-or-dropped",
        Write::WallClock => "stored-for-vm",
        Write::SystemTime { .. }
        | Write::AsyncPfEn
        | Write::AsyncPfInt
        | Write::StealTime
        | Write::PvEoi => "paravirtual",
        Write::AsyncPfAck => "command",
        Write::Mtrr => "mtrr",
        Write::X2apic => "x2apic",
        Write::TscDeadline => "tsc-deadline",
        Write::HyperV => "hyper-v",
        Write::Xstate => "fpu-state",
    };

    Access {
        does,
        value: None,
        reserved: reserved(register).map(Hex),
        address: match register.pre_check {
            PreCheck::Canonical | PreCheck::ShadowStackTable => Some("canonical"),
            PreCheck::MakeCanonical => Some("made-canonical"),
            PreCheck::ShadowStackPointer | PreCheck::GuestShadowStackPointer => {
                Some("canonical-multiple-of-4")
            }
            PreCheck::None | PreCheck::TscAux | PreCheck::Cet => None,
        },
    }
}

/// The bits that no write may set, as in [`words`]; none if that depends on something.
fn reserved(register: &Register) -> Option<u64> {
    if register.pre_check == PreCheck::Cet {
        return Some(0xf << 6 | 3 << 12);
    }
    match register.write {
        Write::Zero => Some(u64::MAX),
        Write::Reserved(_, reserved) => Some(reserved),
        Write::PredCmd => Some(!(1 | 1 << 7)),
        Write::FlushCmd | Write::MiscFeaturesEnables => Some(!1),
        Write::Hwcr => Some(!(1 << 3 | 1 << 6 | 1 << 8 | 1 << 18 | 1 << 24 | 1 << 35)),
        Write::MachineCheckCtl2 => Some(!(0x7fff | 1 << 30)),
        Write::AsyncPfEn => Some(3 << 4),
        Write::AsyncPfInt => Some(!0xff),
        Write::StealTime => Some(0x1f << 1),
        _ => None,
    }
}

fn listed(register: &Register) -> Option<List> {
    let (kind, pmu, condition) = match register.listed {
        Listed::No => return None,
        Listed::Saved(condition) => ("saved", false, needs(condition)),
        Listed::SavedPmu(condition) => ("saved", true, needs(condition)),
        Listed::Emulated | Listed::EmulatedHyperV => ("emulated", false, None),
    };

    Some(List {
        kind,
        pmu,
        condition,
    })
}

fn needs(condition: Condition) -> Option<Needs> {
    let offers = |features: &[Feature]| features.iter().map(|&feature| feature.name()).collect();
    let needs = Needs::default();

    Some(match condition {
        Condition::Always => return None,
        Condition::Either(one, other) => Needs {
            any_of: offers(&[one, other]),
            ..needs
        },
        Condition::Both(one, other) => Needs {
            all_of: offers(&[one, other]),
            ..needs
        },
        Condition::Offers(feature) => Needs {
            all_of: offers(&[feature]),
            ..needs
        },
        Condition::ProcessorTrace(trace) => {
            let (other, above) = match trace {
                Trace::Any => (None, None),
                Trace::Cr3Filtering => (Some("pt-cr3-filtering"), None),
                Trace::Output => (Some("pt-output"), None),
                Trace::Ranges(number) => (Some("pt-ranges"), Some(number)),
            };

            Needs {
                all_of: offers(&[Feature::IntelPt]),
                other,
                above,
                ..needs
            }
        }
        Condition::Counter { fixed, number } => Needs {
            other: Some(if fixed { "fixed-counter" } else { "counter" }),
            above: Some(number),
            ..needs
        },
        Condition::TsxCtrl => Needs {
            other: Some("tsx-ctrl"),
            ..needs
        },
        Condition::Xss => Needs {
            other: Some("xss"),
            ..needs
        },
        Condition::Mpx => Needs {
            all_of: vec!["MPX"],
            ..needs
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_json_with_every_register() {
        let data: serde_json::Value = serde_json::from_str(&json()).unwrap();
        let entries = data["registers"].as_array().unwrap();

        for register in REGISTERS
            .iter()
            .filter(|register| !register.name.is_empty())
        {
            let found = entries
                .iter()
                .filter(|entry| entry["name"] == register.name)
                .count();

            assert_eq!(found, 1, "{}", register.name);
        }
    }
}
