// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How KVM of Linux 7.3 treats MSRs.

use super::Feature;
use super::Initiator;
use super::data;
use super::data::OfModule;
use crate::cpuid::Vendor;

/// The rules for an MSR, or for several similar ones.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The first index.
    pub first: u32,
    /// The last index.
    pub last: u32,
    /// KVM's name for it; for several MSRs, the first one's. Empty for MSRs that KVM does not
    /// know.
    pub name: &'static str,
    /// What serves it on AMD's hosts.
    pub amd: Served,
    /// What serves it on Intel's hosts.
    pub intel: Served,
    /// What accesses need, in the order in which KVM checks it. See also [`checks`].
    pub checks: &'static [Check],
    /// The effect of reads.
    pub read: Access,
    /// The effect of writes.
    pub write: Access,
    /// Whether it is in `KVM_GET_MSR_INDEX_LIST`.
    pub list: Option<List>,
    /// Whether it is in `KVM_GET_MSR_FEATURE_INDEX_LIST`.
    pub feature_msr: Option<FeatureMsr>,
    /// The same as sentences.
    pub words: Words,
}

impl Rule {
    /// Whether KVM's common code knows the MSR. If not, only the PMU may know it.
    pub fn is_declared(&self) -> bool {
        !self.name.is_empty()
    }

    /// Whether KVM's common code does not know this kind of access.
    pub fn is_unsupported(&self, way: Way) -> bool {
        let access = match way {
            Way::Read => self.read,
            Way::Write => self.write,
        };

        access.does == "pmu-or-unknown"
    }

    /// What serves this kind of access.
    pub fn served(&self, vendor: Vendor) -> Served {
        match vendor {
            Vendor::Amd => self.amd,
            Vendor::Intel => self.intel,
        }
    }
}

/// What serves an MSR.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Served {
    /// Reads.
    pub read: Server,
    /// Writes.
    pub write: Server,
}

/// A part of KVM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Server {
    /// The common code.
    Kvm,
    /// kvm_amd or kvm_intel, which may call the common code.
    Module,
    /// The vendor module, while L2 runs.
    ModuleInL2,
}

/// Reads or writes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Way {
    /// RDMSR, `KVM_GET_MSRS`.
    Read,
    /// WRMSR, `KVM_SET_MSRS`.
    Write,
}

/// A condition of an access.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The kind of access; none for both.
    pub way: Option<Way>,
    /// The initiator; none for all.
    pub by: Option<Initiator>,
    /// The vendor of the host; none for all.
    pub vendor: Option<Vendor>,
    /// The condition applies to writes that set any of these bits; all ones: to any access.
    pub bits: u64,
    /// Whether it is checked before the vendor's module is called.
    pub first: bool,
    /// The condition.
    pub needs: Needs,
    /// The capability that user space has to enable for the check.
    pub only_with: Option<&'static str>,
    /// The result if the condition is not met; none for a remark.
    pub otherwise: Option<Otherwise>,
}

/// The condition of a [`Check`].
#[derive(Clone, Copy, Debug)]
pub enum Needs {
    /// The vCPU's CPUID has one of these.
    AnyOf(&'static [Feature]),
    /// The initiator is user space.
    Host,
    /// Never met.
    Nobody,
    /// KVM itself supports it: `smm`, or `tsc-aux` (KVM can switch that MSR).
    Kvm(&'static str),
    /// The text describes it; empty if there are only reserved bits.
    Words(&'static str),
}

/// The result of an access that fails a [`Check`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Otherwise {
    /// As if the MSR did not exist (`KVM_MSR_EXIT_REASON_UNKNOWN`).
    Unknown,
    /// It fails (`KVM_MSR_EXIT_REASON_INVAL`).
    Invalid,
    /// It succeeds without effect.
    Dropped,
}

/// The effect of an access that passes all checks.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// A keyword, as in `data/registers.json`.
    pub does: &'static str,
    /// The value, if it is constant.
    pub value: Option<u64>,
    /// Bits that nobody can set.
    pub reserved: Option<u64>,
    /// The kind of address that is written, if it is one.
    pub address: Option<&'static str>,
}

/// Why an MSR is in `KVM_GET_MSR_INDEX_LIST`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum List {
    /// The host's CPU has it.
    Saved,
    /// KVM emulates it.
    Emulated,
}

