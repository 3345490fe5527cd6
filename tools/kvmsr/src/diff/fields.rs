// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The fields in which two values of an MSR differ.

use serde::Serialize;

use crate::catalogue;
use crate::cpuid::Vendor;
use crate::number::Bits;
use crate::number::Hex;

/// A field of an MSR.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Field {
    /// Its bits, as `15:8`.
    pub bits: String,
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its value in the first: addresses in place, other fields shifted down.
    pub a: Hex<u64>,
    /// Its value in the second.
    pub b: Hex<u64>,
    /// The meaning of the first value, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a_means: Option<String>,
    /// The meaning of the second value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b_means: Option<String>,
}

/// The fields in which they differ, and bits that differ but belong to no field.
pub fn changed(index: u32, vendor: Option<Vendor>, a: u64, b: u64) -> Vec<Field> {
    let mut fields = Vec::new();

    for change in catalogue::changes(index, a, b, vendor) {
        match change.field {
            Some(field) => {
                let means = |value| field.meaning(value).map(str::to_owned);

                fields.push(Field {
                    bits: field.bits.to_string(),
                    name: Some(field.name.to_owned()),
                    a: Hex(change.old),
                    b: Hex(change.new),
                    a_means: means(change.old),
                    b_means: means(change.new),
                });
            }
            None => fields.extend(runs(change.old ^ change.new).map(|bits| Field {
                bits: bits.to_string(),
                name: None,
                a: Hex(bits.of(a)),
                b: Hex(bits.of(b)),
                a_means: None,
                b_means: None,
            })),
        }
    }
    fields
}

/// Adjacent bits as ranges.
fn runs(mut bits: u64) -> impl Iterator<Item = Bits> {
    std::iter::from_fn(move || {
        let lo = (bits != 0).then(|| bits.trailing_zeros())?;
        let length = (!(bits >> lo)).trailing_zeros();
        let run = Bits {
            hi: (lo + length - 1) as u8,
            lo: lo as u8,
        };

        bits &= !run.mask();
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_make_runs() {
        let runs = |bits| runs(bits).map(|bits| bits.to_string()).collect::<Vec<_>>();

        assert_eq!(runs(0), [""; 0]);
        assert_eq!(runs(u64::MAX), ["63:0"]);
        assert_eq!(runs(0x8000_0000_0000_0f01), ["0", "11:8", "63"]);
    }
}
