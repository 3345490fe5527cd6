// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The result of a check.

use std::fmt;

use serde::Serialize;

use crate::catalogue;
use crate::cpuid::Register;
use crate::cpuid::Vendor;
use crate::number::Hex;

/// Whether a host accepts a list of MSRs, and if not, why.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// [`SCHEMA`](crate::snapshot::SCHEMA)
    pub schema: u32,
    /// The setup of the scratch vCPU.
    pub vcpu: Vcpu,
    /// The number of entries that KVM accepts and keeps.
    pub fine: usize,
    /// The number of entries that KVM refuses.
    pub refused: usize,
    /// The number of entries that KVM accepts and changes.
    pub changed: usize,
    /// The entries, in the order of the list.
    pub msrs: Vec<Entry>,
    /// An order of the entries in which KVM accepts more of them: their positions in the list. It
    /// was tried on a vCPU of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Vec<usize>>,
}

/// The setup of a scratch vCPU.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Vcpu {
    /// The source of its CPUID: `file`, or the command line's.
    pub cpuid: String,
    /// Whether it had run before.
    pub after_run: bool,
    /// IA32_MCG_CAP, if `KVM_X86_SETUP_MCE` was called with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcg_cap: Option<Hex<u64>>,
    /// Whether it had Hyper-V's synthetic interrupt controller (`KVM_CAP_HYPERV_SYNIC2`).
    pub synic: bool,
    /// Remarks, e.g. that KVM refused the file's CPUID.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An entry of the list.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Entry {
    /// The MSR.
    pub index: Hex<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The value.
    pub value: Hex<u64>,
    /// The result.
    pub verdict: Verdict,
    /// The final value, if it differs and does not change by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<Hex<u64>>,
    /// The reasons, the main reason first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

/// The result for an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// KVM accepts and keeps it.
    Fine,
    /// KVM refuses it.
    Refused,
    /// KVM accepts it, but the MSR has another value.
    Changed,
}

/// A bit of CPUID, or a number in it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CpuidBit {
    /// Its name, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// EAX of the instruction.
    pub function: Hex<u32>,
    /// ECX of the instruction.
    pub index: Hex<u32>,
    /// The register.
    pub register: Register,
    /// The bit; none for a number in the register, e.g. the width of addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bit: Option<u8>,
}

impl fmt::Display for CpuidBit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}, ")?;
        }
        let register = match self.register {
            Register::Eax => "EAX",
            Register::Ebx => "EBX",
            Register::Ecx => "ECX",
            Register::Edx => "EDX",
        };

        write!(
            f,
            "CPUID {:#x}.{:#x}:{register}",
            self.function.0, self.index.0
        )?;
        match self.bit {
            Some(bit) => write!(f, " bit {bit}"),
            None => Ok(()),
        }
    }
}

