// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Changes of a CPUID, as in templates and profiles of VMMs.

use serde::Deserialize;
use serde::Serialize;

use super::Cpuid;
use super::Leaf;
use super::Register;
use crate::number::Hex;

/// A change to one register.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Modifier {
    /// EAX of the instruction.
    pub function: Hex<u32>,
    /// ECX of the instruction.
    pub index: Hex<u32>,
    /// The last ECX, if the change is for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_index: Option<Hex<u32>>,
    /// `KVM_CPUID_FLAG_*`
    #[serde(default)]
    pub flags: u32,
    /// Which register.
    pub register: Register,
    /// The values of the bits in `mask`.
    pub value: Hex<u32>,
    /// The bits that are given. The others do not change.
    pub mask: Hex<u32>,
}

/// Changes of a CPUID.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Modifiers {
    /// Whether registers without a change become 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub zero_rest: bool,
    /// The changes. If several are for a register, the first one applies.
    #[serde(default)]
    pub registers: Vec<Modifier>,
}

impl Modifier {
    /// Whether the change is for this register.
    pub fn is_for(&self, leaf: &Leaf, register: Register) -> bool {
        let last = self.last_index.unwrap_or(self.index);

        self.function == leaf.function
            && (self.index..=last).contains(&leaf.index)
            && self.register == register
    }

    /// Applies the change to a value.
    pub fn apply(&self, value: u32) -> u32 {
        value & !self.mask.0 | self.value.0 & self.mask.0
    }
}

impl Modifiers {
    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        !self.zero_rest && self.registers.is_empty()
    }

    /// The change that applies to a register.
    pub fn of(&self, leaf: &Leaf, register: Register) -> Option<&Modifier> {
        self.registers
            .iter()
            .find(|modifier| modifier.is_for(leaf, register))
    }
}

impl Cpuid {
    /// Applies the changes. Returns those that would set a bit of a missing leaf: a VMM would
    /// refuse them.
    pub fn apply(&mut self, modifiers: &Modifiers) -> Vec<Modifier> {
        for leaf in &mut self.0 {
            for register in Register::ALL {
                match modifiers.of(leaf, register) {
                    Some(modifier) => leaf.set(register, modifier.apply(leaf.get(register))),
                    None if modifiers.zero_rest => leaf.set(register, 0),
                    None => {}
                }
            }
        }
        modifiers
            .registers
            .iter()
            .filter(|modifier| {
                modifier.value.0 & modifier.mask.0 != 0
                    && !self
                        .0
                        .iter()
                        .any(|leaf| modifier.is_for(leaf, modifier.register))
            })
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32, eax: u32) -> Leaf {
        Leaf {
            function: Hex(function),
            index: Hex(index),
            flags: 0,
            eax: Hex(eax),
            ebx: Hex(0xff),
            ecx: Hex(0),
            edx: Hex(0),
        }
    }

    fn modifier(function: u32, index: u32, value: u32, mask: u32) -> Modifier {
        Modifier {
            function: Hex(function),
            index: Hex(index),
            last_index: None,
            flags: 0,
            register: Register::Eax,
            value: Hex(value),
            mask: Hex(mask),
        }
    }

    #[test]
    fn bits_that_are_not_given_stay() {
        let mut cpuid = Cpuid(vec![leaf(7, 0, 0b1010), leaf(7, 1, 0b1010)]);
        let missing = cpuid.apply(&Modifiers {
            zero_rest: false,
            registers: vec![modifier(7, 0, 0b0001, 0b0011)],
        });

        assert!(missing.is_empty());
        assert_eq!(cpuid.register(7, 0, Register::Eax), 0b1001);
        assert_eq!(cpuid.0[1].eax.0, 0b1010);
        assert_eq!(cpuid.0[0].ebx.0, 0xff);
    }

    #[test]
    fn a_range_of_subleaves_and_the_rest() {
        let mut cpuid = Cpuid(vec![leaf(4, 0, 7), leaf(4, 5, 7), leaf(5, 0, 7)]);
        let mut range = modifier(4, 1, 1, 1);

        range.last_index = Some(Hex(u32::MAX));
        let absent = modifier(9, 0, 1, 1);
        let cleared = modifier(10, 0, 0, 1);
        let missing = cpuid.apply(&Modifiers {
            zero_rest: true,
            registers: vec![range, absent, cleared],
        });

        assert_eq!(missing, [absent]);
        assert_eq!(
            cpuid.0.iter().map(|leaf| leaf.eax.0).collect::<Vec<_>>(),
            [0, 7, 0]
        );
        assert_eq!(cpuid.0[1].ebx.0, 0);
    }
}
