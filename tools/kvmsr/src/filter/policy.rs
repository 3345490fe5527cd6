// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The decisions of a filter, independent of its ranges.

use crate::filter::Access;
use crate::filter::Flags;
use crate::filter::Run;
use crate::filter::Runs;
use crate::filter::Verdict;
use crate::filter::X2APIC;

/// A default, and the accesses that are decided differently. The x2APIC MSRs are always allowed,
/// and never among these.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    default: Verdict,
    reads: Runs,
    writes: Runs,
}

/// Adjacent MSRs for which the same accesses differ from the default.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    /// The MSRs.
    pub run: Run,
    /// The accesses, at least one.
    pub flags: Flags,
}

impl Policy {
    /// Creates a policy from the default, and the MSRs whose reads and writes are decided
    /// differently. Drops the x2APIC MSRs among them.
    pub fn new(default: Verdict, reads: &Runs, writes: &Runs) -> Self {
        let never_filtered = Runs::from(X2APIC);

        Policy {
            default,
            reads: reads.without(&never_filtered),
            writes: writes.without(&never_filtered),
        }
    }

    /// The decision for all other accesses.
    pub fn default(&self) -> Verdict {
        self.default
    }

    /// The MSRs for which an access differs from the default.
    pub fn exceptions(&self, access: Access) -> &Runs {
        match access {
            Access::Read => &self.reads,
            Access::Write => &self.writes,
        }
    }

    /// The decision for an access.
    pub fn verdict(&self, access: Access, index: u32) -> Verdict {
        if X2APIC.contains(index) {
            Verdict::Allow
        } else if self.exceptions(access).contains(index) {
            self.default.opposite()
        } else {
            self.default
        }
    }

    /// All exceptions, sorted.
    pub fn segments(&self) -> Vec<Segment> {
        let with = |flags| move |run| Segment { run, flags };
        let both = self.reads.intersection(&self.writes);
        let mut segments: Vec<Segment> = both.iter().map(with(Flags::BOTH)).collect();

        segments.extend(self.reads.without(&both).iter().map(with(Flags::READ)));
        segments.extend(self.writes.without(&both).iter().map(with(Flags::WRITE)));
        segments.sort_unstable_by_key(|segment| segment.run);
        segments
    }

    /// The policy that treats reads and writes alike: if either is an exception, both are.
    pub(super) fn alike(&self) -> Self {
        let either = self.reads.union(&self.writes);

        Policy {
            default: self.default,
            reads: either.clone(),
            writes: either,
        }
    }
}
