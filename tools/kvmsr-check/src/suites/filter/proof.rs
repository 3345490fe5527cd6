// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests a filter's decisions with a plain guest.

use std::collections::BTreeSet;

use anyhow::Context;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::KVM_MSR_EXIT_REASON_INVAL;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Access;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Random;
use kvmsr::filter::Filter;

use super::lists::List;

/// Number of a list's MSRs that are tried, in addition to the ends of the ranges.
const ANYWHERE: usize = 8;
/// KVM's fastpath handles its writes without checking the filter.
const TSC_DEADLINE: u32 = 0x6e0;

/// A guest whose failed accesses all exit to user space with the reason.
pub fn guest() -> anyhow::Result<Guest> {
    let guest = Guest::new(&Kvm::new().context("open KVM")?, Options::new(Engine::Any))?;

    guest.deflect(
        KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL,
    )?;
    Ok(guest)
}

/// Sets a filter, makes accesses at the ends of ranges and elsewhere, and compares them with the
/// list. Returns the number of accesses.
pub fn prove(
    guest: &mut Guest,
    filter: &Filter,
    list: &List,
    random: &mut Random,
) -> anyhow::Result<usize> {
    let mut indices = BTreeSet::new();
    let listed = list.indices();
    let mut accesses = 0;

    filter.set(guest.vm())?;
    for range in &filter.ranges {
        let end = range.base.0 + range.nmsrs;

        indices.extend([range.base.0.wrapping_sub(1), range.base.0, end - 1, end]);
    }
    for _ in 0..ANYWHERE {
        let index = *random.pick(&listed);

        indices.extend([index, index + 1]);
    }
    for index in indices {
        for access in [Access::Read, Access::Write] {
            if access == Access::Write && index == TSC_DEADLINE {
                continue;
            }
            let outcome = guest.access(access, false, index, 0)?;

            ensure!(
                is_allowed(&outcome)? == list.allows(access, index),
                "{access} {index:#x} gave {outcome}; must be allowed: {}",
                list.allows(access, index)
            );
            accesses += 1;
        }
    }
    Ok(accesses)
}

/// Whether the filter allowed an access.
pub fn is_allowed(outcome: &Outcome) -> anyhow::Result<bool> {
    match outcome {
        Outcome::UserSpace(exit) => Ok(exit.reason != KVM_MSR_EXIT_REASON_FILTER),
        Outcome::Value(_) | Outcome::Done => Ok(true),
        outcome if outcome.is_gp() => Ok(true),
        outcome => bail!("the guest ended unexpectedly: {outcome}"),
    }
}
