// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What an instruction works on: registers, constants and memory, and where in memory.

use iced_x86::ConstantOffsets;
use iced_x86::Instruction;
use iced_x86::InstructionInfoFactory;
use iced_x86::MemorySize;
use iced_x86::Mnemonic;
use iced_x86::OpAccess;
use iced_x86::OpKind;
use iced_x86::Register;

use crate::image::Image;
use crate::range::Range;
use crate::state::State;
use crate::value::Id;
use crate::value::Kind;
use crate::value::Place;
use crate::value::Value;
use crate::value::mix;

/// As many elements of a constant table are looked at to know what a load from it may yield.
const MAX_ELEMENTS: i128 = 1 << 16;

/// The registers of a function's arguments.
const ARGUMENTS: [Register; 6] = [
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
];

/// An instruction, and where its relocations go.
pub struct Code {
    /// The instruction, whose address is its offset in the section.
    pub instruction: Instruction,
    /// Where its constants are.
    pub constants: ConstantOffsets,
    /// The section's number.
    pub section: usize,
}

/// An address that an instruction accesses.
pub struct Access {
    /// The address.
    pub address: Kind,
    /// How many bytes.
    pub bytes: usize,
    /// The register that is the index, for people.
    pub index: Option<Register>,
    /// The values that the address is made of.
    pub inputs: Vec<Id>,
}

/// Follows instructions in one object.
pub struct Machine<'a> {
    image: &'a Image,
    /// What tells which registers and memory an instruction uses.
    pub(crate) factory: InstructionInfoFactory,
}

impl<'a> Machine<'a> {
    /// Follows instructions of an object.
    pub fn new(image: &'a Image) -> Self {
        Self {
            image,
            factory: InstructionInfoFactory::new(),
        }
    }

    /// The addresses that an instruction passes to another function, which may access them.
    pub fn passed(&self, state: &State) -> Vec<Access> {
        ARGUMENTS
            .into_iter()
            .map(|register| {
                let value = state.register(register);
                Access {
                    address: value.kind,
                    bytes: 0,
                    index: Some(register),
                    inputs: vec![value.id],
                }
            })
            .collect()
    }

    /// The accesses to memory that an instruction makes, but for those to the top of the stack.
    pub fn accesses(&mut self, code: &Code, state: &State) -> Vec<Access> {
        let instruction = &code.instruction;
        let hints = matches!(
            instruction.mnemonic(),
            Mnemonic::Lea
                | Mnemonic::Nop
                | Mnemonic::Prefetchnta
                | Mnemonic::Prefetcht0
                | Mnemonic::Prefetcht1
                | Mnemonic::Prefetcht2
                | Mnemonic::Prefetchw
        );
        if hints {
            return Vec::new();
        }
        let used = self.factory.info(instruction).used_memory().to_vec();

        used.iter()
            .filter(|memory| memory.base() != Register::RSP || instruction.op_count() != 0)
            .filter(|memory| memory.access() != OpAccess::NoMemAccess)
            .map(|memory| {
                let explicit = memory.base() == instruction.memory_base()
                    && memory.index() == instruction.memory_index();
                let address = if explicit {
                    self.address(code, state)
                } else {
                    // String instructions, whose operands are implied.
                    state.register(memory.base()).kind
                };
                let registers = [memory.base(), memory.index()];
                Access {
                    address,
                    bytes: memory.memory_size().size(),
                    index: registers
                        .into_iter()
                        .rev()
                        .find(|&register| register != Register::None),
                    inputs: registers
                        .into_iter()
                        .filter(|&register| State::number_of(register).is_some())
                        .map(|register| state.register(register))
                        .filter(|value| !matches!(value.kind, Kind::Stack(_)))
                        .map(|value| value.id)
                        .collect(),
                }
            })
            .collect()
    }

