// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the registers and the stack hold at one point of a function.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use iced_x86::Register;

use crate::range::Range;
use crate::range::max_of;
use crate::value::Id;
use crate::value::Kind;
use crate::value::Value;
use crate::value::mix;

/// The general purpose registers.
pub const REGISTERS: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// Those whose values a function that is called may change.
const CALLER_SAVED: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];
const RSP: usize = 4;

/// The operands of the compare that made the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The left operand.
    pub left: Value,
    /// The right operand.
    pub right: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    bytes: usize,
    value: Value,
    /// It was stored from a register, as what the compiler spills is. Objects begin their life
    /// with constants.
    spilled: bool,
}

/// What the registers and the stack hold at one point of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    registers: [Value; 16],
    /// By the distance from where the caller left the stack.
    slots: BTreeMap<i128, Slot>,
    /// The addresses on the stack that others may know: where objects begin, or fields.
    shared: BTreeSet<i128>,
    /// What the flags say, if they stem from a compare.
    pub flags: Option<Compare>,
}

impl State {
    /// As a function finds it, or any other code that is entered from elsewhere.
    pub fn at_entry(address: u64) -> Self {
        let mut registers: [Value; 16] =
            std::array::from_fn(|number| Value::unknown(mix(&[3, address, number as u64]), 8));

        registers[RSP].kind = Kind::Stack(Range::constant(0));
        Self {
            registers,
            slots: BTreeMap::new(),
            shared: BTreeSet::new(),
            flags: None,
        }
    }

    /// The number of a general purpose register, of whatever size.
    pub fn number_of(register: Register) -> Option<usize> {
        let full = register.full_register();
        REGISTERS.iter().position(|&other| other == full)
    }

    /// What a register holds, cut to its size.
    pub fn register(&self, register: Register) -> Value {
        let Some(number) = Self::number_of(register) else {
            return Value::unknown(mix(&[4, register as u64]), 8);
        };
        let value = &self.registers[number];

        if is_high_byte(register) {
            return Value::unknown(mix(&[5, value.id]), 1);
        }
        value.low_bytes(register.size())
    }

    /// Changes a register, and what it is a part of.
    pub fn set_register(&mut self, register: Register, value: Value) {
        let Some(number) = Self::number_of(register) else {
            return;
        };
        let bytes = register.size();

        if bytes >= 4 {
            self.registers[number] = value.low_bytes(bytes);
            return;
        }
        // The other bytes stay.
        let old = &self.registers[number];
        let value = match old.kind {
            Kind::Number(range) if is_high_byte(register) => {
                Value::number(mix(&[6, value.id, old.id]), range.or(&Range::of_bytes(2)))
            }
            Kind::Number(range) if range.low >= 0 && range.high <= max_of(bytes) => {
                value.low_bytes(bytes)
            }
            Kind::Number(range) => Value::number(
                mix(&[6, value.id, old.id]),
                range.or(&Range::of_bytes(bytes)),
            ),
            _ => Value::unknown(mix(&[6, value.id, old.id]), 8),
        };
        self.registers[number] = value;
    }

    /// Changes all registers that a called function may change, and what it may know of the stack.
    pub fn forget_over_call(&mut self, address: u64) {
        for number in CALLER_SAVED {
            self.registers[number] = Value::unknown(mix(&[7, address, number as u64]), 8);
        }
        self.forget_shared();
        self.flags = None;
    }

    /// A write to where nothing is known of: it may be to an object that others know, which ends
    /// nobody knows where. It is not to a spilled register between objects.
    pub fn forget_shared(&mut self) {
        let Some(&first) = self.shared.first() else {
            return;
        };
        self.slots.retain(|at, slot| {
            at + slot.bytes as i128 <= first || slot.spilled && !self.shared.contains(at)
        });
    }

    /// An address on the stack is known from now on.
    pub fn share(&mut self, at: i128) {
        self.shared.insert(at);
    }

    /// What a slot holds.
    pub fn slot(&self, at: i128, bytes: usize, id: Id) -> Value {
        match self.slots.get(&at) {
            Some(slot) if bytes <= slot.bytes => slot.value.low_bytes(bytes),
            _ => Value::unknown(id, bytes),
        }
    }

    /// Changes a slot. `spilled` says that the value was in a register.
    pub fn set_slot(&mut self, at: i128, bytes: usize, value: Value, spilled: bool) {
        self.forget_slots(at, bytes);
        self.slots.insert(
            at,
            Slot {
                bytes,
                value,
                spilled,
            },
        );
    }

    /// Forgets what overlaps with a part of the stack.
    pub fn forget_slots(&mut self, at: i128, bytes: usize) {
        self.slots
            .retain(|&other, slot| other + slot.bytes as i128 <= at || at + bytes as i128 <= other);
    }

    /// Forgets the whole stack.
    pub fn forget_stack(&mut self) {
        self.slots.clear();
    }

    /// Takes note that a branch only goes here if a value is at most this.
    pub fn check(&mut self, id: Id, high: i128) {
        let slots = self.slots.values_mut().map(|slot| &mut slot.value);

        for value in self.registers.iter_mut().chain(slots) {
            if value.id == id {
                value.check(high);
            }
        }
    }

    /// What holds on either of two ways to a block.
    pub fn join(&self, other: &Self, block: u64, merged: &mut dyn FnMut(Id, Id, Id)) -> Self {
        let mut join = |one: &Value, other: &Value, at: u64| {
            let id = mix(&[8, block, at]);

            if one.id != other.id {
                merged(id, one.id, other.id);
            }
            one.join(other, id)
        };
        let registers = std::array::from_fn(|number| {
            join(
                &self.registers[number],
                &other.registers[number],
                number as u64,
            )
        });
        let slots = self
            .slots
            .iter()
            .filter_map(|(&at, slot)| {
                let twin = other
                    .slots
                    .get(&at)
                    .filter(|twin| twin.bytes == slot.bytes)?;
                let value = join(&slot.value, &twin.value, at as u64);

                Some((
                    at,
                    Slot {
                        bytes: slot.bytes,
                        value,
                        spilled: slot.spilled && twin.spilled,
                    },
                ))
            })
            .collect();

        Self {
            registers,
            slots,
            shared: self.shared.union(&other.shared).copied().collect(),
            flags: if self.flags == other.flags {
                self.flags.clone()
            } else {
                None
            },
        }
    }

    /// The state, which changed from another one in a loop.
    pub fn widen_from(mut self, before: &Self) -> Self {
        for (value, old) in self.registers.iter_mut().zip(&before.registers) {
            *value = value.clone().widen_from(old);
        }
        for (at, slot) in &mut self.slots {
            if let Some(old) = before.slots.get(at) {
                slot.value = slot.value.clone().widen_from(&old.value);
            }
        }
        self
    }
}

fn is_high_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::BH | Register::CH | Register::DH
    )
}
