// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Everything about an MSR, for people and as JSON.

use serde::Serialize;

use crate::catalogue;
use crate::catalogue::Check;
use crate::catalogue::Feature;
use crate::catalogue::FeatureMsr;
use crate::catalogue::Field;
use crate::catalogue::Initiator;
use crate::catalogue::List;
use crate::catalogue::Msr;
use crate::catalogue::Needs;
use crate::catalogue::Otherwise;
use crate::catalogue::Rule;
use crate::catalogue::Server;
use crate::catalogue::Way;
use crate::cpuid::Register;
use crate::cpuid::Vendor;
use crate::number::Hex;

/// The output of `kvmsr explain`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// [`crate::snapshot::SCHEMA`]
    pub schema: u32,
    /// The MSRs of the command line.
    pub msrs: Vec<Explanation>,
    /// MSRs whose names contain the text of the command line.
    pub matches: Vec<Match>,
}

/// An MSR whose name contains a text.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Match {
    /// Its index; for several MSRs, the first one's.
    pub index: Hex<u32>,
    /// The number of MSRs.
    pub count: u32,
    /// Its name; for several MSRs, with `{n}` for the number.
    pub name: &'static str,
    /// Its owner.
    pub owner: &'static str,
    /// Its other names.
    pub aliases: &'static [&'static str],
}

/// Everything about an MSR.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explanation {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name in the manuals, if they define it.
    pub name: Option<String>,
    /// Its other names.
    pub aliases: &'static [&'static str],
    /// Its owner.
    pub owner: Option<&'static str>,
    /// The group of similar MSRs that it belongs to, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// Its fields, of all vendors and variants. Without variants, fields of one vendor do not
    /// overlap, except for parts of a field that is a list of controls.
    pub fields: Vec<FieldReport>,
    /// How KVM treats it.
    pub kvm: Kvm,
}

/// A group of similar MSRs.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Series {
    /// Their name, with `{n}` for the number.
    pub name: &'static str,
    /// The index of the first.
    pub first: Hex<u32>,
    /// The number of MSRs.
    pub count: u32,
    /// The distance of their indices.
    pub stride: u32,
    /// The number of this MSR.
    pub number: u32,
}

/// A field.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FieldReport {
    /// `hi:lo`, or one bit.
    pub bits: String,
    /// Its name.
    pub name: &'static str,
    /// Its owner.
    pub owner: &'static str,
    /// The meanings of values, if known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Meaning>,
    /// Whether it is an address, which is printed in place.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub address: bool,
    /// The CPU families or message that have it, if not all do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<&'static str>,
    /// The condition on the register's value for this variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Its sources, see data/README of the package.
    pub source: &'static str,
}

/// A value and its meaning.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Meaning {
    /// The field's value, shifted down.
    pub value: Hex<u64>,
    /// Its meaning.
    pub meaning: &'static str,
}

/// How KVM of Linux 7.3 treats an MSR.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Kvm {
    /// Whether KVM's common code knows it; if not, only the PMU may know it.
    pub known: bool,
    /// Linux's name for it, or for the first MSR of its group in KVM.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: &'static str,
    /// The first index of the group.
    pub first: Hex<u32>,
    /// The last index of the group; if KVM does not know it, the group is all 32-bit numbers.
    pub last: Hex<u32>,
    /// What serves it on AMD's hosts.
    pub amd: ServedReport,
    /// What serves it on Intel's hosts.
    pub intel: ServedReport,
    /// The checks, as a sentence; the vendor modules' checks follow.
    pub checked: Vec<String>,
    /// The effect of reads.
    pub read: String,
    /// The effect of writes.
    pub write: String,
    /// What accesses need, for programs.
    pub checks: Vec<CheckReport>,
    /// Bits that nobody can set, on all hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Hex<u64>>,
    /// The same on AMD's hosts, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_amd: Option<Hex<u64>>,
    /// The same on Intel's hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_intel: Option<Hex<u64>>,
    /// Its kind in KVM_GET_MSR_INDEX_LIST: `saved`, if the host's CPU has it, or `emulated`.
    pub list: Option<&'static str>,
    /// Whether it is in KVM_GET_MSR_FEATURE_INDEX_LIST.
    pub feature_msr: bool,
    /// Whether KVM_SET_MSRS accepts only the current value once the vCPU has run.
    pub fixed_after_run: bool,
    /// The lists that have it, as a sentence.
    pub lists: String,
    /// Whether a filter can deny it to the guest.
    pub filtered: bool,
    /// Whether its value changes by itself.
    pub moves: bool,
}

