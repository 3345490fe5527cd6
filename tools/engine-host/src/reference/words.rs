// SPDX-License-Identifier: GPL-2.0

//! Describes the declarations' meaning in words, for people who write a VMM.
//!
//! The code is in `rust/engine/access/`.

use crate::engine::registers::{
    Condition, Feature, FeatureMsr, Field, Listed, Permission, PreCheck, Pv, Read, Register, Trace,
    Vendor, VendorSet, Write, REGISTERS,
};

/// Joins the parts that are not empty.
fn join(parts: impl IntoIterator<Item = String>, separator: &str) -> String {
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(separator)
}

pub(super) fn served_by(set: VendorSet) -> String {
    let on = |vendor| {
        let mut on = match (set.reads(vendor), set.writes(vendor)) {
            (false, false) => "engine",
            (false, true) => "engine reads, vendor's module writes",
            (true, false) => "vendor's module reads, engine writes",
            (true, true) => "vendor's module",
        }
        .to_owned();

        if set.reads_nested(vendor) && !set.reads(vendor) {
            on += ", and reads while L2 runs";
        }
        on
    };
    let (amd, intel) = (on(Vendor::Amd), on(Vendor::Intel));

    if amd == intel {
        amd
    } else {
        format!("AMD: {amd}. Intel: {intel}")
    }
}

pub(super) fn checked(register: &Register) -> String {
    let first = match pre_check(register.pre_check) {
        "" => String::new(),
        pre_check => format!("first: {pre_check}"),
    };
    let (read, write) = (
        permission(register.read_permission),
        permission(register.write_permission),
    );
    let either = if read == write {
        read
    } else {
        let of = |way, permission: String| {
            if permission.is_empty() {
                permission
            } else {
                format!("{way}: {permission}")
            }
        };

        join([of("read", read), of("write", write)], ". ")
    };

    join([first, either], ". ")
}

fn pre_check(pre_check: PreCheck) -> &'static str {
    match pre_check {
        PreCheck::None => "",
        PreCheck::Canonical => "a canonical address is written, else invalid",
        PreCheck::MakeCanonical => "an address that is written is made canonical",
        PreCheck::TscAux => {
            "KVM can switch it, and a guest has RDTSCP or RDPID, else invalid; bits 32 to 63 that \
             are written have to be 0 if the vCPU is Intel's, and are dropped otherwise"
        }
        PreCheck::Cet => {
            "SHSTK or IBT, else unknown; no bit is written that belongs to the one that the vCPU \
             lacks, nor bits 6 to 9, 12 or 13, nor both 10 and 11, else invalid"
        }
        PreCheck::ShadowStackPointer => {
            "SHSTK, else unknown; a canonical multiple of 4 is written, else invalid"
        }
        PreCheck::ShadowStackTable => {
            "SHSTK, and LM to write, else unknown; a canonical address is written, else invalid"
        }
        PreCheck::GuestShadowStackPointer => {
            "host only, else invalid; SHSTK, else unknown; a canonical multiple of 4 is written, \
             else invalid"
        }
    }
}

fn permission(permission: Permission) -> String {
    match permission {
        Permission::Everybody => String::new(),
        Permission::Feature(feature) => format!("{}, else unknown", feature.name()),
        Permission::FeatureElseInvalid(feature) => format!("{}, else invalid", feature.name()),
        Permission::GuestFeature(feature) => {
            format!("host, or {}, else invalid", feature.name())
        }
        Permission::HostFeature(feature) => {
            format!("host only, and {}, else unknown", feature.name())
        }
        Permission::Pv(feature) => format!("{}, else unknown", pv(feature)),
        Permission::Host => "host only, else invalid".to_owned(),
        Permission::Smm => "host only, and KVM emulates SMM, else invalid".to_owned(),
    }
}

/// How the engine reads the MSR; empty if the vendor's module always does.
pub(super) fn read(register: &Register) -> String {
    let words = match register.read {
        Read::Unsupported if both(register, VendorSet::reads) => return String::new(),
        Read::Unsupported => "PMU, else unknown",
        Read::Constant(0) => "always 0",
        Read::Constant(value) => return format!("always {value:#x}"),
        Read::Field(field) => return stored(register, field),
        Read::WallClock => "the VM's stored value",
        Read::Tsc => "the guest's TSC; host: L1's TSC, even while L2 runs",
        Read::PlatformInfo => {
            "the stored value; guest: invalid if KVM_CAP_MSR_PLATFORM_INFO is disabled"
        }
        Read::Xss => "the stored value; guest: invalid without XSAVES",
        Read::MachineCheckCtl => {
            "the stored value; guest: invalid if IA32_MCG_CAP lacks MCG_CTL_P (bit 8)"
        }
        Read::MachineCheckBank => {
            "the stored value; invalid if IA32_MCG_CAP does not have that many banks"
        }
        Read::MachineCheckCtl2 => {
            "the stored value; invalid if IA32_MCG_CAP does not have that many banks; guest: also \
             if it lacks MCG_CMCI_P (bit 10)"
        }
        Read::LegacyPmu => "PMU, else 0",
        Read::Mtrr => "by KVM's MTRR code",
        Read::X2apic => "by the local APIC; invalid unless it is KVM's and in x2APIC mode",
        Read::TscDeadline => "the time at which the local APIC's timer expires",
        Read::HyperV => "by KVM's Hyper-V code",
        Read::Xstate => "from the guest's FPU state",
        Read::Xfd => "the mask in the guest's FPU state",
    };

    words.to_owned()
}

