// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Filters in KVM's form, and KVM's decisions by them.

use std::fmt;

use kvm_bindings::KVM_MSR_FILTER_READ;
use kvm_bindings::KVM_MSR_FILTER_WRITE;
use kvm_ioctls::MsrFilterDefaultAction;
use kvm_ioctls::MsrFilterRange;
use kvm_ioctls::MsrFilterRangeFlags;
use kvm_ioctls::VmFd;
use serde::Deserialize;
use serde::Serialize;

use crate::error::Error;
use crate::error::Result;
use crate::filter::Access;
use crate::filter::MAX_MSRS;
use crate::filter::MAX_RANGES;
use crate::filter::Policy;
use crate::filter::Run;
use crate::filter::Runs;
use crate::filter::Verdict;
use crate::filter::X2APIC;
use crate::number::Hex;

/// `struct kvm_msr_filter`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// The decision for accesses that no range matches.
    pub default: Verdict,
    /// The ranges: the first that matches an access decides.
    pub ranges: Vec<Range>,
}

/// `struct kvm_msr_filter_range`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The accesses that it matches.
    pub flags: Flags,
    /// The first MSR.
    pub base: Hex<u32>,
    /// The number of MSRs.
    pub nmsrs: u32,
    /// A bit for each MSR: 1 allows, 0 denies.
    pub bitmap: Bitmap,
}

/// Kinds of access, as in `flags` of `struct kvm_msr_filter_range`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Flags(pub u32);

impl Flags {
    /// `KVM_MSR_FILTER_READ`
    pub const READ: Flags = Flags(KVM_MSR_FILTER_READ);
    /// `KVM_MSR_FILTER_WRITE`
    pub const WRITE: Flags = Flags(KVM_MSR_FILTER_WRITE);
    /// Both.
    pub const BOTH: Flags = Flags(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE);

    /// Whether a kind of access is among them.
    pub fn has(self, access: Access) -> bool {
        self.0 & Flags::from(access).0 != 0
    }

    /// The kinds of access in the flags.
    pub fn accesses(self) -> impl Iterator<Item = Access> {
        Access::ALL
            .into_iter()
            .filter(move |&access| self.has(access))
    }

    /// Flags that KVM does not know.
    fn unknown(self) -> u32 {
        self.0 & !Flags::BOTH.0
    }
}

impl From<Access> for Flags {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Flags::READ,
            Access::Write => Flags::WRITE,
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Flags(0) => f.pad("none"),
            Flags::READ => f.pad("read"),
            Flags::WRITE => f.pad("write"),
            Flags::BOTH => f.pad("read write"),
            Flags(other) => f.pad(&format!("{other:#x}")),
        }
    }
}

/// As a list of `read` and `write`; as a number if there are other flags.
impl Serialize for Flags {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.unknown() != 0 {
            Hex(self.0).serialize(to)
        } else {
            to.collect_seq(self.accesses())
        }
    }
}

impl<'de> Deserialize<'de> for Flags {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Flags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of \"read\" and \"write\", or a number")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Flags, A::Error> {
                let mut flags = Flags::default();

                while let Some(access) = seq.next_element::<Access>()? {
                    flags.0 |= Flags::from(access).0;
                }
                Ok(flags)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Flags, E> {
                u32::try_from(value)
                    .map(Flags)
                    .map_err(|_| E::custom(format!("flags {value:#x} need more than 32 bits")))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Flags, E> {
                self.visit_u64(crate::number::parse_u64(text).map_err(E::custom)?)
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Flags {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Flags".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "kinds of access; a number if it has bits that KVM does not know",
            "oneOf": [
                { "type": "array", "items": { "enum": ["read", "write"] } },
                { "type": "string", "pattern": "^0x[0-9a-f]{1,8}$" },
                { "type": "integer", "minimum": 0, "maximum": u32::MAX },
            ],
        })
    }
}

/// The bits of a [`Range`]: bit 0 of the first byte is for its first MSR. In files, two
/// hexadecimal digits for each byte, the first byte first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bitmap(pub Vec<u8>);

impl Bitmap {
    /// This number of equal bits, in 64-bit words, which KVM reads.
    pub fn filled(nmsrs: u32, bit: bool) -> Self {
        let mut bitmap = Bitmap(vec![0; words(nmsrs)]);

        if bit && let Some(last) = nmsrs.checked_sub(1) {
            bitmap.set(Run { first: 0, last }, true);
        }
        bitmap
    }

    /// A bit; 0 if there is none.
    pub fn get(&self, bit: u32) -> bool {
        self.0
            .get(bit as usize / 8)
            .is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
    }