/// What serves an MSR: `kvm`, KVM's common code; `module`, kvm_amd or kvm_intel, which may call
/// the common code; or `module in L2`.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServedReport {
    /// Reads.
    pub read: &'static str,
    /// Writes.
    pub write: &'static str,
}

/// A condition of an access.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckReport {
    /// `read` or `write`; none: both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<&'static str>,
    /// `guest` or `host`; none: both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<&'static str>,
    /// The vendor of the host; none for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Vendor>,
    /// The condition applies to writes that set any of these bits; none: to any access.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<Hex<u64>>,
    /// The vCPU's CPUID needs one of these bits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpuid: Vec<CpuidBit>,
    /// Another condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<&'static str>,
    /// `unknown`, `invalid` or `dropped`: the result if it is not met; none for a remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<&'static str>,
    /// Checked only if user space has enabled this capability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_with: Option<&'static str>,
}

/// A CPUID bit.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CpuidBit {
    /// The name in Linux, without `X86_FEATURE_`.
    pub name: &'static str,
    /// EAX of the instruction.
    pub leaf: Hex<u32>,
    /// ECX of the instruction.
    pub subleaf: Hex<u32>,
    /// The register.
    pub register: Register,
    /// The bit.
    pub bit: u8,
    /// The same as text.
    #[serde(skip)]
    pub text: String,
}

impl From<&Feature> for CpuidBit {
    fn from(feature: &Feature) -> Self {
        CpuidBit {
            name: feature.name,
            leaf: Hex(feature.function),
            subleaf: Hex(feature.index),
            register: feature.register,
            bit: feature.bit,
            text: feature.to_string(),
        }
    }
}

impl From<&Field> for FieldReport {
    fn from(field: &Field) -> Self {
        FieldReport {
            bits: field.bits.to_string(),
            name: field.name,
            owner: field.owner.name(),
            values: field
                .values
                .iter()
                .map(|&(value, meaning)| Meaning {
                    value: Hex(value),
                    meaning,
                })
                .collect(),
            address: field.address,
            variant: field.variant,
            when: field.when.map(|when| {
                let values: Vec<_> = when
                    .values
                    .iter()
                    .map(|value| format!("{value:#x}"))
                    .collect();

                match when.bits.hi == when.bits.lo {
                    true => format!("if bit {} is {}", when.bits, values.join(" or ")),
                    false => format!("if bits {} are {}", when.bits, values.join(" or ")),
                }
            }),
            source: field.source,
        }
    }
}

impl From<&Msr> for Match {
    fn from(msr: &Msr) -> Self {
        Match {
            index: Hex(msr.first),
            count: msr.count,
            name: msr.name,
            owner: msr.owner.name(),
            aliases: msr.aliases,
        }
    }
}

/// Everything about an MSR. If the vendors have different MSRs with an index, `vendor` selects
/// one.
pub fn explain(index: u32, vendor: Option<Vendor>) -> Explanation {
    let msr = catalogue::msr(index, vendor);
    let number = msr.and_then(|msr| msr.number(index));
    let mut fields: Vec<&Field> = msr.map_or_else(Vec::new, |msr| msr.fields.iter().collect());

    fields.sort_by_key(|field| {
        (
            field.variant.is_some(),
            // The fields of a variant stay together, in the file's order.
            field
                .variant
                .is_none()
                .then_some((field.bits.lo, field.part)),
        )
    });
    Explanation {
        index: Hex(index),
        name: catalogue::name(index, vendor),
        // They are the first one's.
        aliases: msr
            .filter(|_| number.unwrap_or(0) == 0)
            .map_or(&[], |msr| msr.aliases),
        owner: msr.map(|msr| msr.owner.name()),
        series: msr.zip(number).map(|(msr, number)| Series {
            name: msr.name,
            first: Hex(msr.first),
            count: msr.count,
            stride: msr.stride,
            number,
        }),
        fields: fields.into_iter().map(FieldReport::from).collect(),
        kvm: kvm(index),
    }
}