/// How the engine writes the MSR; empty if the vendor's module always does.
pub(super) fn write(register: &Register) -> String {
    let words = match register.write {
        Write::Unsupported if both(register, VendorSet::writes) => return String::new(),
        Write::Unsupported => "PMU, else unknown",
        Write::Ignore => "dropped",
        Write::Drop => "dropped, and logged",
        Write::Zero => "0 is dropped, other values are logged and invalid",
        Write::Field(_) => "stored",
        Write::HostField(_) => "host: stored. Guest: dropped",
        Write::Reserved(_, reserved) => {
            return format!("stored; invalid with bits outside {:#x}", !reserved);
        }
        Write::Efer => {
            "by the vendor's module, but LMA does not change; invalid with bits that KVM does not \
             support; guest: also with bits whose feature it lacks, or if LME changes \
             while paging is on"
        }
        Write::Pat => "stored; invalid if a byte is not a valid memory type",
        Write::ApicBase => "by the local APIC",
        Write::Tsc => {
            "guest: changes its TSC, and IA32_TSC_ADJUST by the same amount. Host: sets the TSC, \
             synchronised with other vCPUs"
        }
        Write::TscAdjust => {
            "dropped without TSC_ADJUST. Guest: stored, and changes the TSC. Host: stored"
        }
        Write::MiscEnable => {
            "stored; guest: bit 7 does not change, invalid if bit 11 or 12 changes. Bit 18 controls \
             MWAIT in CPUID if KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT is disabled, and can then \
             change with XMM3 only, else invalid"
        }
        Write::PerfCapabilities => {
            "stored, and the PMU is updated; invalid with bits that KVM does not support"
        }
        Write::PredCmd => {
            "not stored: the CPU executes bits 0 (IBPB) and 7 (SBPB); invalid with others, and \
             with bits that the host's CPU lacks; guest: also with bit 0 if it has neither \
             SPEC_CTRL nor AMD_IBPB, with bit 7 if it lacks SBPB, and always if it has none of \
             the three"
        }
        Write::FlushCmd => {
            "not stored: the CPU executes bit 0 (flush L1D); invalid with others, or if the host's \
             CPU lacks it; guest: also without FLUSH_L1D"
        }
        Write::Xss => {
            "stored; unknown without XSAVES, invalid with bits that the vCPU does not support"
        }
        Write::Xfd => "to the guest's FPU state; invalid with bits that the vCPU does not support",
        Write::XfdErr => "stored; invalid with bits that the vCPU does not support",
        Write::Hwcr => {
            "bits 3, 6 and 8 are dropped; 18, 24, and 35 with GP_ON_USER_CPUID are stored; invalid \
             with others"
        }
        Write::MiscFeaturesEnables => {
            "stored; invalid with bits other than 0, and with bit 0 if PLATFORM_INFO lacks bit 31"
        }
        Write::MachineCheckCtl => {
            "stored; invalid except 0 and all ones; if IA32_MCG_CAP lacks MCG_CTL_P (bit 8), except \
             0 by the host"
        }
        Write::MachineCheckBank => {
            "stored; invalid if IA32_MCG_CAP does not have that many banks. Control: invalid except \
             0 and all ones, of which bits 0 and 10 may be 0. Status: guest: invalid except \
             0, unless its vendor is AMD and K7_HWCR has bit 18"
        }
        Write::MachineCheckCtl2 => {
            "stored; invalid with bits other than 0 to 14 and 30; if IA32_MCG_CAP does not have \
             that many banks; if it lacks MCG_CMCI_P (bit 10), except 0 by the host"
        }
        Write::LegacyPmu => "PMU, else dropped, and logged if not 0",
        Write::WallClock => "stored for the VM; the time is written to that address",
        Write::SystemTime { old: false } => {
            "stored: the address of the vCPU's clock, which is updated if bit 0 is set"
        }
        Write::SystemTime { old: true } => {
            "stored: the address of the vCPU's clock, which is updated if bit 0 is set; guest: on \
             vCPU 0, this also ends the use of a master clock"
        }
        Write::AsyncPfEn => {
            "stored: an address that is a multiple of 64, on if bits 0 and 3 are set; invalid with \
             bits 4 or 5, with bit 2 without KVM_FEATURE_ASYNC_PF_VMEXIT, with bit 3 without \
             KVM_FEATURE_ASYNC_PF_INT, or if there is no memory. If the local APIC is not \
             KVM's, 0 is dropped, and other values are invalid"
        }
        Write::AsyncPfInt => {
            "stored: a vector; invalid above 0xff, or if the local APIC is not KVM's"
        }
        Write::AsyncPfAck => "not stored: bit 0 requests the next page that is ready",
        Write::StealTime => {
            "stored: an address, on if bit 0 is set; invalid with bits 1 to 5, or if the kernel \
             does not measure steal time"
        }
        Write::PvEoi => "by the local APIC; invalid if it refuses the address",
        Write::Mtrr => "by KVM's MTRR code",
        Write::X2apic => "by the local APIC; invalid unless it is KVM's and in x2APIC mode",
        Write::TscDeadline => "sets the time at which the local APIC's timer expires",
        Write::HyperV => "by KVM's Hyper-V code",
        Write::Xstate => "to the guest's FPU state",
    };

    words.to_owned()
}