/// An MSR of `KVM_GET_MSR_FEATURE_INDEX_LIST`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FeatureMsr {
    /// Once the vCPU has run, `KVM_SET_MSRS` accepts only the current value.
    Fixed,
    /// It may change.
    Changing,
}

/// Sentences for people.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The checks.
    pub checked: &'static str,
    /// What KVM's common code reads; empty if it is never called.
    pub read: &'static str,
    /// What it does with a write.
    pub write: &'static str,
    /// The lists that have it, and on which condition.
    pub lists: &'static str,
}

/// The rules for an index.
pub fn rule(index: u32) -> &'static Rule {
    let at = data::RANGES.partition_point(|&(_, last, _)| last < index);

    data::RANGES
        .get(at)
        .filter(|&&(first, _, _)| first <= index)
        .and_then(|&(_, _, rule)| data::RULES.get(usize::from(rule)))
        .unwrap_or(&data::UNDECLARED)
}

/// All rules of MSRs that KVM's common code knows, in KVM's order.
pub fn rules() -> &'static [Rule] {
    &data::RULES
}

/// All indices that KVM's common code knows, as ranges with their rules.
pub fn declared() -> impl Iterator<Item = (u32, u32, &'static Rule)> {
    data::RANGES
        .iter()
        .filter_map(|&(first, last, rule)| Some((first, last, data::RULES.get(usize::from(rule))?)))
}

/// What accesses to an MSR need, in KVM's order: the checks before the vendor's module, the vendor
/// module's checks, and the checks of KVM's common code.
pub fn checks(index: u32) -> impl Iterator<Item = &'static Check> {
    let of_table = rule(index).checks;
    let first = of_table.iter().filter(|check| check.first);
    let of_modules = of_modules(index).map(|of| &of.check);
    let of_common_code = of_table.iter().filter(|check| !check.first);

    first.chain(of_modules).chain(of_common_code)
}

fn of_modules(index: u32) -> impl Iterator<Item = &'static OfModule> {
    data::OF_MODULES
        .iter()
        .filter(move |of| (of.first..=of.last).contains(&index))
}

/// The bits that nobody can set; on all hosts, or on those of one vendor.
pub fn reserved(index: u32, vendor: Option<Vendor>) -> u64 {
    let of_table = rule(index).write.reserved.unwrap_or(0);

    of_modules(index)
        .filter(|of| of.check.vendor.is_none() || of.check.vendor == vendor)
        .fold(of_table, |mask, of| mask | of.reserved)
}

/// The checks of the vendor modules, and what some bits need, with a text for what a [`Check`]
/// can't express.
pub fn module_checks(index: u32) -> impl Iterator<Item = (&'static Check, &'static str)> {
    of_modules(index).map(|of| (&of.check, of.words))
}

/// What a write of a value needs, on a vendor's hosts.
pub fn checks_of_write(
    index: u32,
    value: u64,
    by: Initiator,
    vendor: Vendor,
) -> impl Iterator<Item = &'static Check> {
    checks(index)
        .filter(|check| check.way != Some(Way::Read))
        .filter(move |check| check.by.is_none_or(|of| of == by))
        .filter(move |check| check.vendor.is_none_or(|of| of == vendor))
        .filter(move |check| check.bits == u64::MAX || check.bits & value != 0)
}

/// The features of which a vCPU's CPUID must have at least one for the access, as in KVM 7.3;
/// empty if it depends on none. If several groups of features are needed, it is the first group;
/// see [`checks`] for all, and [`checks_of_write`] for bits that need more. Paravirtual features
/// are left out: KVM does not check them unless user space enables
/// `KVM_CAP_ENFORCE_PV_FEATURE_CPUID`.
pub fn needs(index: u32, write: bool, by: Initiator) -> Vec<Feature> {
    let way = if write { Way::Write } else { Way::Read };

    checks(index)
        .filter(|check| check.only_with.is_none() && check.otherwise != Some(Otherwise::Dropped))
        .filter(|check| check.bits == u64::MAX && check.way.is_none_or(|of| of == way))
        .filter(|check| check.by.is_none_or(|of| of == by))
        .find_map(|check| match check.needs {
            Needs::AnyOf(features) => Some(features.to_vec()),
            _ => None,
        })
        .unwrap_or_default()
}