fn kvm(index: u32) -> Kvm {
    let rule = catalogue::rule(index);
    let reserved = |vendor| match catalogue::reserved(index, vendor) {
        0 => None,
        mask => Some(Hex(mask)),
    };
    let of_all = reserved(None);

    Kvm {
        known: rule.is_declared(),
        name: rule.name,
        first: Hex(rule.first),
        last: Hex(rule.last),
        amd: served(rule, Vendor::Amd),
        intel: served(rule, Vendor::Intel),
        checked: checked(index, rule),
        read: becomes(rule, Way::Read),
        write: becomes(rule, Way::Write),
        checks: catalogue::checks(index)
            .filter(|check| !matches!(check.needs, Needs::Words("")))
            .map(CheckReport::from)
            .collect(),
        reserved: of_all,
        reserved_amd: reserved(Some(Vendor::Amd)).filter(|_| of_all.is_none()),
        reserved_intel: reserved(Some(Vendor::Intel)).filter(|_| of_all.is_none()),
        list: rule.list.map(|list| match list {
            List::Saved => "saved",
            List::Emulated => "emulated",
        }),
        feature_msr: rule.feature_msr.is_some(),
        fixed_after_run: rule.feature_msr == Some(FeatureMsr::Fixed),
        lists: rule.words.lists.to_owned(),
        filtered: catalogue::is_filtered(index),
        moves: catalogue::moves(index),
    }
}

fn served(rule: &Rule, vendor: Vendor) -> ServedReport {
    let name = |server| match server {
        Server::Kvm => "kvm",
        Server::Module => "module",
        Server::ModuleInL2 => "module in L2",
    };
    let served = rule.served(vendor);

    ServedReport {
        read: name(served.read),
        write: name(served.write),
    }
}

fn module(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Amd => "kvm_amd",
        Vendor::Intel => "kvm_intel",
    }
}

/// The effect of an access, as a sentence.
fn becomes(rule: &Rule, way: Way) -> String {
    let words = match way {
        Way::Read => rule.words.read,
        Way::Write => rule.words.write,
    };
    let servers = [Vendor::Amd, Vendor::Intel].map(|vendor| {
        let served = rule.served(vendor);

        match way {
            Way::Read => (vendor, served.read),
            Way::Write => (vendor, served.write),
        }
    });
    let modules: Vec<_> = servers
        .iter()
        .filter(|&&(_, server)| server == Server::Module)
        .map(|&(vendor, _)| module(vendor))
        .collect();
    let in_l2: Vec<_> = servers
        .iter()
        .filter(|&&(_, server)| server == Server::ModuleInL2)
        .map(|&(vendor, _)| format!("; by {} while L2 runs", module(vendor)))
        .collect();

    let elsewhere: Vec<_> = servers
        .iter()
        .filter(|&&(_, server)| server != Server::Module)
        .map(|&(vendor, _)| match vendor {
            Vendor::Amd => "AMD",
            Vendor::Intel => "Intel",
        })
        .collect();

    match (modules.as_slice(), elsewhere.as_slice(), words) {
        ([], _, words) => format!("{words}{}", in_l2.concat()),
        (modules, [], "") => format!("by {}", modules.join(" or ")),
        (modules, [], words) => format!(
            "by {}, which call KVM's common code: {words}",
            modules.join(" or ")
        ),
        (modules, elsewhere, words) => {
            let modules = modules.join(" or ");
            let elsewhere = elsewhere.join(" and ");
            let passed_on = if rule.is_unsupported(way) {
                String::new()
            } else {
                format!(", and if {modules} calls it")
            };

            format!(
                "by {modules}. On {elsewhere}{passed_on}: {words}{}",
                in_l2.concat()
            )
        }
    }
}