    /// Sets bits; ignores bits beyond the end.
    pub fn set(&mut self, bits: Run, value: bool) {
        for bit in bits.first..=bits.last {
            let Some(byte) = self.0.get_mut(bit as usize / 8) else {
                break;
            };
            let mask = 1 << (bit % 8);

            if value {
                *byte |= mask;
            } else {
                *byte &= !mask;
            }
        }
    }

    /// The runs of bits that are 1, among this number of bits.
    pub fn ones(&self, nmsrs: u32) -> Runs {
        let length = u32::try_from(self.0.len().saturating_mul(8)).unwrap_or(u32::MAX);

        (0..nmsrs.min(length))
            .filter(|&bit| self.get(bit))
            .map(Run::one)
            .collect()
    }
}

/// The number of bytes of a bitmap that KVM reads: whole 64-bit words.
pub(super) fn words(nmsrs: u32) -> usize {
    nmsrs.div_ceil(64) as usize * 8
}

impl Serialize for Bitmap {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();

        to.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for Bitmap {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;

        let text = String::deserialize(from)?;
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();

        match digits {
            Some(digits) if digits.len() % 2 == 0 => Ok(Bitmap(
                digits
                    .chunks_exact(2)
                    .map(|two| two.iter().fold(0, |byte, digit| byte << 4 | digit))
                    .collect(),
            )),
            _ => Err(D::Error::custom(
                "a bitmap is two hexadecimal digits for each byte, e.g. \"ff01\", the first byte first",
            )),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Bitmap {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bitmap".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^([0-9a-fA-F]{2})*$",
            "description": "two hexadecimal digits for each byte; bit 0 of the first byte is for \
                            the range's first MSR, and 1 allows",
        })
    }
}

impl Range {
    /// The MSRs of the range, with KVM's 32-bit arithmetic; none if its end wraps around.
    pub fn run(&self) -> Option<Run> {
        let first = self.base.0;
        let last = first.wrapping_add(self.nmsrs).checked_sub(1)?;

        (first <= last && self.nmsrs != 0).then_some(Run { first, last })
    }

    /// The decision for an access; none if the range does not match.
    pub fn verdict(&self, access: Access, index: u32) -> Option<bool> {
        (self.flags.has(access) && self.run()?.contains(index))
            .then(|| self.bitmap.get(index - self.base.0))
    }

    /// The MSRs that it allows.
    pub(super) fn ones(&self) -> Runs {
        // A range that wraps around has no MSRs, so the sum fits into 32 bits.
        let absolute = |run: Run| Run {
            first: self.base.0.saturating_add(run.first),
            last: self.base.0.saturating_add(run.last),
        };

        match self.run() {
            Some(_) => self.bitmap.ones(self.nmsrs).iter().map(absolute).collect(),
            None => Runs::default(),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.run() {
            Some(run) => write!(f, "{} {run}", self.flags),
            None => write!(f, "{} {}, {} MSRs", self.flags, self.base, self.nmsrs),
        }
    }
}

/// How a filter decides an access.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decision {
    /// Whether KVM allows it.
    pub allowed: bool,
    /// What decides it.
    pub by: Decider,
}

/// What decides an access.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decider {
    /// None: x2APIC MSRs are not filtered.
    X2apic,
    /// A range, by its number from 0.
    Range(usize),
    /// The default.
    Default,
}

impl Filter {
    /// How KVM decides an access by this filter.
    pub fn decision(&self, access: Access, index: u32) -> Decision {
        if X2APIC.contains(index) {
            return Decision {
                allowed: true,
                by: Decider::X2apic,
            };
        }
        let matching = |(number, range): (usize, &Range)| {
            range.verdict(access, index).map(|allowed| Decision {
                allowed,
                by: Decider::Range(number),
            })
        };

        self.ranges
            .iter()
            .enumerate()
            .find_map(matching)
            .unwrap_or(Decision {
                allowed: self.default == Verdict::Allow,
                by: Decider::Default,
            })
    }

    /// Whether KVM would accept it. KVM refuses with EINVAL, except for a bitmap that is too
    /// short: KVM would read beyond its end.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with the range and advice.
    pub fn check(&self) -> Result<()> {
        match self.refusals().into_iter().next() {
            None => Ok(()),
            Some((None, why)) => Err(Error::Input(why)),
            Some((Some(number), why)) => Err(Error::Input(format!("range {number}: {why}"))),
        }
    }