/// Whether both vendor modules serve an access. What is not declared they only pass on.
pub(super) fn both(register: &Register, does: fn(VendorSet, Vendor) -> bool) -> bool {
    !register.name.is_empty()
        && does(register.vendor, Vendor::Amd)
        && does(register.vendor, Vendor::Intel)
}

/// A stored value, and other MSRs with the same value.
fn stored(register: &Register, field: Field) -> String {
    let others = REGISTERS
        .iter()
        .filter(|other| other.name != register.name && other.read == Read::Field(field))
        .map(|other| format!("shared with {}", other.name));

    join(
        std::iter::once("the stored value".to_owned()).chain(others),
        "; ",
    )
}

pub(super) fn lists(register: &Register) -> String {
    let saved = |pmu: &str, condition| {
        let conditions = join([pmu.to_owned(), met(condition, register)], " and ");

        if conditions.is_empty() {
            "saved".to_owned()
        } else {
            format!("saved, if {conditions}")
        }
    };
    let listed = match register.listed {
        Listed::No => String::new(),
        Listed::Saved(condition) => saved("", condition),
        Listed::SavedPmu(condition) => saved("KVM has a PMU", condition),
        Listed::Emulated | Listed::EmulatedHyperV => "emulated".to_owned(),
    };
    let model = match register.feature {
        FeatureMsr::No => "",
        FeatureMsr::Immutable => "feature MSR, fixed once the vCPU has run",
        FeatureMsr::Mutable => "feature MSR",
    };

    join([listed, model.to_owned()], "; ")
}

/// What has to be true for a condition.
fn met(condition: Condition, register: &Register) -> String {
    match condition {
        Condition::Always => String::new(),
        Condition::Either(one, other) => {
            format!("KVM offers {} or {}", one.name(), other.name())
        }
        Condition::Both(one, other) => {
            format!("KVM offers {} and {}", one.name(), other.name())
        }
        Condition::Offers(offered) => format!("KVM offers {}", offered.name()),
        Condition::ProcessorTrace(trace) => {
            let offers = format!("KVM offers {}", Feature::IntelPt.name());
            let needs = match trace {
                Trace::Any => String::new(),
                Trace::Cr3Filtering => "with CR3 filtering".to_owned(),
                Trace::Output => "with output to memory".to_owned(),
                Trace::Ranges(number) => format!("with more than {number} address ranges"),
            };

            join([offers, needs], " ")
        }
        Condition::Counter { fixed, number } => {
            let last = number + (register.last - register.first);
            let kind = if fixed { "fixed" } else { "general purpose" };

            if number == last {
                format!("it has {kind} counter {number}")
            } else {
                format!("it has the counter ({kind}, {number} to {last})")
            }
        }
        Condition::TsxCtrl => "IA32_ARCH_CAPABILITIES has TSX_CTRL (bit 7)".to_owned(),
        Condition::Xss => "KVM supports any of its bits".to_owned(),
        Condition::Mpx => "KVM offers MPX".to_owned(),
    }
}

pub(super) fn pv(feature: Pv) -> String {
    match feature {
        Pv::CLOCKSOURCE => "KVM_FEATURE_CLOCKSOURCE",
        Pv::CLOCKSOURCE2 => "KVM_FEATURE_CLOCKSOURCE2",
        Pv::ASYNC_PF => "KVM_FEATURE_ASYNC_PF",
        Pv::STEAL_TIME => "KVM_FEATURE_STEAL_TIME",
        Pv::EOI => "KVM_FEATURE_PV_EOI",
        Pv::ASYNC_PF_VMEXIT => "KVM_FEATURE_ASYNC_PF_VMEXIT",
        Pv::POLL_CONTROL => "KVM_FEATURE_POLL_CONTROL",
        Pv::ASYNC_PF_INT => "KVM_FEATURE_ASYNC_PF_INT",
        // The type is a number, so the compiler can't check that this list is complete.
        Pv(bit) => return format!("KVM_FEATURE bit {bit}"),
    }
    .to_owned()
}