/// The checks: the table's sentence, and one for each of the vendor modules' checks.
fn checked(index: u32, rule: &Rule) -> Vec<String> {
    let of_table = Some(rule.words.checked)
        .filter(|words| !words.is_empty())
        .map(str::to_owned);

    of_table
        .into_iter()
        .chain(catalogue::module_checks(index).filter_map(|(check, words)| sentence(check, words)))
        .collect()
}

/// A vendor module's check as text; none if it only has reserved bits.
fn sentence(check: &Check, words: &str) -> Option<String> {
    let mut who: Vec<_> = check.vendor.map(module).into_iter().collect();

    who.extend(check.by.map(by));
    who.extend(check.way.map(way));
    let needs = match check.needs {
        Needs::Words("") => return None,
        Needs::AnyOf(features) => features
            .iter()
            .map(|feature| feature.name)
            .collect::<Vec<_>>()
            .join(" or "),
        Needs::Host => "host only".to_owned(),
        Needs::Nobody => format!("never, as {words}"),
        Needs::Words(words) | Needs::Kvm(words) => words.to_owned(),
    };
    let otherwise = match check.otherwise {
        None => String::new(),
        Some(other) => format!(", else {}", otherwise(other)),
    };
    let bits = match check.bits {
        u64::MAX => String::new(),
        bits => format!("bits {bits:#x} need "),
    };
    let colon = if who.is_empty() { "" } else { ": " };

    Some(format!("{}{colon}{bits}{needs}{otherwise}", who.join(", ")))
}

fn way(way: Way) -> &'static str {
    match way {
        Way::Read => "read",
        Way::Write => "write",
    }
}

fn by(by: Initiator) -> &'static str {
    match by {
        Initiator::Host => "host",
        Initiator::Guest => "guest",
    }
}

fn otherwise(otherwise: Otherwise) -> &'static str {
    match otherwise {
        Otherwise::Unknown => "unknown",
        Otherwise::Invalid => "invalid",
        Otherwise::Dropped => "dropped",
    }
}

impl From<&Check> for CheckReport {
    fn from(check: &Check) -> Self {
        CheckReport {
            way: check.way.map(way),
            by: check.by.map(by),
            vendor: check.vendor,
            bits: (check.bits != u64::MAX).then_some(Hex(check.bits)),
            cpuid: match check.needs {
                Needs::AnyOf(features) => features.iter().map(CpuidBit::from).collect(),
                _ => Vec::new(),
            },
            other: match check.needs {
                Needs::AnyOf(_) => None,
                Needs::Host => Some("host only"),
                Needs::Nobody => Some("never"),
                Needs::Kvm("smm") => Some("KVM emulates SMM"),
                Needs::Kvm("tsc-aux") => Some("KVM can switch IA32_TSC_AUX"),
                Needs::Kvm(what) | Needs::Words(what) => Some(what),
            },
            otherwise: check.otherwise.map(otherwise),
            only_with: check.only_with,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_index_is_explained() {
        let mut count = 0;

        for (first, last, rule) in catalogue::declared() {
            for index in first..=last {
                let explanation = explain(index, None);

                assert!(explanation.kvm.known);
                assert_eq!(explanation.kvm.name, rule.name);
                assert!(!explanation.kvm.read.is_empty() && !explanation.kvm.write.is_empty());
                count += 1;
            }
        }
        // As Documentation/register-reference.rst.
        assert_eq!(count, 898);
    }

    #[test]
    fn a_module_serves_and_checks() {
        let kvm = explain(0x48, None).kvm;

        assert_eq!(kvm.read, "by kvm_amd or kvm_intel");
        assert_eq!(
            kvm.checked,
            [
                "guest: SPEC_CTRL or AMD_STIBP or AMD_IBRS or AMD_SSBD, else invalid",
                "write: the host's CPU takes the value, else invalid",
            ]
        );
        assert_eq!(
            kvm.checks[0].cpuid[0].text,
            "SPEC_CTRL (CPUID 0x7 EDX bit 26)"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_index_panics(index: u32) {
            for vendor in [None, Some(Vendor::Amd), Some(Vendor::Intel)] {
                explain(index, vendor);
            }
        }
    }
}
