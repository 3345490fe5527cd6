// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Follows a function's code along all the ways that it may take, well predicted or not, until no
//! more is to be learnt about any value.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::FlowControl;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use iced_x86::OpKind;

use crate::condition::bound;
use crate::image::Function;
use crate::image::Image;
use crate::operand::Code;
use crate::operand::Machine;
use crate::state::State;
use crate::value::Id;
use crate::value::Place;

/// How often a block's state may grow until it is taken for a loop's.
const PATIENCE: u32 = 4;

/// Functions that never return.
const NO_RETURN: [&str; 4] = [
    "core::panicking::",
    "__stack_chk_fail",
    "__fortify_panic",
    "rust_begin_unwind",
];

/// Where a value came from, by its name: the instruction, or none where ways join, and the values
/// that it is made of.
pub type Origins = HashMap<Id, (Option<u64>, Vec<Id>)>;

/// A function's code, and what holds before each of its blocks.
pub struct Flow<'a> {
    image: &'a Image,
    function: &'a Function,
    code: BTreeMap<u64, Code>,
    leaders: BTreeSet<u64>,
    before: BTreeMap<u64, State>,
    origins: Origins,
}

impl<'a> Flow<'a> {
    /// Follows a function.
    pub fn of(image: &'a Image, function: &'a Function) -> Self {
        let mut flow = Self {
            image,
            function,
            code: decode(image, function),
            leaders: BTreeSet::new(),
            before: BTreeMap::new(),
            origins: Origins::new(),
        };
        flow.find_leaders();
        flow.run();
        flow
    }

    /// Where the values came from.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The instruction at an offset.
    pub fn instruction(&self, at: u64) -> Option<&Instruction> {
        self.code.get(&at).map(|code| &code.instruction)
    }

