// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a filter or rules allow and deny.

use serde::Serialize;

use crate::filter::Access;
use crate::filter::Policy;
use crate::filter::Verdict;
use crate::filter::msrs;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// The decisions of a filter. The x2APIC MSRs are left out: they are always allowed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShowReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The decision for all other accesses.
    pub default: Verdict,
    /// Adjacent MSRs with at least one access that differs, sorted.
    pub msrs: Vec<Shown>,
}

/// MSRs with equal decisions.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shown {
    /// The first index.
    pub first: Hex<u32>,
    /// The last index.
    pub last: Hex<u32>,
    /// Some of their names.
    pub names: Option<String>,
    /// The decision for reads.
    pub read: Verdict,
    /// The decision for writes.
    pub write: Verdict,
}

/// Lists a policy's decisions.
pub fn show(policy: &Policy) -> ShowReport {
    let verdict = |exception| {
        if exception {
            policy.default().opposite()
        } else {
            policy.default()
        }
    };
    let shown = policy.segments().into_iter().map(|segment| Shown {
        first: Hex(segment.run.first),
        last: Hex(segment.run.last),
        names: msrs::names(std::iter::once(segment.run)),
        read: verdict(segment.flags.has(Access::Read)),
        write: verdict(segment.flags.has(Access::Write)),
    });

    ShowReport {
        schema: SCHEMA,
        default: policy.default(),
        msrs: shown.collect(),
    }
}