    /// All problems for [`Filter::check`], with the number of the range.
    pub(super) fn refusals(&self) -> Vec<(Option<usize>, String)> {
        let mut refusals = Vec::new();

        if self.ranges.len() > MAX_RANGES {
            refusals.push((
                None,
                format!(
                    "a filter has at most {MAX_RANGES} ranges, but this one has {}: write rules \
                     for 'kvmsr filter compile' instead",
                    self.ranges.len()
                ),
            ));
        }
        if self.default == Verdict::Deny && self.ranges.iter().all(|range| range.nmsrs == 0) {
            refusals.push((
                None,
                "KVM refuses a filter that denies by default and has no MSR in any range: add \
                 a range, whose bits may also deny"
                    .to_owned(),
            ));
        }
        for (number, range) in self.ranges.iter().enumerate() {
            if let Some(why) = range.refusal() {
                refusals.push((Some(number), why));
            }
        }
        refusals
    }

    /// The MSRs of a range whose bit differs from the default, without the x2APIC MSRs.
    pub fn unlike_default(&self, range: &Range) -> Runs {
        let ones = range.ones().without(&X2APIC.into());

        match (range.run(), self.default) {
            (Some(run), Verdict::Allow) => Runs::from(run).without(&X2APIC.into()).without(&ones),
            _ => ones,
        }
    }

    /// The policy of the filter.
    pub fn policy(&self) -> Policy {
        let exceptions = |access| {
            let mut allowed = match self.default {
                Verdict::Allow => Runs::all(),
                Verdict::Deny => Runs::default(),
            };

            // The first matching range wins, so it is applied last.
            for range in self.ranges.iter().rev() {
                if let Some(run) = range.run()
                    && range.flags.has(access)
                {
                    allowed = allowed.without(&run.into()).union(&range.ones());
                }
            }
            match self.default {
                Verdict::Allow => Runs::all().without(&allowed),
                Verdict::Deny => allowed,
            }
        };

        Policy::new(
            self.default,
            &exceptions(Access::Read),
            &exceptions(Access::Write),
        )
    }

    /// `KVM_X86_SET_MSR_FILTER`: replaces the VM's filter.
    ///
    /// # Errors
    ///
    /// As [`Filter::check`], or [`Error::Kvm`]; then the VM keeps its filter.
    pub fn set(&self, vm: &VmFd) -> Result<()> {
        self.check()?;
        // KVM reads whole words; kvm-ioctls does not check for them.
        let padded: Vec<Vec<u8>> = self
            .ranges
            .iter()
            .map(|range| {
                let mut bytes = range.bitmap.0.clone();

                bytes.resize(words(range.nmsrs), 0);
                bytes
            })
            .collect();
        let ranges: Vec<MsrFilterRange<'_>> = self
            .ranges
            .iter()
            .zip(&padded)
            .map(|(range, bitmap)| MsrFilterRange {
                flags: MsrFilterRangeFlags::from_bits_retain(range.flags.0),
                base: range.base.0,
                msr_count: range.nmsrs,
                bitmap,
            })
            .collect();
        let default = match self.default {
            Verdict::Allow => MsrFilterDefaultAction::ALLOW,
            Verdict::Deny => MsrFilterDefaultAction::DENY,
        };

        vm.set_msr_filter(default, &ranges)
            .map_err(Error::kvm("KVM_X86_SET_MSR_FILTER"))
    }
}

