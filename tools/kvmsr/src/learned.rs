// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a guest was learned to access, as a file, and the filter rules that allow just this.

use serde::Deserialize;
use serde::Serialize;

use crate::catalogue;
use crate::cpuid::Vendor;
use crate::device::Learning;
use crate::device::Path;
use crate::filter::Flags;
use crate::filter::Place;
use crate::filter::Rule;
use crate::filter::Rules;
use crate::filter::Run;
use crate::filter::UNREACHABLE;
use crate::filter::Verdict;
use crate::filter::X2APIC;
use crate::number::Hex;
use crate::snapshot::SCHEMA;

/// What `kvmsr learn` writes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LearnedFile {
    /// [`SCHEMA`]
    pub schema: u32,
    /// How long the guest was observed, in seconds.
    pub seconds: f64,
    /// The number of accesses to further MSRs, for which there was no room.
    pub lost: u64,
    /// The MSRs, sorted by index.
    pub learned: Vec<LearnedMsr>,
}

/// What is known of an MSR.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LearnedMsr {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name.
    pub name: Option<String>,
    /// The number of reads.
    pub reads: u64,
    /// The number of writes.
    pub writes: u64,
    /// The bits that writes changed.
    pub changed: Hex<u64>,
    /// The first value that was read or written; none if no access had one.
    pub first: Option<Hex<u64>>,
    /// The last value that was read or written.
    pub last: Option<Hex<u64>>,
    /// How the guest accessed it.
    pub paths: Vec<Path>,
    /// Whether KVM lacked the MSR at some access.
    pub unsupported: bool,
    /// Whether an access was denied.
    pub denied: bool,
}

impl LearnedFile {
    /// A file with what the module learned.
    pub fn new(learning: &Learning, seconds: f64, vendor: Option<Vendor>) -> Self {
        let mut learned: Vec<LearnedMsr> = learning
            .msrs
            .iter()
            .map(|msr| LearnedMsr {
                index: Hex(msr.index),
                name: catalogue::name(msr.index, vendor),
                reads: msr.reads,
                writes: msr.writes,
                changed: Hex(msr.changed),
                first: msr.values.map(|(first, _)| Hex(first)),
                last: msr.values.map(|(_, last)| Hex(last)),
                paths: msr.paths.clone(),
                unsupported: msr.unsupported,
                denied: msr.denied,
            })
            .collect();

        learned.sort_by_key(|msr| msr.index);
        LearnedFile {
            schema: SCHEMA,
            seconds,
            lost: learning.lost,
            learned,
        }
    }

    /// Rules that allow what the guest accessed, and deny everything else.
    ///
    /// They leave out the x2APIC MSRs, which KVM never filters, and the index that no range of a
    /// filter can contain, which is no MSR of any CPU.
    pub fn rules(&self) -> Rules {
        let rule = |(number, msr): (usize, &LearnedMsr)| {
            let index = msr.index.0;
            let flags = match (msr.reads > 0, msr.writes > 0) {
                (true, true) => Flags::BOTH,
                (true, false) => Flags::READ,
                (false, true) => Flags::WRITE,
                (false, false) => return None,
            };

            (!X2APIC.contains(index) && index != UNREACHABLE).then(|| Rule {
                place: Place::Rule(number),
                verdict: Verdict::Allow,
                flags,
                msrs: Run::one(index).into(),
            })
        };

        Rules {
            default: Verdict::Deny,
            rules: (1..).zip(&self.learned).filter_map(rule).collect(),
            notes: self.warnings(),
        }
    }

    /// What people should know before they use the rules.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let denied: Vec<String> = self
            .learned
            .iter()
            .filter(|msr| msr.denied)
            .map(|msr| msr.index.to_string())
            .collect();

        if self.lost > 0 {
            warnings.push(format!(
                "the guest accessed more MSRs than could be learned ({} accesses), and the rules \
                 deny those",
                self.lost
            ));
        }
        if !denied.is_empty() {
            warnings.push(format!(
                "the VM's filter or policy denied accesses to {}, and the rules allow them: \
                 remove them from the file, unless the guest needs them",
                denied.join(", ")
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Learned;
    use crate::filter;
    use crate::filter::Access;
    use crate::filter::Source;

    fn msr(index: u32, reads: u64, writes: u64) -> Learned {
        Learned {
            index,
            reads,
            writes,
            changed: 0,
            values: Some((0, 1)),
            paths: vec![Path::Exit],
            unsupported: false,
            denied: index == 0x17,
        }
    }

    #[test]
    fn a_filter_allows_what_was_learned() {
        let learning = Learning {
            msrs: vec![
                msr(0xc000_0080, 2, 1),
                msr(0x17, 1, 0),
                msr(0x1a0, 0, 3),
                msr(0x830, 0, 9),
                msr(u32::MAX, 1, 0),
            ],
            lost: 0,
        };
        let file = LearnedFile::new(&learning, 2.0, None);
        let json = serde_json::to_string(&file).unwrap();
        let source = Source::parse(&json).unwrap();
        let filter = filter::compile(&source.policy().unwrap()).unwrap();
        let allows = |access, index| filter.decision(access, index).allowed;

        for index in [0xc000_0080, 0x17, 0x1a0, 0x10, 0xc000_0081, u32::MAX] {
            let learned = learning.msrs.iter().find(|msr| msr.index == index);
            let expected = learned
                .filter(|_| index != u32::MAX)
                .map_or((false, false), |msr| (msr.reads > 0, msr.writes > 0));

            assert_eq!(
                (allows(Access::Read, index), allows(Access::Write, index)),
                expected,
                "{index:#x}"
            );
        }
        assert_eq!(file.learned[0].index, Hex(0x17));
        assert!(file.warnings()[0].contains("denied accesses to 0x17,"));
    }
}
