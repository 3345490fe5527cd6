// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The fields that two values of an MSR have otherwise.

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
    /// Its value in the first; an address where its bits are, all else shifted down.
    pub a: Hex<u64>,
    /// Its value in the second.
    pub b: Hex<u64>,
    /// What the first value means, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a_means: Option<String>,
    /// What the second value means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b_means: Option<String>,
}

/// The fields in which they differ, and bits that differ and are of no field, lowest first.
pub fn changed(index: u32, vendor: Option<Vendor>, a: u64, b: u64) -> Vec<Field> {
    let known = catalogue::msr(index, vendor).map_or(&[][..], |msr| msr.fields);
    let mut left = a ^ b;
    let mut fields: Vec<(Bits, Field)> = Vec::new();

    for field in known.iter().filter(|field| field.variant.is_none()) {
        let differing = (a ^ b) & field.bits.mask();

        // Of fields that overlap the first counts.
        if differing != 0 && left & differing == differing {
            left &= !differing;
            let of = |value: u64| match field.address {
                true => value & field.bits.mask(),
                false => field.bits.of(value),
            };
            let means = |value: u64| {
                let (_, meaning) = field.values.iter().find(|&&(known, _)| known == value)?;

                Some((*meaning).to_owned())
            };

            fields.push((
                field.bits,
                Field {
                    bits: field.bits.to_string(),
                    name: Some(field.name.to_owned()),
                    a: Hex(of(a)),
                    b: Hex(of(b)),
                    a_means: means(of(a)),
                    b_means: means(of(b)),
                },
            ));
        }
    }
    fields.extend(runs(left).map(|bits| {
        (
            bits,
            Field {
                bits: bits.to_string(),
                name: None,
                a: Hex(bits.of(a)),
                b: Hex(bits.of(b)),
                a_means: None,
                b_means: None,
            },
        )
    }));
    fields.sort_by_key(|(bits, _)| (bits.lo, bits.hi));
    fields.into_iter().map(|(_, field)| field).collect()
}

/// Bits in runs.
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
