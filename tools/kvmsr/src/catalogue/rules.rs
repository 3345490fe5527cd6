// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How KVM of Linux 7.3 treats MSRs.

use super::Feature;
use super::Initiator;
use super::data;
use super::data::OfModule;
use crate::cpuid::Vendor;

/// What holds for an MSR, or for several that are alike.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The first index.
    pub first: u32,
    /// The last index.
    pub last: u32,
    /// KVM's name for it, of several that of the first; empty for MSRs that KVM does not know.
    pub name: &'static str,
    /// Who serves it on AMD's hosts.
    pub amd: Served,
    /// Who serves it on Intel's.
    pub intel: Served,
    /// What accesses need, in the order in which KVM looks. See also [`checks`].
    pub checks: &'static [Check],
    /// What becomes of reads.
    pub read: Access,
    /// What becomes of writes.
    pub write: Access,
    /// Whether it is in `KVM_GET_MSR_INDEX_LIST`.
    pub list: Option<List>,
    /// Whether it is in `KVM_GET_MSR_FEATURE_INDEX_LIST`.
    pub feature_msr: Option<FeatureMsr>,
    /// The same in sentences.
    pub words: Words,
}

impl Rule {
    /// Whether KVM's common code knows the MSR. If not, only the PMU may.
    pub fn is_declared(&self) -> bool {
        !self.name.is_empty()
    }

    /// Whether KVM's common code knows no such access.
    pub fn is_unsupported(&self, way: Way) -> bool {
        let access = match way {
            Way::Read => self.read,
            Way::Write => self.write,
        };

        access.does == "pmu-or-unknown"
    }

    /// Who serves it.
    pub fn served(&self, vendor: Vendor) -> Served {
        match vendor {
            Vendor::Amd => self.amd,
            Vendor::Intel => self.intel,
        }
    }
}

/// Who serves an MSR.
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
    /// The common one.
    Kvm,
    /// kvm_amd or kvm_intel, which may ask the common one.
    Module,
    /// The latter while L2 runs.
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

/// Something that accesses need.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Which way; none: both.
    pub way: Option<Way>,
    /// Whose accesses; none: everybody's.
    pub by: Option<Initiator>,
    /// On whose hosts; none: on all.
    pub vendor: Option<Vendor>,
    /// The bits that a write has to have any of; all: any access.
    pub bits: u64,
    /// Whether it comes before the vendor's module is asked.
    pub first: bool,
    /// What it needs.
    pub needs: Needs,
    /// The capability that user space has to enable for KVM to look at all.
    pub only_with: Option<&'static str>,
    /// What becomes of the access otherwise; none: it's just a remark.
    pub otherwise: Option<Otherwise>,
}

/// What a [`Check`] asks for.
#[derive(Clone, Copy, Debug)]
pub enum Needs {
    /// The vCPU's CPUID has one of these.
    AnyOf(&'static [Feature]),
    /// It's user space that makes the access.
    Host,
    /// It never passes.
    Nobody,
    /// KVM itself has it: `smm`, or `tsc-aux`, by which it can switch that MSR.
    Kvm(&'static str),
    /// What the words say; they are empty if there are only reserved bits.
    Words(&'static str),
}

/// What becomes of an access that a [`Check`] stops.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Otherwise {
    /// As if the MSR did not exist (`KVM_MSR_EXIT_REASON_UNKNOWN`).
    Unknown,
    /// It fails (`KVM_MSR_EXIT_REASON_INVAL`).
    Invalid,
    /// It succeeds, to no effect.
    Dropped,
}

/// What becomes of an access that all checks let pass.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// A word for it; those of `data/registers.json`.
    pub does: &'static str,
    /// What is read, if it's always the same.
    pub value: Option<u64>,
    /// Bits that are refused whoever writes them.
    pub reserved: Option<u64>,
    /// Which kind of address is written.
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
    /// Once the vCPU has run, `KVM_SET_MSRS` takes no other value.
    Fixed,
    /// It may change.
    Changing,
}

/// Sentences for people.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// What is checked.
    pub checked: &'static str,
    /// What KVM's common code reads; empty if it's never asked.
    pub read: &'static str,
    /// What it does with a write.
    pub write: &'static str,
    /// In which lists it is, and on which condition.
    pub lists: &'static str,
}

/// What holds for an index.
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

/// What accesses to an MSR need, in the order in which KVM looks: what comes first on all hosts,
/// what the vendors' modules ask for, and then what KVM's common code does.
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

/// The bits that are refused whoever writes them; on all hosts, or on those of one vendor.
pub fn reserved(index: u32, vendor: Option<Vendor>) -> u64 {
    let of_table = rule(index).write.reserved.unwrap_or(0);

    of_modules(index)
        .filter(|of| of.check.vendor.is_none() || of.check.vendor == vendor)
        .fold(of_table, |mask, of| mask | of.reserved)
}

/// What the vendors' modules check, and what some bits need, with what a [`Check`] can't say of it, in words.
pub fn module_checks(index: u32) -> impl Iterator<Item = (&'static Check, &'static str)> {
    of_modules(index).map(|of| (&of.check, of.words))
}

/// What a write of a value needs, on hosts of a vendor.
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

/// The features of which a vCPU's CPUID must have at least one for the access, as KVM 7.3 has it;
/// empty if it hangs on none. Where one of each of several groups is needed, it's the first group,
/// see [`checks`] for all, and [`checks_of_write`] for bits that need more. Paravirtual features are left out: KVM does not ask for them unless user
/// space enables `KVM_CAP_ENFORCE_PV_FEATURE_CPUID`.
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

/// Whether KVM keeps the MSR as it is once the vCPU has run: `KVM_SET_MSRS` takes no other value.
pub fn is_fixed_after_run(index: u32) -> bool {
    rule(index).feature_msr == Some(FeatureMsr::Fixed)
}

/// Whether the value changes by itself, as clocks and counters do.
pub fn moves(index: u32) -> bool {
    data::MOVING
        .iter()
        .any(|&(first, last)| (first..=last).contains(&index))
}

/// Whether a filter (`KVM_X86_SET_MSR_FILTER`) can deny the guest an MSR. x2APIC's are never
/// filtered.
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
        // Nor does KVM look at paravirtual features, by default.
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