impl Range {
    /// Why KVM would refuse it, or misread it.
    fn refusal(&self) -> Option<String> {
        if self.nmsrs == 0 {
            // KVM ignores ranges without MSRs.
            return None;
        }
        if self.flags == Flags(0) {
            return Some("KVM refuses flags 0: use read, write, or both".to_owned());
        }
        if self.flags.unknown() != 0 {
            return Some(format!(
                "KVM refuses flags {:#x}: use read (0x1) and write (0x2)",
                self.flags.0
            ));
        }
        if self.nmsrs > MAX_MSRS {
            return Some(format!(
                "KVM refuses a range of {:#x} MSRs: the limit is {MAX_MSRS:#x}; use several ranges",
                self.nmsrs
            ));
        }
        if self.bitmap.0.len() < self.nmsrs.div_ceil(8) as usize {
            return Some(format!(
                "the bitmap has too few bytes, {}, for {} MSRs: KVM would read beyond its end; \
                 make it {} bytes",
                self.bitmap.0.len(),
                self.nmsrs,
                words(self.nmsrs)
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(flags: Flags, base: u32, nmsrs: u32, ones: &[u32]) -> Range {
        let mut bitmap = Bitmap::filled(nmsrs, false);

        for &bit in ones {
            bitmap.set(Run::one(bit), true);
        }
        Range {
            flags,
            base: Hex(base),
            nmsrs,
            bitmap,
        }
    }

    fn deny(ranges: Vec<Range>) -> Filter {
        Filter {
            default: Verdict::Deny,
            ranges,
        }
    }

    #[test]
    fn the_first_range_that_matches_decides() {
        let filter = deny(vec![
            range(Flags::READ, 0x10, 4, &[0]),
            range(Flags::BOTH, 0x10, 4, &[1]),
        ]);

        assert!(filter.decision(Access::Read, 0x10).allowed);
        assert!(!filter.decision(Access::Write, 0x10).allowed);
        assert_eq!(filter.decision(Access::Read, 0x11).by, Decider::Range(0));
        assert_eq!(filter.decision(Access::Write, 0x11).by, Decider::Range(1));
        assert_eq!(filter.decision(Access::Write, 0x14).by, Decider::Default);
        assert_eq!(filter.decision(Access::Write, 0x8ff).by, Decider::X2apic);
    }

    #[test]
    fn a_range_that_reaches_the_end_has_no_msr() {
        assert_eq!(range(Flags::READ, u32::MAX, 1, &[]).run(), None);
        assert_eq!(range(Flags::READ, u32::MAX - 1, 2, &[]).run(), None);
        assert_eq!(range(Flags::READ, 0x10, 0, &[]).run(), None);
        assert_eq!(
            range(Flags::READ, u32::MAX - 1, 1, &[]).run(),
            Some(Run::one(u32::MAX - 1))
        );
    }

    #[test]
    fn what_kvm_refuses_is_refused() {
        let fine = range(Flags::READ, 0, 1, &[]);

        assert!(deny(vec![]).check().is_err());
        assert!(deny(vec![range(Flags::READ, 0, 0, &[])]).check().is_err());
        assert!(deny(vec![fine.clone()]).check().is_ok());
        assert!(deny(vec![fine.clone(); 17]).check().is_err());
        for bad in [
            range(Flags(0), 0, 1, &[]),
            range(Flags(4), 0, 1, &[]),
            range(Flags::READ, 0, MAX_MSRS + 1, &[]),
            Range {
                bitmap: Bitmap(vec![0]),
                ..range(Flags::READ, 0, 9, &[])
            },
        ] {
            assert!(deny(vec![fine.clone(), bad]).check().is_err());
        }
        // KVM ignores a range without MSRs.
        assert!(deny(vec![fine, range(Flags(0), 0, 0, &[])]).check().is_ok());
    }

    #[test]
    fn files_have_flags_as_words_and_bitmaps_as_digits() {
        let range = range(Flags::BOTH, 0x10, 12, &[0, 11]);
        let json = serde_json::to_string(&range).unwrap();

        assert_eq!(
            json,
            r#"{"flags":["read","write"],"base":"0x10","nmsrs":12,"bitmap":"0108000000000000"}"#
        );
        assert_eq!(serde_json::from_str::<Range>(&json).unwrap(), range);
        assert_eq!(serde_json::from_str::<Flags>("4").unwrap(), Flags(4));
        assert_eq!(serde_json::from_str::<Flags>("[]").unwrap(), Flags(0));
        for bad in ["\"0\"", "\"0g\"", "\"é\"", "0", "null"] {
            assert!(serde_json::from_str::<Bitmap>(bad).is_err(), "{bad}");
        }
    }

    /// Ranges that overlap, contain x2APIC MSRs, or reach the last index and beyond.
    fn some_ranges() -> impl Strategy<Value = Vec<Range>> {
        let base = prop_oneof![0u32..40, 0x7f0u32..0x8ff, (u32::MAX - 30)..=u32::MAX];
        let one =
            (1u32..=3, base, 0u32..30, any::<u32>()).prop_map(|(flags, base, nmsrs, bits)| Range {
                flags: Flags(flags),
                base: Hex(base),
                nmsrs,
                bitmap: Bitmap(bits.to_le_bytes().to_vec()),
            });

        proptest::collection::vec(one, 1..6)
    }

    proptest! {
        #[test]
        fn the_policy_is_what_it_decides(ranges in some_ranges(), deny in any::<bool>()) {
            let filter = Filter {
                default: if deny { Verdict::Deny } else { Verdict::Allow },
                ranges,
            };
            let policy = filter.policy();

            for index in (0..80).chain(0x7e0..0x930).chain(u32::MAX - 40..=u32::MAX) {
                for access in Access::ALL {
                    prop_assert_eq!(
                        filter.decision(access, index).allowed,
                        policy.verdict(access, index) == Verdict::Allow,
                        "{} {:#x}", access, index
                    );
                }
            }
        }
    }
}
