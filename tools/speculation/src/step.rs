// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What one instruction does to the registers and the stack.

use iced_x86::Mnemonic;
use iced_x86::OpAccess;
use iced_x86::OpKind;
use iced_x86::Register;

use crate::condition::cmov;
use crate::condition::is_cmov;
use crate::condition::is_setcc;
use crate::operand::Code;
use crate::operand::Machine;
use crate::operand::operand_size;
use crate::range::Range;
use crate::range::max_of;
use crate::state::Compare;
use crate::state::State;
use crate::value::Id;
use crate::value::Kind;
use crate::value::Value;
use crate::value::mix;

impl Machine<'_> {
    /// Does what the instruction does. Returns the name of what it made, and of what it used.
    pub fn step(&mut self, code: &Code, state: &mut State) -> (Id, Vec<Id>) {
        let instruction = &code.instruction;
        let id = mix(&[11, instruction.ip()]);
        let operands: Vec<Value> = (0..instruction.op_count())
            .map(|number| self.operand(code, state, number))
            .collect();
        let memory: Vec<Id> = self
            .accesses(code, state)
            .into_iter()
            .flat_map(|access| access.inputs)
            .collect();
        let inputs = operands
            .iter()
            .map(|value| value.id)
            .chain(memory)
            .collect();
        let compare = self.compare(code, &operands);

        match self.result(code, state, &operands, id) {
            Some(value) => {
                let flags = state.flags.take();

                self.write(code, state, value);
                // CMOV and SETcc read the flags, and MOV and LEA don't write them.
                state.flags = flags.filter(|_| instruction.rflags_modified() == 0);
            }
            None => self.write_unknown(code, state, id),
        }
        if let Some(compare) = compare {
            state.flags = Some(compare);
        } else if instruction.rflags_modified() != 0 {
            state.flags = None;
        }
        (id, inputs)
    }

    /// What the flags are made from, if from a compare.
    fn compare(&self, code: &Code, operands: &[Value]) -> Option<Compare> {
        match (code.instruction.mnemonic(), operands) {
            (Mnemonic::Cmp | Mnemonic::Sub, [left, right]) => Some(Compare {
                left: left.clone(),
                right: right.clone(),
            }),
            _ => None,
        }
    }

    /// What the first operand becomes, if the instruction changes nothing else but flags. None if
    /// it does, or nothing is known of it.
    fn result(&self, code: &Code, state: &State, operands: &[Value], id: Id) -> Option<Value> {
        let instruction = &code.instruction;
        let bytes = operand_size(instruction, 0);
        let number = |range: Range| Some(Value::number(id, range.cut(bytes)));
        let made = |kind| Some(Value { id, kind }.low_bytes(bytes));
        let numbers: Vec<Range> = operands
            .iter()
            .enumerate()
            .map(|(at, value)| value.as_number(operand_size(instruction, at as u32)))
            .collect();
        let shift = || numbers.get(1).and_then(Range::as_constant);
        let same_register = instruction.op_count() == 2
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && instruction.op0_register() == instruction.op1_register();

        match instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx => Some(operands[1].clone()),
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let from = operand_size(instruction, 1);
                if numbers[1].high <= max_of(from) / 2 {
                    return Some(operands[1].clone());
                }
                Some(Value::number(
                    id,
                    Range {
                        counts: numbers[1].counts,
                        ..Range::of_bytes(bytes)
                    },
                ))
            }
            Mnemonic::Lea => made(self.address(code, state)),
            Mnemonic::Add => made(operands[0].plus(&operands[1])),
            Mnemonic::Sub if same_register => Some(Value::constant(0)),
            Mnemonic::Sub => made(operands[0].minus(&operands[1])),
            Mnemonic::Inc => made(operands[0].plus(&Value::constant(1))),
            Mnemonic::Dec => made(operands[0].minus(&Value::constant(1))),
            Mnemonic::Xor if same_register => Some(Value::constant(0)),
            Mnemonic::Or | Mnemonic::Xor => number(numbers[0].or(&numbers[1])),
            Mnemonic::And => Some(and(operands, &numbers, id, bytes)),
            Mnemonic::Not if matches!(operands[0].kind, Kind::Number(_)) => {
                number(Range::constant(max_of(bytes)).minus(&numbers[0]))
            }
            Mnemonic::Neg => number(Range::constant(0).minus(&numbers[0])),
            Mnemonic::Shr => {
                let by = shift().map_or(0, |by| by as u32 & (8 * bytes as u32 - 1));
                number(Range {
                    low: if shift().is_some() {
                        numbers[0].low >> by
                    } else {
                        0
                    },
                    ..numbers[0].shifted_right(by)
                })
            }
            Mnemonic::Sar if numbers[0].high <= max_of(bytes) / 2 => {
                let by = shift().map_or(0, |by| by as u32 & (8 * bytes as u32 - 1));
                number(Range {
                    low: if shift().is_some() {
                        numbers[0].low >> by
                    } else {
                        0
                    },
                    ..numbers[0].shifted_right(by)
                })
            }
            Mnemonic::Shl => {
                let by = shift()? as u32 & (8 * bytes as u32 - 1);
                number(numbers[0].times(1 << by))
            }
            Mnemonic::Imul if instruction.op_count() == 3 => {
                number(numbers[1].times(numbers[2].as_constant()?))
            }
            Mnemonic::Popcnt | Mnemonic::Tzcnt | Mnemonic::Lzcnt => {
                number(Range::between(0, 8 * bytes as i128))
            }
            Mnemonic::Bsf | Mnemonic::Bsr => number(Range::between(0, 8 * bytes as i128 - 1)),
            Mnemonic::Sbb if same_register => state.flags.as_ref().map(|flags| Value {
                id,
                kind: Kind::Mask {
                    of: flags.left.id,
                    high: flags.right.as_number(8).as_constant().map(|size| size - 1),
                },
            }),
            mnemonic if is_setcc(mnemonic) => number(Range::between(0, 1)),
            mnemonic if is_cmov(mnemonic) => Some(cmov(instruction, state, operands, id)),
            _ => None,
        }
    }

    /// Puts a value where the first operand is.
    fn write(&self, code: &Code, state: &mut State, value: Value) {
        let instruction = &code.instruction;
        let bytes = operand_size(instruction, 0);

        match instruction.op0_kind() {
            OpKind::Register => {
                let register = instruction.op0_register();

                // A frame pointer is no address that others know.
                if let Kind::Stack(at) = &value.kind
                    && !matches!(register, Register::RSP | Register::RBP)
                {
                    state.share(at.low);
                }
                state.set_register(register, value);
            }
            OpKind::Memory => {
                if let Kind::Stack(at) = &value.kind {
                    state.share(at.low);
                }
                match self.address(code, state) {
                    Kind::Stack(at) => match at.as_constant() {
                        Some(at) => {
                            let spilled = instruction.op_count() == 2
                                && instruction.op1_kind() == OpKind::Register;
                            state.set_slot(at, bytes, value, spilled);
                        }
                        None => state.forget_stack(),
                    },
                    Kind::Table(..) => (),
                    _ => state.forget_shared(),
                }
            }
            _ => (),
        }
    }

    /// Forgets whatever an instruction changes of which nothing is known here.
    fn write_unknown(&mut self, code: &Code, state: &mut State, id: Id) {
        let instruction = &code.instruction;
        let stack = |state: &State| match state.register(Register::RSP).kind {
            Kind::Stack(at) => at.as_constant(),
            _ => None,
        };

        match instruction.mnemonic() {
            Mnemonic::Push => {
                let value = self.operand(code, state, 0);
                move_stack(state, -8);
                match stack(state) {
                    Some(at) => state.set_slot(at, 8, value, true),
                    None => state.forget_stack(),
                }
                return;
            }
            Mnemonic::Pop => {
                let value = match stack(state) {
                    Some(at) => state.slot(at, 8, id),
                    None => Value::unknown(id, 8),
                };
                state.set_register(instruction.op0_register(), value);
                move_stack(state, 8);
                return;
            }
            Mnemonic::Leave => {
                let frame = state.register(Register::RBP);
                state.set_register(Register::RSP, frame);
                let value = match stack(state) {
                    Some(at) => state.slot(at, 8, id),
                    None => Value::unknown(id, 8),
                };
                state.set_register(Register::RBP, value);
                move_stack(state, 8);
                return;
            }
            Mnemonic::Call => {
                state.forget_over_call(instruction.ip());
                return;
            }
            _ => (),
        }
        let remainder = self.remainder(code, state, id);
        let info = self.factory.info(instruction);
        let writes = |access| {
            matches!(
                access,
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            )
        };
        let registers: Vec<Register> = info
            .used_registers()
            .iter()
            .filter(|used| writes(used.access()) && used.register() != Register::RSP)
            .map(|used| used.register())
            .collect();
        let stores = info.used_memory().iter().any(|used| writes(used.access()));

        if stores && instruction.op_count() != 0 {
            match self.address(code, state) {
                Kind::Stack(at) if at.as_constant().is_some() => {
                    let bytes = instruction.memory_size().size().max(1);
                    state.forget_slots(at.low, bytes);
                }
                Kind::Stack(_) => state.forget_stack(),
                _ => state.forget_shared(),
            }
        }
        for register in registers {
            let value = Value::unknown(mix(&[12, id, register as u64]), register.size());
            state.set_register(register, value);
        }
        if let Some((register, value)) = remainder {
            state.set_register(register, value);
        }
    }

    /// DIV: the remainder is below the divisor.
    fn remainder(&self, code: &Code, state: &State, id: Id) -> Option<(Register, Value)> {
        let instruction = &code.instruction;

        if instruction.mnemonic() != Mnemonic::Div {
            return None;
        }
        let bytes = operand_size(instruction, 0);
        let divisor = self.operand(code, state, 0).as_number(bytes);
        let register = match bytes {
            4 => Register::EDX,
            8 => Register::RDX,
            _ => return None,
        };
        Some((
            register,
            Value::number(mix(&[13, id]), Range::between(0, divisor.high - 1)),
        ))
    }
}

