// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Who may do what, by a filter or by rules.

use serde::Serialize;

use crate::filter::Access;
use crate::filter::Policy;
use crate::filter::Verdict;
use crate::filter::msrs;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// What a filter decides. The x2APIC MSRs are not in it: they are always allowed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShowReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// What becomes of all accesses that are not below.
    pub default: Verdict,
    /// Neighbouring MSRs with at least one access that is decided otherwise, sorted.
    pub msrs: Vec<Shown>,
}

/// MSRs that are treated alike.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shown {
    /// The first index.
    pub first: Hex<u32>,
    /// The last index.
    pub last: Hex<u32>,
    /// Some of their names.
    pub names: Option<String>,
    /// What becomes of reads.
    pub read: Verdict,
    /// What becomes of writes.
    pub write: Verdict,
}

/// Shows what a policy decides.
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