    /// The address that the memory operand is at.
    pub(crate) fn address(&self, code: &Code, state: &State) -> Kind {
        let instruction = &code.instruction;
        let offset = code.constants.displacement_offset() as u64;
        let relocation = code
            .constants
            .has_displacement()
            .then(|| {
                self.image
                    .relocation(code.section, instruction.ip() + offset)
            })
            .flatten();
        let base = instruction.memory_base();
        let mut sum = match relocation {
            Some(to) => {
                let after = instruction.len() as u64 - offset;
                let (place, distance) = self.image.target(to, after);

                Kind::Table([place].into(), Range::constant(distance))
            }
            None if base == Register::RIP => Kind::Pointer(Range::constant(0)),
            None => Kind::Number(Range::constant(i128::from(
                instruction.memory_displacement64(),
            ))),
        };
        let add = |sum: Kind, value: &Value| Value { id: 0, kind: sum }.plus(value);

        if State::number_of(base).is_some() {
            sum = add(sum, &state.register(base));
        }
        if State::number_of(instruction.memory_index()).is_some() {
            let index = state.register(instruction.memory_index());
            let scale = i128::from(instruction.memory_index_scale());
            let scaled = if scale == 1 {
                index
            } else {
                Value::number(0, index.as_number(8).times(scale))
            };
            sum = add(sum, &scaled);
        }
        // What the CPU keeps for itself, and each CPU has at the same place.
        if matches!(instruction.segment_prefix(), Register::GS | Register::FS) {
            return Kind::Pointer(Range::constant(0));
        }
        sum
    }

    /// What is at an address.
    fn load(&self, code: &Code, state: &State, bytes: usize, id: Id) -> Value {
        let segment = code.instruction.segment_prefix();

        match self.address(code, state) {
            // The distance of this CPU's variables: nobody chooses it.
            _ if matches!(segment, Register::GS | Register::FS) => Value::number(
                id,
                Range {
                    counts: true,
                    ..Range::of_bytes(bytes)
                },
            ),
            Kind::Stack(at) => match at.as_constant() {
                Some(at) => state.slot(at, bytes, id),
                None => Value::unknown(id, bytes),
            },
            Kind::Table(places, at) => {
                let loaded = places
                    .iter()
                    .map(|&place| self.load_constant(place, &at, bytes))
                    .reduce(|one, other| Some(one?.join(&other?)))
                    .flatten();
                match loaded {
                    Some(range) => Value::number(id, range),
                    None => Value::unknown(id, bytes),
                }
            }
            _ => Value::unknown(id, bytes),
        }
    }

    /// What a load from a constant table yields, at any of the places it may be from.
    fn load_constant(&self, place: Place, at: &Range, bytes: usize) -> Option<Range> {
        let size = i128::from(self.image.size_of(place)?);
        let step = i128::from(at.step.max(1));

        if at.low < 0 || at.high + bytes as i128 > size || (at.high - at.low) / step > MAX_ELEMENTS
        {
            return None;
        }
        let mut offset = at.low;
        let mut range: Option<Range> = None;

        while offset <= at.high {
            let element = Range::constant(self.image.constant(place, offset, bytes)?);
            range = Some(range.map_or(element, |range| range.join(&element)));
            offset += step;
        }
        // Which of the elements it is, is up to who chose the index.
        range.map(|range| Range {
            counts: range.step == 0 || at.counts,
            ..range
        })
    }

    /// The value of an operand.
    pub(crate) fn operand(&self, code: &Code, state: &State, number: u32) -> Value {
        let instruction = &code.instruction;
        let id = mix(&[9, instruction.ip(), number.into()]);
        let bytes = operand_size(instruction, number);

        match instruction.op_kind(number) {
            OpKind::Register => state.register(instruction.op_register(number)),
            OpKind::Memory => self.load(code, state, bytes, id),
            _ => {
                let offset = instruction.ip() + code.constants.immediate_offset() as u64;
                let relocation = self.image.relocation(code.section, offset);

                match relocation {
                    Some(to) if code.constants.has_immediate() => {
                        let (place, distance) = self.image.target(to, 0);
                        let name = [place.section as u64, place.offset, distance as u64];

                        Value {
                            id: mix(&name),
                            kind: Kind::Table([place].into(), Range::constant(distance)),
                        }
                    }
                    _ => instruction
                        .try_immediate(number)
                        .map_or(Value::unknown(id, 8), |immediate| {
                            Value::constant(i128::from(immediate)).low_bytes(bytes)
                        }),
                }
            }
        }
    }
}

/// The size of an operand in bytes.
pub fn operand_size(instruction: &Instruction, number: u32) -> usize {
    match instruction.op_kind(number) {
        OpKind::Register => instruction.op_register(number).size(),
        OpKind::Memory if instruction.memory_size() != MemorySize::Unknown => {
            instruction.memory_size().size()
        }
        OpKind::Immediate8 | OpKind::Immediate8to16 if number > 0 => operand_size(instruction, 0),
        OpKind::Immediate8to32 | OpKind::Immediate8to64 | OpKind::Immediate32to64 if number > 0 => {
            operand_size(instruction, 0)
        }
        OpKind::Immediate16 => 2,
        OpKind::Immediate32 => 4,
        _ => 8,
    }
}
