// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Firecracker's bitmaps: `0b`, then for each bit, starting with the highest, `0`, `1`, or `x` for
//! a bit that does not change. Underscores are ignored. Bits above the first one do not change
//! either.

use serde::Deserialize;
use serde::Serialize;
use serde::de::Error;

/// A bitmap of up to `BITS` bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bitmap<const BITS: u32> {
    /// The values of the given bits.
    pub value: u64,
    /// The mask of given bits.
    pub mask: u64,
}

impl<const BITS: u32> Bitmap<BITS> {
    /// The mask of a bitmap without an `x`.
    pub const ALL: u64 = u64::MAX >> (u64::BITS - BITS);

    fn parse(text: &str) -> Result<Self, String> {
        let mut bitmap = Bitmap { value: 0, mask: 0 };
        let mut bits = 0;

        for digit in text.strip_prefix("0b").unwrap_or(text).chars() {
            let (value, given) = match digit {
                '_' => continue,
                'x' => (0, 0),
                '0' => (0, 1),
                '1' => (1, 1),
                _ => return Err(format!("the bitmap '{text}' has '{digit}' in it: 0, 1, x")),
            };

            bits += 1;
            if bits > BITS {
                return Err(format!("the bitmap '{text}' has more than {BITS} bits"));
            }
            bitmap.value = bitmap.value << 1 | value;
            bitmap.mask = bitmap.mask << 1 | given;
        }
        if bits == 0 {
            return Err(format!("the bitmap '{text}' has no bits"));
        }
        Ok(bitmap)
    }

    fn text(self) -> String {
        let digits =
            (0..BITS)
                .rev()
                .map(|bit| match (self.mask >> bit & 1, self.value >> bit & 1) {
                    (0, _) => 'x',
                    (_, 0) => '0',
                    _ => '1',
                });

        "0b".chars().chain(digits).collect()
    }
}

impl<const BITS: u32> Serialize for Bitmap<BITS> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text())
    }
}

impl<'de, const BITS: u32> Deserialize<'de> for Bitmap<BITS> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ones_give_the_low_bits() {
        let bitmap = Bitmap::<32>::parse("0b1_0x1").unwrap();

        assert_eq!((bitmap.value, bitmap.mask), (0b1001, 0b1101));
        assert_eq!(bitmap.text(), format!("0b{}10x1", "x".repeat(28)));
        assert_eq!(Bitmap::<32>::parse(&bitmap.text()), Ok(bitmap));
        assert_eq!(Bitmap::<32>::parse("10x1"), Ok(bitmap));
    }

    #[test]
    fn all_bits_can_be_given() {
        let text = format!("0b{}", "1".repeat(64));
        let bitmap = Bitmap::<64>::parse(&text).unwrap();

        assert_eq!((bitmap.value, bitmap.mask), (u64::MAX, u64::MAX));
        assert_eq!(bitmap.text(), text);
    }

    #[test]
    fn what_is_no_bitmap() {
        for bad in [
            "",
            "0b",
            "_",
            "0b2",
            "0x1f",
            "0b1é",
            &format!("0b{}", "x".repeat(33)),
        ] {
            assert!(Bitmap::<32>::parse(bad).is_err(), "{bad}");
        }
    }
}