/// Why an entry fails.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// KVM does not know the MSR on this host.
    Unknown {
        /// The owner of the MSR, if it is the other vendor.
        #[serde(skip_serializing_if = "Option::is_none")]
        of: Option<Vendor>,
    },
    /// It can be read, but KVM accepts no value for it.
    ReadOnly {
        /// Its value.
        reads: Hex<u64>,
    },
    /// It depends on CPUID bits that the vCPU lacks.
    Cpuid {
        /// The bits: all of them if `proven`, otherwise one of them.
        bits: Vec<CpuidBit>,
        /// Whether KVM accepted the value on a vCPU that has them. If not, this host does not
        /// support them, and KVM's rules name them.
        proven: bool,
    },
    /// KVM refuses some bits of the value.
    ReservedBits {
        /// Bits that are set but have to be clear, as few as possible.
        clear: Hex<u64>,
        /// Bits that are clear but have to be set.
        set: Hex<u64>,
        /// The value that KVM accepts then.
        takes: Hex<u64>,
    },
    /// Once the vCPU has run, KVM accepts only the current value.
    FixedAfterRun {
        /// Its value.
        reads: Hex<u64>,
    },
    /// Another MSR has to be written first.
    Order {
        /// That MSR.
        after: Hex<u32>,
        /// Its position in the list.
        after_position: usize,
    },
    /// It has to be written before another MSR, after which KVM refuses it.
    TooLate {
        /// That MSR.
        before: Hex<u32>,
        /// Its position in the list.
        before_position: usize,
    },
    /// A later entry changes it.
    OverwrittenBy {
        /// That MSR.
        by: Hex<u32>,
        /// Its position in the list.
        by_position: usize,
    },
    /// KVM accepts the write without effect: the MSR does not change.
    Ignored {
        /// Its value.
        reads: Hex<u64>,
    },
    /// KVM does not keep some bits.
    NotKept {
        /// Bits that are set, but read as clear.
        lost: Hex<u64>,
        /// Bits that are clear, but read as set.
        gained: Hex<u64>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unknown { of: None } => f.write_str("unknown here"),
            Reason::Unknown {
                of: Some(Vendor::Amd),
            } => f.write_str("unknown here: an MSR of AMD"),
            Reason::Unknown {
                of: Some(Vendor::Intel),
            } => f.write_str("unknown here: an MSR of Intel"),
            Reason::ReadOnly { reads } => write!(f, "read-only: its value is {reads}"),
            Reason::Cpuid { bits, proven } => {
                let lacks = match bits.iter().all(|bit| bit.bit.is_some()) {
                    _ if !proven => "which this host does not support",
                    true => "which the vCPU's CPUID lacks",
                    false => "of which the vCPU's CPUID has fewer",
                };
                let bits: Vec<_> = bits.iter().map(CpuidBit::to_string).collect();
                let and = if *proven { " and on " } else { " or on " };

                write!(f, "depends on {}, {lacks}", bits.join(and))
            }
            Reason::ReservedBits { clear, set, takes } => {
                f.write_str("reserved bits: ")?;
                if clear.0 != 0 {
                    write!(f, "{} must be clear", bit_list(clear.0))?;
                }
                if set.0 != 0 {
                    let and = if clear.0 != 0 { ", " } else { "" };

                    write!(f, "{and}{} must be set", bit_list(set.0))?;
                }
                write!(f, "; {takes} is accepted")
            }
            Reason::FixedAfterRun { reads } => {
                write!(f, "fixed once the vCPU has run: its value stays {reads}")
            }
            Reason::Order { after, .. } => {
                write!(f, "needs {} first", named(after.0))
            }
            Reason::TooLate { before, .. } => {
                write!(f, "has to come before {}", named(before.0))
            }
            Reason::OverwrittenBy { by, .. } => {
                write!(f, "overwritten by {}, which comes later", named(by.0))
            }
            Reason::Ignored { reads } => {
                write!(f, "KVM ignores the write: the value stays {reads}")
            }
            Reason::NotKept { lost, gained } => {
                f.write_str("KVM changes it: ")?;
                if lost.0 != 0 {
                    write!(f, "{} read as clear", bit_list(lost.0))?;
                }
                if gained.0 != 0 {
                    let and = if lost.0 != 0 { ", " } else { "" };

                    write!(f, "{and}{} read as set", bit_list(gained.0))?;
                }
                Ok(())
            }
        }
    }
}

fn named(index: u32) -> String {
    match catalogue::name(index, None) {
        Some(name) => format!("{name} ({index:#x})"),
        None => format!("{index:#x}"),
    }
}

/// Bits by their numbers: `bits 63-32, 5, 0`.
fn bit_list(mask: u64) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();

    for bit in (0..64).rev().filter(|bit| mask >> bit & 1 != 0) {
        match ranges.last_mut() {
            Some((_, low)) if *low == bit + 1 => *low = bit,
            _ => ranges.push((bit, bit)),
        }
    }
    let ranges: Vec<_> = ranges
        .into_iter()
        .map(|(high, low)| match high - low {
            0 => high.to_string(),
            _ => format!("{high}-{low}"),
        })
        .collect();
    let word = if mask.count_ones() == 1 {
        "bit"
    } else {
        "bits"
    };

    format!("{word} {}", ranges.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_listed_as_ranges() {
        assert_eq!(bit_list(1), "bit 0");
        assert_eq!(bit_list(0xffff_ffff_0000_0021), "bits 63-32, 5, 0");
        assert_eq!(bit_list(u64::MAX), "bits 63-0");
    }

    #[test]
    fn reasons_are_sentences() {
        let reason = Reason::ReservedBits {
            clear: Hex(0x30),
            set: Hex(1),
            takes: Hex(1),
        };

        assert_eq!(
            reason.to_string(),
            "reserved bits: bits 5-4 must be clear, bit 0 must be set; 0x1 is accepted"
        );
        let reason = Reason::Cpuid {
            bits: vec![CpuidBit {
                name: Some("X2APIC".to_owned()),
                function: Hex(1),
                index: Hex(0),
                register: Register::Ecx,
                bit: Some(21),
            }],
            proven: true,
        };

        assert_eq!(
            reason.to_string(),
            "depends on X2APIC, CPUID 0x1.0x0:ECX bit 21, which the vCPU's CPUID lacks"
        );
    }
}
