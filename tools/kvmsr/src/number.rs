// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Numbers for people and in files: hexadecimal or decimal input, hexadecimal output.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

use crate::error::Error;
use crate::error::Result;

/// Parses a number of up to 64 bits: `0x1f`, `0b11111`, `31`; underscores are ignored.
///
/// # Errors
///
/// [`Error::Input`] if it is not a number, or needs more than 64 bits.
pub fn parse_u64(text: &str) -> Result<u64> {
    let digits: String = text.trim().chars().filter(|&c| c != '_').collect();
    let lower = digits.to_ascii_lowercase();
    let (number, radix) = match (lower.strip_prefix("0x"), lower.strip_prefix("0b")) {
        (Some(hex), _) => (hex, 16),
        (_, Some(binary)) => (binary, 2),
        _ => (lower.as_str(), 10),
    };

    // from_str_radix() accepts a sign.
    if number.is_empty() || !number.chars().all(|c| c.is_digit(radix)) {
        return Err(Error::Input(format!(
            "'{text}' is not a number: write it as 0x1f, 0b11111 or 31"
        )));
    }
    u64::from_str_radix(number, radix)
        .map_err(|_| Error::Input(format!("{text} needs more than 64 bits")))
}

/// Parses a number of up to 32 bits, as [`parse_u64`].
///
/// # Errors
///
/// [`Error::Input`] if it is not a number, or needs more than 32 bits.
pub fn parse_u32(text: &str) -> Result<u32> {
    u32::try_from(parse_u64(text)?).map_err(|_| {
        Error::Input(format!(
            "{text} needs more than 32 bits, which is too large for an MSR index"
        ))
    })
}

/// Bits `hi` to `lo` of a register, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bits {
    /// The highest bit, up to 63.
    pub hi: u8,
    /// The lowest bit.
    pub lo: u8,
}

impl Bits {
    /// The mask of these bits.
    pub fn mask(self) -> u64 {
        (u64::MAX >> (63 - (self.hi - self.lo))) << self.lo
    }

    /// The value of these bits in `value`, shifted down.
    pub fn of(self, value: u64) -> u64 {
        (value & self.mask()) >> self.lo
    }

    /// `value` with these bits replaced by those of `bits`; none if `bits` is too large.
    pub fn put(self, value: u64, bits: u64) -> Option<u64> {
        let shifted = bits << self.lo;

        (shifted >> self.lo == bits && shifted & !self.mask() == 0)
            .then_some(value & !self.mask() | shifted)
    }
}

impl FromStr for Bits {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (hi, lo) = text.split_once(':').unwrap_or((text, text));
        let bit = |text: &str| u8::from_str(text).ok().filter(|&bit| bit < 64);

        match (bit(hi), bit(lo)) {
            (Some(hi), Some(lo)) if hi >= lo => Ok(Bits { hi, lo }),
            _ => Err(Error::Input(format!(
                "'{text}' is not a bit range: write the highest and the lowest bit, e.g. 15:8, or one bit"
            ))),
        }
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hi == self.lo {
            write!(f, "{}", self.hi)
        } else {
            write!(f, "{}:{}", self.hi, self.lo)
        }
    }
}

/// The bits of a mask as ranges, the highest first: `63:32, 5, 1:0`; `none` if there is none.
pub fn bit_ranges(mask: u64) -> String {
    let mut ranges = Vec::new();
    let mut rest = mask;

    while let Some(hi) = rest.checked_ilog2() {
        // The number of set bits from `hi` downwards.
        let run = (rest << (63 - hi)).leading_ones();
        let lo = hi + 1 - run;

        ranges.push(if hi == lo {
            format!("{hi}")
        } else {
            format!("{hi}:{lo}")
        });
        rest &= !(u64::MAX << lo);
    }
    if ranges.is_empty() {
        "none".to_owned()
    } else {
        ranges.join(", ")
    }
}

/// A number that JSON files have as a string, `"0x1f"`, so that no reader rounds it. A JSON number
/// is accepted, too.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Hex<T>(pub T);

impl<T: fmt::LowerHex> fmt::Display for Hex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl<T: fmt::LowerHex> Serialize for Hex<T> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Hex<T> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);

        impl<T: TryFrom<u64>> serde::de::Visitor<'_> for Visitor<T> {
            type Value = Hex<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, e.g. \"0x1f\"")
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
                T::try_from(value).map(Hex).map_err(|_| {
                    E::custom(format!(
                        "{value:#x} needs more than {} bits",
                        8 * size_of::<T>()
                    ))
                })
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                self.visit_u64(parse_u64(text).map_err(E::custom)?)
            }
        }
        from.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

#[cfg(feature = "schema")]
impl<T> schemars::JsonSchema for Hex<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Hex".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^0x[0-9a-f]{1,16}$",
            "description": "a number, hexadecimal",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_hexadecimal_binary_or_decimal() {
        assert_eq!(parse_u64("0x1F").unwrap(), 31);
        assert_eq!(parse_u64("0b1_1111").unwrap(), 31);
        assert_eq!(parse_u64(" 31 ").unwrap(), 31);
        assert_eq!(parse_u64("0xffff_ffff_ffff_ffff").unwrap(), u64::MAX);
        for bad in [
            "",
            "0x",
            "x",
            "-1",
            "+1",
            "0x1_0000_0000_0000_0000",
            "1.5",
            "0b2",
            "1f",
        ] {
            assert!(parse_u64(bad).is_err(), "{bad}");
        }
        assert!(parse_u32("0x100000000").is_err());
    }

    #[test]
    fn masks_are_ranges() {
        assert_eq!(bit_ranges(0), "none");
        assert_eq!(bit_ranges(u64::MAX), "63:0");
        assert_eq!(bit_ranges(1 << 63 | 1), "63, 0");
        assert_eq!(bit_ranges(0xffff_ffff_0000_0023), "63:32, 5, 1:0");
    }

    #[test]
    fn bits_are_cut_and_put() {
        let bits: Bits = "15:8".parse().unwrap();

        assert_eq!(bits.of(0x1234), 0x12);
        assert_eq!(bits.put(0x1234, 0xff), Some(0xff34));
        assert_eq!(bits.put(0, 0x100), None);
        let all: Bits = "63:0".parse().unwrap();
        assert_eq!(all.mask(), u64::MAX);
        assert_eq!(all.put(1, u64::MAX), Some(u64::MAX));
        for bad in ["", "64", "0:1", "a:b", "1:", "-1:0"] {
            assert!(bad.parse::<Bits>().is_err(), "{bad}");
        }
    }
}