/// Whether the MSR can't change once the vCPU has run: then `KVM_SET_MSRS` accepts only the
/// current value.
pub fn is_fixed_after_run(index: u32) -> bool {
    rule(index).feature_msr == Some(FeatureMsr::Fixed)
}

/// Whether the value changes by itself, e.g. a clock or counter.
pub fn moves(index: u32) -> bool {
    data::MOVING
        .iter()
        .any(|&(first, last)| (first..=last).contains(&index))
}

/// Whether a filter (`KVM_X86_SET_MSR_FILTER`) can deny the guest an MSR. KVM never filters x2APIC
/// MSRs.
pub fn is_filtered(index: u32) -> bool {
    !(0x800..=0x8ff).contains(&index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(index: u32, write: bool, by: Initiator) -> Vec<&'static str> {
        needs(index, write, by)
            .iter()
            .map(|feature| feature.name)
            .collect()
    }

    #[test]
    fn of_two_declarations_the_first_counts() {
        assert_eq!(rule(0x277).name, "IA32_CR_PAT");
        assert_eq!(rule(0x200).name, "MTRRphysBase0");
        assert_eq!(rule(0x26f).name, "MTRRphysBase0");
        assert_eq!(rule(0x4000_0000).name, "HV_X64_GUEST_OS_ID");
        assert_eq!(rule(0x4000_0004).name, "HV_X64");
        for index in [2, 0x270, 0x900, 0xc001_102d, u32::MAX] {
            assert!(!rule(index).is_declared(), "{index:#x}");
        }
    }

    #[test]
    fn accesses_hang_on_cpuid() {
        use Initiator::Guest;
        use Initiator::Host;

        assert_eq!(names(0xc000_0103, false, Guest), ["RDTSCP", "RDPID"]);
        assert!(names(0xc000_0103, false, Host).is_empty());
        assert_eq!(names(0x6a0, true, Host), ["SHSTK", "IBT"]);
        assert_eq!(names(0x480, true, Host), ["VMX"]);
        assert_eq!(names(0x49, true, Guest), ["SPEC_CTRL", "AMD_IBPB", "SBPB"]);
        assert!(names(0x49, true, Host).is_empty());
        assert!(names(0xc000_0080, true, Guest).is_empty());
        // Without TSC_ADJUST a write is dropped, not refused.
        assert!(names(0x3b, true, Host).is_empty());
        // By default, KVM does not check paravirtual features either.
        assert!(names(0x12, true, Guest).is_empty());
        assert!(checks(0x12).any(|check| check.only_with.is_some()));
    }

    #[test]
    fn bits_hang_on_cpuid() {
        let names = |value| {
            checks_of_write(0xc000_0080, value, Initiator::Guest, Vendor::Amd)
                .filter_map(|check| match check.needs {
                    Needs::AnyOf([feature]) => Some(feature.name),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };

        assert_eq!(names(0xd00), ["NX", "LM"]);
        assert!(names(1).is_empty());
    }

    #[test]
    fn some_are_fixed_and_some_move() {
        assert!(is_fixed_after_run(0x10a) && !is_fixed_after_run(0x8b));
        assert!(moves(0x10) && !moves(0xc000_0080));
        assert!(is_filtered(0x7ff) && !is_filtered(0x8ff) && is_filtered(0x900));
    }

    #[test]
    fn reserved_bits_are_those_of_the_table_and_of_the_modules() {
        assert_eq!(reserved(0x4b56_4d05, None), !1);
        assert_eq!(reserved(0x122, Some(Vendor::Intel)), !3);
        assert_eq!(reserved(0x122, None), 0);
    }
}
