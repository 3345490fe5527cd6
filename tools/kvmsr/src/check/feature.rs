// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds the CPUID bit on which an MSR depends: gives a vCPU all features that the host supports,
//! and then removes as many as possible.

use kvm_bindings::kvm_msr_entry;

use crate::catalogue;
use crate::catalogue::Feature;
use crate::catalogue::Initiator;
use crate::catalogue::Needs;
use crate::check::order::is_fine;
use crate::check::report::CpuidBit;
use crate::cpuid::Cpuid;
use crate::cpuid::Leaf;
use crate::cpuid::Register;
use crate::cpuid::Register::Eax;
use crate::cpuid::Register::Ebx;
use crate::cpuid::Register::Ecx;
use crate::cpuid::Register::Edx;
use crate::error::Error;
use crate::error::Result;
use crate::number::Hex;
use crate::scratch::Scratch;

/// CPUID registers whose bits are features: function, index, register.
const FEATURES: &[(u32, u32, Register)] = &[
    (0x1, 0, Ecx),
    (0x1, 0, Edx),
    (0x7, 0, Ebx),
    (0x7, 0, Ecx),
    (0x7, 0, Edx),
    (0x7, 1, Eax),
    (0x7, 1, Ecx),
    (0x7, 1, Edx),
    (0x7, 2, Edx),
    (0xd, 0, Eax),
    (0xd, 1, Eax),
    (0xd, 1, Ecx),
    (0x14, 0, Ebx),
    (0x14, 0, Ecx),
    (0x4000_0001, 0, Eax),
    (0x8000_0001, 0, Ecx),
    (0x8000_0001, 0, Edx),
    (0x8000_0007, 0, Edx),
    (0x8000_0008, 0, Ebx),
    (0x8000_000a, 0, Edx),
    (0x8000_0021, 0, Eax),
    (0x8000_0022, 0, Eax),
];

/// CPUID registers with numbers, and what they count.
const NUMBERS: &[(u32, u32, Register, &str)] = &[
    (0xa, 0, Eax, "performance counters"),
    (0xa, 0, Ecx, "fixed-function counters"),
    (0xa, 0, Edx, "fixed-function counters"),
    (0x8000_0008, 0, Eax, "address bits"),
    (0x8000_0022, 0, Ebx, "performance counters"),
];

/// Something that the host's CPUID has, but the vCPU's CPUID lacks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Difference {
    function: u32,
    index: u32,
    register: Register,
    /// The flags of the host's leaf, for a vCPU that lacks it.
    flags: u32,
    what: What,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    Bit(u8),
    Number(u32, &'static str),
}

impl Difference {
    fn apply(&self, cpuid: &mut Cpuid) {
        if cpuid.leaf(self.function, self.index).is_none() {
            cpuid.0.push(Leaf {
                function: Hex(self.function),
                index: Hex(self.index),
                flags: self.flags,
                eax: Hex(0),
                ebx: Hex(0),
                ecx: Hex(0),
                edx: Hex(0),
            });
        }
        let mut set = |bit, on| cpuid.set_bit(self.function, self.index, self.register, bit, on);

        match self.what {
            What::Bit(bit) => set(bit, true),
            What::Number(number, _) => {
                for bit in 0..32 {
                    set(bit, number >> bit & 1 != 0);
                }
            }
        }
    }

    fn is(&self, feature: &Feature) -> bool {
        (self.function, self.index, self.register, self.what)
            == (
                feature.function,
                feature.index,
                feature.register,
                What::Bit(feature.bit),
            )
    }

    /// With its name in the rules of an MSR.
    fn to_bit(self, index: u32) -> CpuidBit {
        let (name, bit) = match self.what {
            What::Bit(bit) => {
                let feature = named(index).find(|feature| self.is(feature));

                (feature.map(|feature| feature.name), Some(bit))
            }
            What::Number(_, name) => (Some(name), None),
        };

        CpuidBit {
            name: name.map(str::to_owned),
            function: Hex(self.function),
            index: Hex(self.index),
            register: self.register,
            bit,
        }
    }
}

