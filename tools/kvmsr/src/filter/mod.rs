// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSR filters (`KVM_X86_SET_MSR_FILTER`): compiles rules to the minimum number of ranges, and
//! shows what ranges do.
//!
//! ```
//! use kvmsr::filter;
//!
//! let rules = filter::Rules::from_text("default deny\nallow 0x10\nallow read 0x1b 0x8b")?;
//! let filter = filter::compile(&rules.policy()?)?;
//!
//! assert_eq!(filter.ranges.len(), 2);
//! assert!(filter.decision(filter::Access::Read, 0x8b).allowed);
//! assert!(!filter.decision(filter::Access::Write, 0x8b).allowed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Rules`] are for people, [`Policy`] is their meaning, [`Filter`] is for KVM. A [`Source`] is a
//! file with rules or a filter.
//!
//! The reference is section `KVM_X86_SET_MSR_FILTER` of Linux's `Documentation/virt/kvm/api.rst`,
//! and where it leaves something open, the code of Linux 7.3.

mod accesses;
mod c;
mod compile;
pub(crate) mod file;
mod layout;
mod lint;
mod linux;
mod minimum;
pub(crate) mod msrs;
mod policy;
mod proof;
mod ranges;
mod rules;
mod runs;
mod rust;
mod shorten;
mod show;
pub(crate) mod text;

pub use accesses::Accesses;
pub use accesses::By;
pub use accesses::TestReport;
pub use accesses::Tested;
pub use accesses::Wanted;
pub use accesses::parse_accesses;
pub use c::c_source;
pub use compile::Cluster;
pub use compile::Refused;
pub use compile::compile;
pub use compile::compile_rules;
pub use file::FilterFile;
pub use file::RulesFile;
pub use file::Source;
pub use lint::Finding;
pub use lint::LintReport;
pub use lint::Severity;
pub use lint::lint;
pub use linux::Guest;
pub use minimum::Window;
pub use minimum::windows;
pub use policy::Policy;
pub use policy::Segment;
pub use proof::Proof;
pub use proof::prove;
pub use ranges::Bitmap;
pub use ranges::Decider;
pub use ranges::Decision;
pub use ranges::Filter;
pub use ranges::Flags;
pub use ranges::Range;
pub use rules::Place;
pub use rules::Rule;
pub use rules::Rules;
pub use runs::Run;
pub use runs::Runs;
pub use rust::rust_source;
pub use show::ShowReport;
pub use show::Shown;
pub use show::show;

use serde::Deserialize;
use serde::Serialize;

/// The maximum number of ranges in a filter.
pub const MAX_RANGES: usize = kvm_bindings::KVM_MSR_FILTER_MAX_RANGES as usize;

/// The maximum number of MSRs in a range: the number of bits in a bitmap.
pub const MAX_MSRS: u32 = 8 * kvm_bindings::KVM_MSR_FILTER_MAX_BITMAP_SIZE;

/// The x2APIC MSRs, which KVM never filters.
pub const X2APIC: Run = Run {
    first: 0x800,
    last: 0x8ff,
};

/// The index that no range can contain: KVM computes the exclusive end of a range in 32 bits,
/// where it would wrap around to 0.
pub const UNREACHABLE: u32 = u32::MAX;

/// The two kinds of access.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// RDMSR.
    Read,
    /// WRMSR.
    Write,
}

impl Access {
    /// Both.
    pub const ALL: [Access; 2] = [Access::Read, Access::Write];
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Access::Read => "read",
            Access::Write => "write",
        })
    }
}

/// The decision for an access.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// KVM handles it, and may refuse it for another reason.
    Allow,
    /// It injects #GP, or exits to user space (`KVM_MSR_EXIT_REASON_FILTER`).
    Deny,
}

impl Verdict {
    /// The other one.
    pub fn opposite(self) -> Self {
        match self {
            Verdict::Allow => Verdict::Deny,
            Verdict::Deny => Verdict::Allow,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        })
    }
}
