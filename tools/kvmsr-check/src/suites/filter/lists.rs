// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Random allow lists with a known minimum number of ranges.
//!
//! A list consists of blocks that are so far apart that no range has MSRs of two blocks. A block
//! has eight places, 0x1000 indices apart: a range can contain three adjacent places, but not the
//! MSRs with the same offset of four. At each place some MSRs are treated alike, one of them at an
//! offset that is the same in the whole block. So the minimum for a block is the minimum for eight
//! MSRs of which a range can contain three.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

use kvm_msr_guest::Access;
use kvm_msr_guest::Random;
use kvmsr::filter::Policy;
use kvmsr::filter::Run;
use kvmsr::filter::Runs;
use kvmsr::filter::Verdict;

use super::minimum::Minimum;
use super::minimum::PLACES;

const STEP: u32 = 0x1000;
/// The distance between the bases of two blocks.
const APART: u32 = 0x1_0000;
/// The exclusive maximum of offsets: the x2APIC MSRs are out of reach.
const OFFSETS: u32 = 0x400;

/// Read and write.
type Allowed = [bool; 2];

/// The accesses to allow.
pub struct List {
    msrs: BTreeMap<u32, Allowed>,
    /// The minimum number of ranges.
    pub least: usize,
}

impl List {
    /// Whether an access must be allowed.
    pub fn allows(&self, access: Access, index: u32) -> bool {
        // KVM always allows the x2APIC MSRs.
        if index >> 8 == 8 {
            return true;
        }
        self.msrs.get(&index).is_some_and(|allowed| match access {
            Access::Read => allowed[0],
            Access::Write => allowed[1],
        })
    }

    /// The MSRs with an allowed access, sorted.
    pub fn indices(&self) -> Vec<u32> {
        self.msrs.keys().copied().collect()
    }

    /// The list as a policy of the library.
    pub fn policy(&self) -> Policy {
        let allowed = |access: usize| -> Runs {
            self.msrs
                .iter()
                .filter(|(_, allowed)| allowed[access])
                .map(|(&index, _)| Run::one(index))
                .collect()
        };

        Policy::new(Verdict::Deny, &allowed(0), &allowed(1))
    }

    /// The list as rules.
    pub fn text(&self) -> String {
        let mut text = "default deny\n".to_owned();

        for (allowed, words) in [
            ([true, true], "allow"),
            ([true, false], "allow read"),
            ([false, true], "allow write"),
        ] {
            let mut of_kind = self
                .msrs
                .iter()
                .filter(|(_, kind)| **kind == allowed)
                .map(|(index, _)| index)
                .peekable();

            if of_kind.peek().is_some() {
                text += words;
                for index in of_kind {
                    // Writing to a string can't fail.
                    let _ = write!(text, " {index:#x}");
                }
                text.push('\n');
            }
        }
        text
    }
}

/// A generator of lists.
pub struct Lists {
    random: Random,
}

static MINIMUM: LazyLock<Minimum> = LazyLock::new(Minimum::new);

impl Lists {
    /// The generator for a seed.
    pub fn new(seed: u64) -> Self {
        Lists {
            random: Random::new(seed),
        }
    }

    /// The next list, with at least one MSR.
    pub fn next(&mut self) -> List {
        loop {
            let mut list = List {
                msrs: BTreeMap::new(),
                least: 0,
            };
            let mut bases = Vec::new();

            for _ in 0..=self.random.below(6) {
                let base = self.base();

                if !bases.contains(&base) {
                    bases.push(base);
                    list.least += self.block(base, &mut list.msrs);
                }
            }
            if list.least > 0 {
                return list;
            }
        }
    }

    /// The base of a block: near KVM's MSRs, near the end of the index space, or anywhere.
    fn base(&mut self) -> u32 {
        const HOMES: [u32; 5] = [0, 0x4000_0000, 0x4b56_0000, 0xc000_0000, 0xc001_0000];

        match self.random.below(3) {
            0 => *self.random.pick(&HOMES),
            1 => u32::MAX / APART * APART,
            _ => self.random.below(u32::MAX / APART) * APART,
        }
    }

    /// Adds a block, and returns the number of ranges that it needs.
    fn block(&mut self, base: u32, msrs: &mut BTreeMap<u32, Allowed>) -> usize {
        let common = self.random.below(OFFSETS);
        let emptiness = self.random.below(4);
        let mut set = 0;

        for place in 0..PLACES {
            if self.random.below(4) < emptiness {
                continue;
            }
            let allowed = *self
                .random
                .pick(&[[true, true], [true, false], [false, true]]);
            let at = base + place * STEP;

            set |= u16::from(allowed[0]) << place | u16::from(allowed[1]) << (PLACES + place);
            msrs.insert(at + common, allowed);
            for _ in 0..self.random.below(4) {
                let first = self.random.below(OFFSETS);
                let count = match self.random.below(4) {
                    0 => 1 + self.random.below(20),
                    _ => 1,
                };

                for offset in first..first + count {
                    msrs.insert(at + offset, allowed);
                }
            }
        }
        MINIMUM.of(set)
    }
}
