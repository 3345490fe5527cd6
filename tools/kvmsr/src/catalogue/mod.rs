// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Names of MSRs, their bit fields, and KVM's rules for them. All of it is data: nothing here asks
//! KVM.
//!
//! Where the data is from is said in `data/README`.

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

/// Whose MSR or field it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Owner {
    /// Intel's.
    Intel,
    /// AMD's.
    Amd,
    /// Both vendors have it.
    Both,
    /// KVM's paravirtual ones.
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

    /// Whether CPUs of a vendor have what is this owner's, or would if they ran KVM or Hyper-V.
    fn is_on(self, vendor: Vendor) -> bool {
        match self {
            Owner::Intel => vendor == Vendor::Intel,
            Owner::Amd => vendor == Vendor::Amd,
            Owner::Both | Owner::Kvm | Owner::HyperV => true,
        }
    }
}

/// An MSR, or several that are alike.
#[derive(Clone, Copy, Debug)]
pub struct Msr {
    /// The first index.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// From one index to the next.
    pub stride: u32,
    /// Its name; of several with `{n}` for the number.
    pub name: &'static str,
    /// Whose it is.
    pub owner: Owner,
    /// Other names; of several those of the first.
    pub aliases: &'static [&'static str],
    /// Its fields, of all vendors and in all variants. [`fields`] has those of one vendor.
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
    /// Which bits.
    pub bits: Bits,
    /// Its name.
    pub name: &'static str,
    /// Whose register it is of.
    pub owner: Owner,
    /// What its values mean, where that is known.
    pub values: &'static [(u64, &'static str)],
    /// Whether it is an address, to be shown where its bits are and not shifted down.
    pub address: bool,
    /// Of which CPU family or message it is, if it is not of all; such fields overlap others.
    pub variant: Option<&'static str>,
    /// What tells from the value that it is this variant.
    pub when: Option<When>,
    /// Whether it is a part of the field before it, with a name of its own.
    pub part: bool,
    /// Who says so.
    pub source: &'static str,
}

impl Field {
    /// Its value as it is to be shown: an address where its bits are, all else shifted down.
    pub fn of(&self, value: u64) -> u64 {
        if self.address {
            value & self.bits.mask()
        } else {
            self.bits.of(value)
        }
    }

    /// What a value of [`Field::of`] means, where that is known.
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
    /// Whether a value meets it.
    pub fn is_met(&self, value: u64) -> bool {
        self.values.contains(&self.bits.of(value))
    }
}

/// A bit of CPUID that an access hangs on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Feature {
    /// As in Linux, without `X86_FEATURE_`; paravirtual ones as `KVM_FEATURE_CLOCKSOURCE`.
    pub name: &'static str,
    /// EAX of the instruction.
    pub function: u32,
    /// ECX of the instruction.
    pub index: u32,
    /// The register that it is in.
    pub register: Register,
    /// The bit.
    pub bit: u8,
}

impl std::fmt::Display for Feature {
    /// As `SVM (CPUID 0x80000001 ECX bit 2)`.
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

/// Who makes an access.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Initiator {
    /// User space, by an ioctl.
    Host,
    /// The guest, by an instruction.
    Guest,
}