/// AND, and what it makes of a mask.
fn and(operands: &[Value], numbers: &[Range], id: Id, bytes: usize) -> Value {
    let masked = |mask: &Value, value: &Value, range: &Range| match mask.kind {
        Kind::Mask { of, high } if of == value.id => Some(Value::number(
            id,
            Range {
                // A limit that is no constant is taken to be the right one.
                counts: high.is_none(),
                ..Range::between(0, range.high.min(high.unwrap_or(range.high)).max(0))
            },
        )),
        _ => None,
    };
    if let Some(value) = masked(&operands[0], &operands[1], &numbers[1])
        .or_else(|| masked(&operands[1], &operands[0], &numbers[0]))
    {
        return value;
    }
    // An address that is aligned stays what it is.
    let aligns = numbers[1]
        .as_constant()
        .is_some_and(|mask| mask > max_of(bytes) / 2);

    match &operands[0].kind {
        Kind::Pointer(_) | Kind::Stack(_) | Kind::Table(..) if aligns && bytes == 8 => Value {
            id,
            kind: operands[0].kind.clone(),
        },
        _ => Value::number(id, numbers[0].and(&numbers[1]).cut(bytes)),
    }
}

fn move_stack(state: &mut State, by: i128) {
    let top = state.register(Register::RSP);
    let kind = top.plus(&Value::constant(by));
    let id = mix(&[14, top.id, by as u64]);

    state.set_register(Register::RSP, Value { id, kind });
}