    /// Calls for each instruction, with what holds before it.
    pub fn for_each(&self, mut each: impl FnMut(&mut Machine<'a>, &Code, &State)) {
        let mut machine = Machine::new(self.image);

        for (&leader, before) in &self.before {
            let mut state = before.clone();

            for code in self.block(leader) {
                each(&mut machine, code, &state);
                machine.step(code, &mut state);
            }
        }
    }

    /// Whether an instruction goes to another function, with arguments.
    pub fn leaves(&self, code: &Code) -> bool {
        match code.instruction.flow_control() {
            FlowControl::Call | FlowControl::IndirectCall => !self.never_returns(code),
            FlowControl::UnconditionalBranch => self.target(code).is_none(),
            FlowControl::IndirectBranch => true,
            _ => false,
        }
    }

    fn contains(&self, at: u64) -> bool {
        (self.function.start..self.function.end).contains(&at)
    }

    fn patched_jump(&self, code: &Code) -> Option<u64> {
        self.image
            .patched_jump(Place {
                section: code.section,
                offset: code.instruction.ip(),
            })
            .filter(|&target| self.contains(target))
    }

    fn find_leaders(&mut self) {
        let mut leaders = BTreeSet::from([self.function.start]);

        for code in self.code.values() {
            let instruction = &code.instruction;
            let target = self.target(code);
            let patched = self.patched_jump(code);

            leaders.extend(target);
            leaders.extend(patched);
            if !matches!(
                instruction.flow_control(),
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall
            ) || patched.is_some()
                || self.never_returns(code)
            {
                leaders.insert(instruction.next_ip());
            }
        }
        leaders.retain(|leader| self.code.contains_key(leader));
        self.leaders = leaders;
    }

    /// Where a branch goes, if it stays in the function.
    fn target(&self, code: &Code) -> Option<u64> {
        let instruction = &code.instruction;
        let branches = matches!(
            instruction.flow_control(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        );
        if !branches || instruction.op0_kind() != OpKind::NearBranch64 {
            return None;
        }
        let offset = instruction.ip() + code.constants.immediate_offset() as u64;
        let target = match self.image.relocation(code.section, offset) {
            Some(to) if to.place.section == code.section => {
                let after = instruction.next_ip() - offset;
                (i128::from(to.place.offset + after) + to.addend) as u64
            }
            Some(_) => return None,
            None => instruction.near_branch_target(),
        };
        self.contains(target).then_some(target)
    }

    fn block(&self, leader: u64) -> impl Iterator<Item = &Code> {
        let end = self
            .leaders
            .range(leader + 1..)
            .next()
            .copied()
            .unwrap_or(self.function.end);

        self.code.range(leader..end).map(|(_, code)| code)
    }

    /// Whether a block does nothing: what aligns the next one is never reached.
    fn is_padding(&self, leader: u64) -> bool {
        self.block(leader).all(|code| {
            matches!(
                code.instruction.mnemonic(),
                Mnemonic::Nop | Mnemonic::Int3 | Mnemonic::Ud2
            )
        })
    }

    fn run(&mut self) {
        let mut machine = Machine::new(self.image);
        let mut visits: HashMap<u64, u32> = HashMap::new();
        let entry = self.function.start;
        let mut work = BTreeSet::from([entry]);

        self.before.insert(entry, State::at_entry(entry));
        loop {
            while let Some(leader) = work.pop_first() {
                for (to, state) in self.run_block(&mut machine, leader) {
                    let visits = visits.entry(to).or_default();

                    if self.merge(to, state, *visits > PATIENCE) {
                        *visits += 1;
                        work.insert(to);
                    }
                }
            }
            // What is entered by an exception only, of which nothing is known.
            let Some(&missed) = self
                .leaders
                .iter()
                .find(|&&leader| !self.before.contains_key(&leader) && !self.is_padding(leader))
            else {
                break;
            };
            self.before.insert(missed, State::at_entry(missed));
            work.insert(missed);
        }
    }

    /// Follows a block, and returns where it goes.
    fn run_block(&mut self, machine: &mut Machine<'a>, leader: u64) -> Vec<(u64, State)> {
        let mut state = self.before[&leader].clone();
        let mut made = Vec::new();
        let mut ways = Vec::new();
        let mut last: Option<&Code> = None;

        for code in self.block(leader) {
            last = Some(code);
            if code.instruction.flow_control() == FlowControl::ConditionalBranch {
                break;
            }
            let (id, inputs) = machine.step(code, &mut state);
            if code.instruction.op_count() > 0 && code.instruction.op0_kind() == OpKind::Register {
                let result = state
                    .register(code.instruction.op0_register().full_register())
                    .id;

                if !inputs.contains(&result) {
                    made.push((result, (Some(code.instruction.ip()), inputs.clone())));
                }
            }
            made.push((id, (Some(code.instruction.ip()), inputs)));
        }
        let Some(code) = last else { return ways };
        let next = code.instruction.next_ip();
        let flows_on = match code.instruction.flow_control() {
            FlowControl::Next | FlowControl::IndirectCall => true,
            FlowControl::Call => !self.never_returns(code),
            FlowControl::ConditionalBranch => {
                let branch = &code.instruction;

                if let Some(target) = self.target(code) {
                    ways.push((target, checked(&state, branch, true)));
                }
                state = checked(&state, branch, false);
                true
            }
            FlowControl::UnconditionalBranch => {
                ways.extend(self.target(code).map(|target| (target, state.clone())));
                false
            }
            _ => false,
        };

        ways.extend(
            self.patched_jump(code)
                .map(|target| (target, state.clone())),
        );
        // A static key may turn a jump into a NOP as well.
        if flows_on || self.patched_jump(code).is_some() {
            ways.push((next, state));
        }
        ways.retain(|(to, _)| self.leaders.contains(to));
        self.origins.extend(made);
        ways
    }

    fn never_returns(&self, code: &Code) -> bool {
        if code.instruction.flow_control() != FlowControl::Call {
            return false;
        }
        let offset = code.instruction.ip() + code.constants.immediate_offset() as u64;

        self.image
            .relocation(code.section, offset)
            .is_some_and(|to| {
                let name = self.image.name_of(to.place);
                NO_RETURN.iter().any(|start| name.starts_with(start))
            })
    }

    /// Adds a way to a block; whether that was news.
    fn merge(&mut self, to: u64, state: State, widen: bool) -> bool {
        let Some(before) = self.before.get(&to) else {
            self.before.insert(to, state);
            return true;
        };
        let origins = &mut self.origins;
        let joined = before.join(&state, to, &mut |id, one, other| {
            let (_, inputs) = origins.entry(id).or_insert_with(|| (None, Vec::new()));

            for input in [one, other] {
                if input != id && !inputs.contains(&input) {
                    inputs.push(input);
                }
            }
        });
        let joined = if widen {
            joined.widen_from(before)
        } else {
            joined
        };
        if joined == *before {
            return false;
        }
        self.before.insert(to, joined);
        true
    }
}

fn checked(state: &State, branch: &Instruction, holds: bool) -> State {
    let mut state = state.clone();

    if let Some((id, high)) = bound(branch, state.flags.as_ref(), holds) {
        state.check(id, high);
    }
    state
}

fn decode(image: &Image, function: &Function) -> BTreeMap<u64, Code> {
    let mut decoder = Decoder::with_ip(
        64,
        image.code(function),
        function.start,
        DecoderOptions::NONE,
    );
    let mut code = BTreeMap::new();

    while decoder.can_decode() {
        let instruction = decoder.decode();

        code.insert(
            instruction.ip(),
            Code {
                constants: decoder.get_constant_offsets(&instruction),
                instruction,
                section: function.section,
            },
        );
    }
    code
}
