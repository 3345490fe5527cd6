// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Names of MSRs, their bit fields, and KVM's rules for them. It is data only and does not need
//! KVM.
//!
//! `data/README` names the sources.

mod data;
mod decode;
mod names;
mod rules;
mod spelling;

use crate::cpuid::Register;
use crate::cpuid::Vendor;
use crate::number::Bits;

pub use decode::Change;
pub use decode::Decoded;
pub use decode::Decoding;
pub use decode::changes;
pub use decode::decode;
pub use decode::fields;
pub use names::MAX_INDICES;
pub use names::all;
pub use names::find;
pub use names::index_of;
pub use names::like;
pub use names::msr;
pub use names::name;
pub use names::parse_index;
pub use names::parse_indices;
pub use rules::Access;
pub use rules::Check;
pub use rules::FeatureMsr;
pub use rules::List;
pub use rules::Needs;
pub use rules::Otherwise;
pub use rules::Rule;
pub use rules::Served;
pub use rules::Server;
pub use rules::Way;
pub use rules::Words;
pub use rules::checks;
pub use rules::checks_of_write;
pub use rules::declared;
pub use rules::is_filtered;
pub use rules::is_fixed_after_run;
pub use rules::module_checks;
pub use rules::moves;
pub use rules::needs;
pub use rules::reserved;
pub use rules::rule;
pub use rules::rules;

/// The owner of an MSR or field.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Owner {
    /// Intel's.
    Intel,
    /// AMD's.
    Amd,
    /// Both vendors.
    Both,
    /// KVM's paravirtual MSRs.
    Kvm,
    /// Hyper-V's.
    HyperV,
}

impl Owner {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Owner::Intel => "Intel",
            Owner::Amd => "AMD",
            Owner::Both => "Intel and AMD",
            Owner::Kvm => "KVM",
            Owner::HyperV => "Hyper-V",
        }
    }

    /// Whether a vendor's CPUs have it, or would have it under KVM or Hyper-V.
    fn is_on(self, vendor: Vendor) -> bool {
        match self {
            Owner::Intel => vendor == Vendor::Intel,
            Owner::Amd => vendor == Vendor::Amd,
            Owner::Both | Owner::Kvm | Owner::HyperV => true,
        }
    }
}

/// An MSR, or several similar ones.
#[derive(Clone, Copy, Debug)]
pub struct Msr {
    /// The first index.
    pub first: u32,
    /// The number of MSRs.
    pub count: u32,
    /// The distance of their indices.
    pub stride: u32,
    /// The name; for several MSRs, with `{n}` for the number.
    pub name: &'static str,
    /// The owner.
    pub owner: Owner,
    /// Other names; for several MSRs, the first one's.
    pub aliases: &'static [&'static str],
    /// The fields of all vendors and variants. [`fields`] returns those of one vendor.
    pub fields: &'static [Field],
}

impl Msr {
    /// The number of an element, if there are several.
    pub fn number(&self, index: u32) -> Option<u32> {
        (self.count > 1).then(|| index.saturating_sub(self.first) / self.stride.max(1))
    }

    /// All of its indices.
    pub fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        let &Msr { first, stride, .. } = self;

        (0..self.count).map(move |number| first + number * stride)
    }
}

/// Some bits of an MSR.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The bits.
    pub bits: Bits,
    /// Its name.
    pub name: &'static str,
    /// The owner.
    pub owner: Owner,
    /// The meanings of values, if known.
    pub values: &'static [(u64, &'static str)],
    /// Whether it is an address, which is printed in place and not shifted down.
    pub address: bool,
    /// The CPU family or message that has it, if not all do. Such fields overlap others.
    pub variant: Option<&'static str>,
    /// The condition on the value for this variant.
    pub when: Option<When>,
    /// Whether it is a named part of the field before it.
    pub part: bool,
    /// Its sources.
    pub source: &'static str,
}

impl Field {
    /// The value for output: addresses in place, other fields shifted down.
    pub fn of(&self, value: u64) -> u64 {
        if self.address {
            value & self.bits.mask()
        } else {
            self.bits.of(value)
        }
    }

    /// The meaning of a value of [`Field::of`], if known.
    pub fn meaning(&self, value: u64) -> Option<&'static str> {
        let &(_, meaning) = self.values.iter().find(|&&(of, _)| of == value)?;

        Some(meaning)
    }
}

/// A condition on an MSR's value.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// These bits
    pub bits: Bits,
    /// have one of these values.
    pub values: &'static [u64],
}

impl When {
    /// Whether a value meets the condition.
    pub fn is_met(&self, value: u64) -> bool {
        self.values.contains(&self.bits.of(value))
    }
}

/// A CPUID bit on which an access depends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Feature {
    /// The name in Linux, without `X86_FEATURE_`; paravirtual ones such as
    /// `KVM_FEATURE_CLOCKSOURCE`.
    pub name: &'static str,
    /// EAX of the instruction.
    pub function: u32,
    /// ECX of the instruction.
    pub index: u32,
    /// The output register.
    pub register: Register,
    /// The bit.
    pub bit: u8,
}

impl std::fmt::Display for Feature {
    /// For example `SVM (CPUID 0x80000001 ECX bit 2)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let register = match self.register {
            Register::Eax => "EAX",
            Register::Ebx => "EBX",
            Register::Ecx => "ECX",
            Register::Edx => "EDX",
        };

        write!(f, "{} (CPUID {:#x}", self.name, self.function)?;
        if self.index != 0 {
            write!(f, ".{:#x}", self.index)?;
        }
        write!(f, " {register} bit {})", self.bit)
    }
}

/// The initiator of an access.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Initiator {
    /// User space, by an ioctl.
    Host,
    /// The guest, by an instruction.
    Guest,
}
