// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Faults in a snapshot, with known reasons.

use kvmsr::cpuid::Register;
use kvmsr::cpuid::Vendor;
use kvmsr::number::Hex;
use kvmsr::snapshot::Snapshot;
use kvmsr::snapshot::Value as Msr;
use serde_json::Value;

/// A fault that `kvmsr check` has to find.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) index: u32,
    pub(super) verdict: &'static str,
    pub(super) reason: Reason,
}

/// Why KVM refuses or changes an entry.
#[derive(Debug)]
pub(super) enum Reason {
    Unknown,
    /// Function, register, and the bit, if it is one.
    Cpuid(u32, &'static str, Option<u8>),
    /// Bits that are set but must be clear.
    Reserved(u64),
    /// The value that the MSR keeps.
    Fixed(u64),
    /// The index of the MSR that comes too late.
    After(u32),
    /// The index of the later MSR that undoes it.
    Overwritten(u32),
    /// The value that the MSR keeps, whatever is written.
    Ignored,
    /// Bits that are not stored.
    NotKept(u64),
}

impl Reason {
    /// Whether a reason's JSON matches.
    pub(super) fn is(&self, said: &Value) -> bool {
        let number = |key: &str| super::hex(&said[key]);
        let kind = |kind: &str| said["kind"] == kind;

        match *self {
            Reason::Unknown => kind("unknown"),
            Reason::Cpuid(function, register, bit) => {
                let said_bit = &said["bits"][0];

                kind("cpuid")
                    && said["proven"] == true
                    && said["bits"].as_array().is_some_and(|bits| bits.len() == 1)
                    && super::hex(&said_bit["function"]) == Some(function.into())
                    && said_bit["register"] == register
                    && said_bit["bit"].as_u64() == bit.map(u64::from)
            }
            Reason::Reserved(bits) => {
                kind("reserved-bits") && number("clear") == Some(bits) && number("set") == Some(0)
            }
            Reason::Fixed(reads) => kind("fixed-after-run") && number("reads") == Some(reads),
            Reason::After(index) => kind("order") && number("after") == Some(index.into()),
            Reason::Overwritten(index) => {
                kind("overwritten-by") && number("by") == Some(index.into())
            }
            Reason::Ignored => kind("ignored"),
            Reason::NotKept(bits) => kind("not-kept") && number("lost") == Some(bits),
        }
    }
}

/// Adds 20 faults to a snapshot of the other vendor, for a vCPU that has run.
pub(super) fn plant(vendor: Vendor, snapshot: &mut Snapshot) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |index, verdict, reason| {
        faults.push(Fault {
            index,
            verdict,
            reason,
        });
    };

    // MSRs that do not exist.
    for index in [0x1234_5678, 0xdead_beef, 0x4b56_4d7f, 0xc001_3fff] {
        set(snapshot, index, 1);
        fault(index, "refused", Reason::Unknown);
    }
    // CPUID features that this host has but the file's vCPU lacks: the width of addresses, for
    // bits of MTRRs above it; TSC_ADJUST, without which KVM ignores writes; and another one.
    address_bits(snapshot, 36);
    set(snapshot, 0x202, 0x20_0000_0006);
    set(snapshot, 0x203, 0x30_0000_0800);
    fault(0x202, "refused", Reason::Cpuid(0x8000_0008, "eax", None));
    fault(0x203, "refused", Reason::Cpuid(0x8000_0008, "eax", None));
    snapshot.cpuid.set_bit(7, 0, Register::Ebx, 1, false);
    set(snapshot, 0x3b, 0x1234);
    fault(0x3b, "changed", Reason::Cpuid(7, "ebx", Some(1)));
    if vendor == Vendor::Amd {
        // IA32_ARCH_CAPABILITIES, and AMD64_DE_CFG, which can't change.
        snapshot.cpuid.set_bit(7, 0, Register::Edx, 29, false);
        set(snapshot, 0x10a, 0x40);
        fault(0x10a, "refused", Reason::Cpuid(7, "edx", Some(29)));
        set(snapshot, 0xc001_1029, 2);
        fault(0xc001_1029, "refused", Reason::Fixed(0));
    } else {
        // IA32_VMX_VMCS_ENUM, and IA32_ARCH_CAPABILITIES, which can't change.
        snapshot.cpuid.set_bit(1, 0, Register::Ecx, 5, false);
        set(snapshot, 0x48a, 0x2e);
        fault(0x48a, "refused", Reason::Cpuid(1, "ecx", Some(5)));
        snapshot.cpuid.set_bit(7, 0, Register::Edx, 29, true);
        let own = 0x4000_0000_0c00_0040;

        set(snapshot, 0x10a, 0x41);
        fault(0x10a, "refused", Reason::Fixed(own));
    }
    // MSR_PLATFORM_INFO has the bit for CPUID faulting, which the vCPU does not have.
    set(snapshot, 0xce, 0);
    fault(0xce, "refused", Reason::Fixed(1 << 31));
    // Reserved bits, some together with valid ones.
    for (index, value, reserved) in [
        (0x2ff, 0x100_0000_1c06, 0x100_0000_1000),
        (0x140, 0x3, 0x2),
        (0x4b56_4d05, 0x8000_0000_0000_0001, 1 << 63),
        (0x4b56_4d06, 0x1_80ff, 0x1_8000),
    ] {
        set(snapshot, index, value);
        fault(index, "refused", Reason::Reserved(reserved));
    }
    // Entries that come too early: x2APIC's TPR and SVR before the mode; Hyper-V's hypercall page
    // before the guest's identity; and KVM_PV_EOI_EN before the assist page, which undoes it.
    snapshot.cpuid.set_bit(1, 0, Register::Ecx, 21, true);
    set(snapshot, 0x1b, 0xfee0_0d00);
    set(snapshot, 0x4000_0000, 0x1_040a_0000_3839);
    for (index, value, verdict, reason) in [
        (0x808, 0x20, "refused", Reason::After(0x1b)),
        (0x80f, 0x1ff, "refused", Reason::After(0x1b)),
        (0x4000_0001, 0xd001, "changed", Reason::After(0x4000_0000)),
        (
            0x4b56_4d04,
            0xe001,
            "changed",
            Reason::Overwritten(0x4000_0073),
        ),
    ] {
        set(snapshot, index, value);
        to_front(snapshot, index);
        fault(index, verdict, reason);
    }
    // Values that KVM accepts but does not keep: the frequency of the APIC's timer, and bits of
    // HWCR.
    set(snapshot, 0x4000_0023, 12345);
    fault(0x4000_0023, "changed", Reason::Ignored);
    set(snapshot, 0xc001_0015, 0x100_0148);
    fault(0xc001_0015, "changed", Reason::NotKept(0x148));
    faults
}

/// Sets an entry's value, or adds the entry.
fn set(snapshot: &mut Snapshot, index: u32, value: u64) {
    match snapshot.msrs.iter_mut().find(|msr| msr.index.0 == index) {
        Some(msr) => msr.value = Hex(value),
        None => snapshot.msrs.push(Msr::new(index, value)),
    }
}

fn to_front(snapshot: &mut Snapshot, index: u32) {
    if let Some(at) = snapshot.msrs.iter().position(|msr| msr.index.0 == index) {
        let msr = snapshot.msrs.remove(at);

        snapshot.msrs.insert(0, msr);
    }
}

/// Sets the width of physical addresses.
fn address_bits(snapshot: &mut Snapshot, bits: u8) {
    for bit in 0..8 {
        snapshot
            .cpuid
            .set_bit(0x8000_0008, 0, Register::Eax, bit, bits >> bit & 1 != 0);
    }
}