/// All features in the rules of an MSR.
fn named(index: u32) -> impl Iterator<Item = &'static Feature> {
    catalogue::checks(index)
        .filter_map(|check| match check.needs {
            Needs::AnyOf(features) => Some(features),
            _ => None,
        })
        .flatten()
}

/// What the host supports beyond a CPUID.
fn differences(of: &Cpuid, host: &Cpuid) -> Vec<Difference> {
    let flags = |function, index| host.leaf(function, index).map_or(0, |leaf| leaf.flags);
    let bits = FEATURES.iter().flat_map(|&(function, index, register)| {
        let new =
            host.register(function, index, register) & !of.register(function, index, register);

        (0..32u8)
            .filter(move |bit| new >> bit & 1 != 0)
            .map(move |bit| Difference {
                function,
                index,
                register,
                flags: flags(function, index),
                what: What::Bit(bit),
            })
    });
    let numbers = NUMBERS
        .iter()
        .filter_map(|&(function, index, register, name)| {
            let number = host.register(function, index, register);

            (number != of.register(function, index, register)).then_some(Difference {
                function,
                index,
                register,
                flags: flags(function, index),
                what: What::Number(number, name),
            })
        });

    bits.chain(numbers).collect()
}

fn with(cpuid: &Cpuid, differences: &[Difference]) -> Cpuid {
    let mut cpuid = cpuid.clone();

    for difference in differences {
        difference.apply(&mut cpuid);
    }
    cpuid
}

/// The features that a write needs by KVM's rules.
fn needs(index: u32) -> Vec<Feature> {
    catalogue::needs(index, true, Initiator::Host)
}

/// Features of which the MSR needs one, if the host supports none of them. KVM ignores CPUID bits
/// that the host does not support.
pub(super) fn not_offered(index: u32, host: &Cpuid) -> Vec<CpuidBit> {
    let needs = needs(index);
    let has = |feature: &Feature| {
        host.register(feature.function, feature.index, feature.register) >> feature.bit & 1 != 0
    };

    if needs.iter().any(has) {
        return Vec::new();
    }
    needs
        .iter()
        .map(|feature| CpuidBit {
            name: Some(feature.name.to_owned()),
            function: Hex(feature.function),
            index: Hex(feature.index),
            register: feature.register,
            bit: Some(feature.bit),
        })
        .collect()
}

/// A vCPU whose CPUID is changed for each experiment. It must not run.
pub(super) struct Laboratory<'a> {
    vcpu: &'a Scratch,
    cpuid: &'a Cpuid,
    differences: Vec<Difference>,
    /// The feature with which the last MSR was accepted: the next one may depend on it, too.
    last: Vec<Difference>,
}

impl<'a> Laboratory<'a> {
    /// Creates a vCPU with this CPUID.
    pub(super) fn new(vcpu: &'a Scratch, cpuid: &'a Cpuid, host: &Cpuid) -> Self {
        Laboratory {
            vcpu,
            cpuid,
            differences: differences(cpuid, host),
            last: Vec::new(),
        }
    }

    /// For each entry, the CPUID bits without which KVM does not accept it, or, if requested, does
    /// not keep it. None if no bits of the host help.
    pub(super) fn bits(&mut self, entries: &[(kvm_msr_entry, bool)]) -> Result<Vec<Vec<CpuidBit>>> {
        let mut found = vec![Vec::new(); entries.len()];

        if self.differences.is_empty() || entries.is_empty() {
            return Ok(found);
        }
        // Some bits of the host need permission, e.g. AMX.
        if !self.set_cpuid(&with(self.cpuid, &self.differences))? {
            self.differences
                .retain(|difference| difference.function != 0xd);
            if !self.set_cpuid(&with(self.cpuid, &self.differences))? {
                self.set_cpuid(self.cpuid)?;
                return Ok(found);
            }
        }
        let mut hanging = Vec::new();

        for (at, (entry, kept)) in entries.iter().enumerate() {
            let before = self.vcpu.get(entry.index)?.unwrap_or(0);

            if is_fine(self.vcpu, entry, *kept)? {
                hanging.push((at, before));
            }
        }
        for (at, before) in hanging {
            if let Some((entry, kept)) = entries.get(at) {
                let bits = self.search(entry, *kept, before)?;

                found[at] = bits.iter().map(|bit| bit.to_bit(entry.index)).collect();
            }
        }
        self.set_cpuid(self.cpuid)?;
        Ok(found)
    }

