// SPDX-License-Identifier: GPL-2.0

//! `KMSR_SET_POLICY` and `KMSR_GET_POLICY`.

use super::Attached;
use crate::{
    bindings,
    engine::policy::{
        Policy,
        RawRule,
        Refused,
        Rule,
        RuleError, //
    },
    kvm::{
        scratch,
        user::{
            Sized,
            UserArray, //
        },
        PolicyMemory,
        VmPolicy, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};

/// The number of rules that are copied at a time.
const CHUNK: usize = 64;

/// Sets the rules. On success, no access is judged by the rules before anymore. On failure, these
/// stay in use.
///
/// # Errors
///
/// `EINVAL` if a flag or a reserved member is not 0, or a rule is wrong, after writing which one
/// and why; `E2BIG` if there are too many rules; `EFAULT` if they can't be read; `ENODEV` if the VM
/// has ended; `ENOMEM`; and those of [`Sized::read`] and [`Sized::write`].
pub(super) fn set(attached: &Attached, argp: UserPtr) -> Result {
    let mut arg = Sized::<bindings::kmsr_policy>::read(argp)?;

    if arg.value.flags & !bindings::KMSR_POLICY_UNTIL_CLOSE != 0 || arg.value.reserved != 0 {
        return Err(EINVAL);
    }
    if arg.value.nr_rules > bindings::KMSR_MAX_RULES {
        return Err(E2BIG);
    }
    let policy = match compile(
        &UserArray::new(arg.value.rules),
        arg.value.nr_rules as usize,
    )? {
        Ok(policy) => policy,
        Err((number, error)) => {
            // It fits: there are at most KMSR_MAX_RULES rules.
            arg.value.error_rule = number as u32;
            arg.value.error = error as u32;
            arg.write()?;
            return Err(EINVAL);
        }
    };
    set_policy(attached, policy, arg.value.flags)
}

/// Reads and compiles rules. No rules are no policy. If a rule is wrong, returns its number and
/// what is wrong.
#[allow(clippy::type_complexity)]
fn compile(
    user: &UserArray<bindings::kmsr_rule>,
    nr: usize,
) -> Result<core::result::Result<Option<Arc<VmPolicy>>, (usize, RuleError)>> {
    if nr == 0 {
        return Ok(Ok(None));
    }
    let mut rules = KVVec::with_capacity(nr, GFP_KERNEL_ACCOUNT)?;
    let mut chunk = KVec::from_elem(bindings::kmsr_rule::default(), CHUNK, GFP_KERNEL)?;

    while rules.len() < nr {
        let chunk_len = (nr - rules.len()).min(CHUNK);
        let chunk = chunk.get_mut(..chunk_len).ok_or(EINVAL)?;

        user.read(rules.len(), chunk)?;
        for rule in &*chunk {
            match Rule::new(&raw_rule(rule)) {
                Ok(rule) => rules.push(rule, GFP_KERNEL_ACCOUNT)?,
                Err(error) => return Ok(Err((rules.len(), error))),
            }
        }
    }
    match Policy::compile(PolicyMemory::new(rules)?, &mut *scratch()?) {
        Ok(policy) => Ok(Ok(Some(Arc::new(policy, GFP_KERNEL_ACCOUNT)?))),
        Err(Refused::Overlap(number)) => Ok(Err((number, RuleError::Overlap))),
        Err(Refused::TooMany) => Err(E2BIG),
    }
}

fn raw_rule(rule: &bindings::kmsr_rule) -> RawRule {
    RawRule {
        first: rule.first,
        last: rule.last,
        access: rule.access,
        when: rule.when,
        action: rule.action,
        reserved: u32::from(rule.reserved) | rule.reserved2,
        value: rule.value,
    }
}

fn user_rule(rule: &Rule) -> bindings::kmsr_rule {
    let raw = rule.raw();

    bindings::kmsr_rule {
        first: raw.first,
        last: raw.last,
        access: raw.access,
        when: raw.when,
        action: raw.action,
        value: raw.value,
        ..Default::default()
    }
}

/// Reads the rules, sorted by `when` and first index.
///
/// # Errors
///
/// `EINVAL` if a flag or a reserved member is not 0; `E2BIG` if the rules do not fit, after writing
/// their number; `EFAULT` if they can't be written; `ENODEV` if the VM has ended; `ENOMEM`; and
/// those of [`Sized::read`] and [`Sized::write`].
pub(super) fn get(attached: &Attached, argp: UserPtr) -> Result {
    let mut arg = Sized::<bindings::kmsr_policy>::read(argp)?;

    if arg.value.flags != 0 || arg.value.reserved != 0 {
        return Err(EINVAL);
    }
    let _vm = attached.vm()?;
    let room = arg.value.nr_rules as usize;
    let (policy, flags) = {
        let claims = attached.state.claims.lock();

        (claims.policy.clone(), claims.policy_flags)
    };
    let nr = policy.as_ref().map_or(0, |policy| policy.len());

    arg.value.flags = flags;
    // It fits: there are at most KMSR_MAX_RULES rules.
    arg.value.nr_rules = nr as u32;
    arg.write()?;
    if room < nr {
        return Err(E2BIG);
    }
    let mut rules = KVVec::with_capacity(nr, GFP_KERNEL)?;

    for rule in policy.iter().flat_map(|policy| policy.rules()) {
        rules.push(user_rule(rule), GFP_KERNEL)?;
    }
    UserArray::new(arg.value.rules).write(&rules)
}

/// Gives up the right of a file that is being closed, and clears its policy if user space asked for
/// that.
pub(super) fn close(attached: &Attached) {
    if attached.rights & u64::from(bindings::KMSR_RIGHT_POLICY) == 0 {
        return;
    }
    if attached.state.claims.lock().policy_flags & bindings::KMSR_POLICY_UNTIL_CLOSE != 0 {
        // If the VM has ended, its overlay is gone. If there is no memory for the new overlay, the
        // policy stays, and KMSR_GET_POLICY shows it.
        let _ = set_policy(attached, None, 0);
    }
    attached.state.claims.lock().policy_file = None;
}

/// Replaces the policy.
///
/// # Errors
///
/// `ENODEV` if the VM has ended, `ENOMEM`.
fn set_policy(attached: &Attached, policy: Option<Arc<VmPolicy>>, flags: u32) -> Result {
    let vm = attached.vm()?;

    attached.state.change_claims(&vm, |claims| {
        claims.policy = policy;
        claims.policy_flags = flags;
        Ok(())
    })
}
