// SPDX-License-Identifier: GPL-2.0

//! Guest accesses under a policy, if there is one.
//!
//! The VMM's filter has allowed the access already. Then the following decide, and the first one
//! that does ends the access:
//!
//! 1. the policy's rules for [`When::Always`],
//! 2. KVM, unless it does not have the MSR,
//! 3. the policy's rules for [`When::Unsupported`],
//! 4. [`tolerate`].
//!
//! `Documentation/msr-policy.rst` describes the rules.

use super::{
    read_declared,
    tolerate,
    write_declared,
    Access,
    Cpu,
    Initiator,
    Register,
    Result, //
};
use crate::engine::{
    exit::{
        Denial,
        FILTERED,
        FORBIDDEN,
        UNSUPPORTED, //
    },
    policy::{
        Action,
        Policy,
        Storage,
        When, //
    },
    stats::Event,
};

/// Reads an MSR for the guest, given its declaration. Calls `note` if KVM does not have the MSR, and
/// if a rule denies the read.
///
/// # Errors
///
/// Those of [`super::read_register`], which has the same result if no rule covers the access, and
/// [`FORBIDDEN`] or [`FILTERED`] if a rule denies it.
pub(crate) fn read_judged<C: Cpu, S: Storage>(
    cpu: &C,
    policy: Option<&Policy<S>>,
    register: &Register,
    index: u32,
    note: impl Fn(Event),
) -> Result<u64> {
    let action = policy.and_then(|policy| policy.action(When::Always, Access::Read, index));

    if let Some(action) = action {
        return read_by_rule(action, FILTERED, note);
    }
    match read_declared(cpu, register, index, Initiator::Guest) {
        Err(UNSUPPORTED) => read_unsupported(cpu, policy, register, index, note),
        read => read,
    }
}

/// Decides a read of an MSR that KVM does not have, from the third step on.
pub(crate) fn read_unsupported<C: Cpu, S: Storage>(
    cpu: &C,
    policy: Option<&Policy<S>>,
    register: &Register,
    index: u32,
    note: impl Fn(Event),
) -> Result<u64> {
    let action = policy.and_then(|policy| policy.action(When::Unsupported, Access::Read, index));

    note(Event::Unsupported);
    match action {
        Some(action) => read_by_rule(action, UNSUPPORTED, note),
        None => tolerate(cpu, register, index, 0, Initiator::Guest, Access::Read).map(|()| 0),
    }
}

/// Writes an MSR for the guest, given its declaration. Calls `note` if KVM does not have the MSR,
/// and if a rule denies the write.
///
/// # Errors
///
/// Those of [`super::write_register`], which has the same result if no rule covers the access, and
/// [`FORBIDDEN`] or [`FILTERED`] if a rule denies it.
pub(crate) fn write_judged<C: Cpu, S: Storage>(
    cpu: &C,
    policy: Option<&Policy<S>>,
    register: &Register,
    index: u32,
    data: u64,
    note: impl Fn(Event),
) -> Result {
    let action = policy.and_then(|policy| policy.action(When::Always, Access::Write, index));
    let written = match action {
        None | Some(Action::Allow) => write_declared(cpu, register, index, data, Initiator::Guest),
        Some(Action::Mask(mask)) => {
            write_masked(cpu, register, index, |old| Ok(old & !mask | data & mask))
        }
        Some(Action::Match(mask)) => write_masked(cpu, register, index, |old| {
            if (old ^ data) & !mask != 0 {
                note(Event::Denied);
                return Err(FORBIDDEN);
            }
            Ok(data)
        }),
        Some(action) => return write_by_rule(action, FILTERED, note),
    };

    match written {
        Err(UNSUPPORTED) => write_unsupported(cpu, policy, register, index, data, note),
        written => written,
    }
}

/// Decides a write to an MSR that KVM does not have, from the third step on.
pub(crate) fn write_unsupported<C: Cpu, S: Storage>(
    cpu: &C,
    policy: Option<&Policy<S>>,
    register: &Register,
    index: u32,
    data: u64,
    note: impl Fn(Event),
) -> Result {
    let action = policy.and_then(|policy| policy.action(When::Unsupported, Access::Write, index));

    note(Event::Unsupported);
    match action {
        Some(action) => write_by_rule(action, UNSUPPORTED, note),
        None => tolerate(cpu, register, index, data, Initiator::Guest, Access::Write),
    }
}

/// Writes a value that depends on the MSR's current one, as the guest would read it without a
/// policy. If KVM denies that read, it denies the write for the same reason.
fn write_masked<C: Cpu>(
    cpu: &C,
    register: &Register,
    index: u32,
    data: impl FnOnce(u64) -> Result<u64>,
) -> Result {
    let old = read_declared(cpu, register, index, Initiator::Guest)?;

    write_declared(cpu, register, index, data(old)?, Initiator::Guest)
}

/// The result of a read that a rule decides. `exit` is the denial for an exit to user space.
fn read_by_rule(action: Action, exit: Denial, note: impl Fn(Event)) -> Result<u64> {
    let denial = match action {
        Action::Ignore => return Ok(0),
        Action::Constant(value) => return Ok(value),
        Action::Exit => exit,
        // `Policy::action()` does not return `Allow`, and the others are not for reads.
        Action::GeneralProtection | Action::Allow | Action::Mask(_) | Action::Match(_) => FORBIDDEN,
    };

    note(Event::Denied);
    Err(denial)
}

/// The result of a write that a rule decides. `exit` is the denial for an exit to user space.
fn write_by_rule(action: Action, exit: Denial, note: impl Fn(Event)) -> Result {
    let denial = match action {
        Action::Ignore | Action::Constant(_) => return Ok(()),
        Action::Exit => exit,
        // `Policy::action()` does not return `Allow`, and the others need a value, so they are only
        // in rules for `When::Always`.
        Action::GeneralProtection | Action::Allow | Action::Mask(_) | Action::Match(_) => FORBIDDEN,
    };

    note(Event::Denied);
    Err(denial)
}
