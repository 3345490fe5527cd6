// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A policy that denies what a filter denies.

use super::Action;
use super::Entry;
use super::Policy;
use super::When;
use crate::filter;
use crate::filter::Access;
use crate::filter::Flags;
use crate::filter::Place;
use crate::filter::Runs;
use crate::filter::Verdict;
use crate::filter::X2APIC;

impl Policy {
    /// The policy that does `denied` where a filter denies.
    pub fn from_filter(filter: &filter::Policy, denied: Action) -> Self {
        let of = |access| {
            let exceptions = filter.exceptions(access);

            match filter.default() {
                Verdict::Allow => exceptions.clone(),
                Verdict::Deny => Runs::all().without(exceptions).without(&Runs::from(X2APIC)),
            }
        };
        let (reads, writes) = (of(Access::Read), of(Access::Write));
        let both = reads.intersection(&writes);
        let parts = [
            (reads.without(&both), Flags::READ),
            (writes.without(&both), Flags::WRITE),
            (both, Flags::BOTH),
        ];
        let entries = parts
            .into_iter()
            .filter(|(msrs, _)| !msrs.is_empty())
            .zip(1..)
            .map(|((msrs, access), number)| Entry {
                place: Place::Rule(number),
                msrs,
                access,
                when: When::Always,
                action: denied,
            });

        Policy {
            entries: entries.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::Run;

    proptest! {
        #[test]
        fn a_policy_denies_what_the_filter_denies(
            allow in any::<bool>(),
            runs in prop::collection::vec((0u32..0x900, 0u32..9, any::<bool>()), 0..20),
            indices in prop::collection::vec(0u32..0x900, 20),
        ) {
            let of = |read| -> Runs {
                runs.iter()
                    .filter(|run| run.2 == read)
                    .map(|&(first, more, _)| Run { first, last: first + more })
                    .collect()
            };
            let default = if allow { Verdict::Allow } else { Verdict::Deny };
            let filter = filter::Policy::new(default, &of(true), &of(false));
            let policy = Policy::from_filter(&filter, Action::Gp);

            policy.check().unwrap();
            for index in indices.into_iter().chain([0, u32::MAX, 0x800, 0x8ff]) {
                for access in Access::ALL {
                    let denies = policy.deciding(When::Always, access, index).is_some();

                    prop_assert_eq!(denies, filter.verdict(access, index) == Verdict::Deny);
                }
            }
        }
    }
}
