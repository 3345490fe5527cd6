// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What conditions say of the values that were compared.

use iced_x86::ConditionCode;
use iced_x86::Instruction;
use iced_x86::Mnemonic;

use crate::state::Compare;
use crate::state::State;
use crate::value::Id;
use crate::value::Kind;
use crate::value::Value;

/// CMOV: one or the other. If one is what the condition compared, it is bounded by that: the CPU
/// does not predict conditional moves.
pub fn cmov(instruction: &Instruction, state: &State, operands: &[Value], id: Id) -> Value {
    let taken = |value: &Value, holds: bool| {
        let mut value = value.clone();

        if let (Some((checked, high)), Kind::Number(range)) = (
            bound(instruction, state.flags.as_ref(), holds),
            &mut value.kind,
        ) && checked == value.id
        {
            range.high = range.high.min(high).max(range.low);
            range.checked_high = range.checked_high.min(range.high);
        }
        value
    };
    taken(&operands[0], false).join(&taken(&operands[1], true), id)
}

/// What is at most how much if a condition holds, or does not.
pub fn bound(
    instruction: &Instruction,
    flags: Option<&Compare>,
    holds: bool,
) -> Option<(Id, i128)> {
    let Compare { left, right } = flags?;
    let code = instruction.condition_code();
    let code = if holds { code } else { negated(code) };
    let (small, large, less) = match code {
        ConditionCode::b => (left, right, 1),
        ConditionCode::be | ConditionCode::e => (left, right, 0),
        ConditionCode::a => (right, left, 1),
        ConditionCode::ae => (right, left, 0),
        _ => return None,
    };
    Some((small.id, large.as_number(8).high - less))
}

fn negated(code: ConditionCode) -> ConditionCode {
    match code {
        ConditionCode::b => ConditionCode::ae,
        ConditionCode::ae => ConditionCode::b,
        ConditionCode::be => ConditionCode::a,
        ConditionCode::a => ConditionCode::be,
        ConditionCode::ne => ConditionCode::e,
        _ => ConditionCode::None,
    }
}

/// Whether the instruction makes a 0 or a 1 from a condition.
pub fn is_setcc(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Seta
            | M::Setae
            | M::Setb
            | M::Setbe
            | M::Sete
            | M::Setg
            | M::Setge
            | M::Setl
            | M::Setle
            | M::Setne
            | M::Setno
            | M::Setnp
            | M::Setns
            | M::Seto
            | M::Setp
            | M::Sets
    )
}

/// Whether the instruction moves on a condition.
pub fn is_cmov(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Cmova
            | M::Cmovae
            | M::Cmovb
            | M::Cmovbe
            | M::Cmove
            | M::Cmovg
            | M::Cmovge
            | M::Cmovl
            | M::Cmovle
            | M::Cmovne
            | M::Cmovno
            | M::Cmovnp
            | M::Cmovns
            | M::Cmovo
            | M::Cmovp
            | M::Cmovs
    )
}