    /// The minimum set of differences for the entry, which is accepted with all of them.
    fn search(
        &mut self,
        entry: &kvm_msr_entry,
        kept: bool,
        before: u64,
    ) -> Result<Vec<Difference>> {
        if !self.last.is_empty() && self.takes(&self.last.clone(), entry, kept, before)? {
            return Ok(self.last.clone());
        }
        let named: Vec<_> = named(entry.index)
            .filter_map(|feature| {
                self.differences
                    .iter()
                    .find(|difference| difference.is(feature))
            })
            .copied()
            .collect();

        for difference in named {
            if self.takes(&[difference], entry, kept, before)? {
                self.last = vec![difference];
                return Ok(self.last.clone());
            }
        }
        let mut needed: Vec<Difference> = Vec::new();
        let mut rest = self.differences.clone();

        // If the entry is accepted with the first `high` differences, but not with one fewer, it
        // needs the last one.
        while !self.takes(&needed, entry, kept, before)? {
            let (mut low, mut high) = (0, rest.len());

            while low + 1 < high {
                let middle = usize::midpoint(low, high);
                let mut some = needed.clone();

                some.extend(&rest[..middle]);
                if self.takes(&some, entry, kept, before)? {
                    high = middle;
                } else {
                    low = middle;
                }
            }
            rest.truncate(high);
            match rest.pop() {
                Some(difference) => needed.push(difference),
                None => return Ok(Vec::new()),
            }
        }
        self.last.clone_from(&needed);
        Ok(needed)
    }

    /// Whether the entry is accepted with some differences.
    fn takes(
        &self,
        some: &[Difference],
        entry: &kvm_msr_entry,
        kept: bool,
        before: u64,
    ) -> Result<bool> {
        // KVM may accept the current value, so restore the original value first, with the features
        // that it needs.
        self.set_cpuid(&with(self.cpuid, &self.differences))?;
        self.vcpu.set(entry.index, before)?;
        Ok(self.set_cpuid(&with(self.cpuid, some))? && is_fine(self.vcpu, entry, kept)?)
    }

    /// `KVM_SET_CPUID2`; whether KVM accepts it.
    fn set_cpuid(&self, cpuid: &Cpuid) -> Result<bool> {
        match self.vcpu.vcpu().set_cpuid2(&cpuid.to_kvm()?) {
            Ok(()) => Ok(true),
            // Errors such as a lack of memory would occur elsewhere, too.
            Err(error) if error.errno() == ENOMEM => Err(Error::kvm("KVM_SET_CPUID2")(error)),
            Err(_) => Ok(false),
        }
    }
}

const ENOMEM: i32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_has_more_is_found_and_can_be_given() {
        let mut host = Cpuid::default();
        let mut guest = Cpuid::default();

        host.set_bit(1, 0, Ecx, 21, true);
        host.set_bit(1, 0, Ecx, 20, true);
        host.0.push(Leaf {
            function: Hex(7),
            index: Hex(0),
            flags: 1,
            eax: Hex(0),
            ebx: Hex(0),
            ecx: Hex(0),
            edx: Hex(1 << 29),
        });
        host.set_bit(0x8000_0008, 0, Eax, 5, true);
        guest.set_bit(1, 0, Ecx, 20, true);
        guest.set_bit(1, 0, Ecx, 3, true);
        let found = differences(&guest, &host);

        assert_eq!(found.len(), 3);
        let given = with(&guest, &found);

        assert_eq!(given.register(1, 0, Ecx), 1 << 21 | 1 << 20 | 1 << 3);
        assert_eq!(given.leaf(7, 0), host.leaf(7, 0));
        assert_eq!(given.register(0x8000_0008, 0, Eax), 1 << 5);
        assert!(differences(&given, &host).is_empty());
    }
}
