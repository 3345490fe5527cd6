// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Decodes values into fields.

use super::Field;
use super::Owner;
use super::names::msr;
use crate::cpuid::Vendor;

/// A field of a value.
#[derive(Clone, Copy, Debug)]
pub struct Decoded {
    /// The field.
    pub field: &'static Field,
    /// [`Field::of`] the value.
    pub value: u64,
    /// [`Field::meaning`] of this value.
    pub meaning: Option<&'static str>,
}

/// The fields of a value.
#[derive(Clone, Debug, Default)]
pub struct Decoding {
    /// Sorted by their lowest bits.
    pub fields: Vec<Decoded>,
    /// Bits that are set, but belong to no known field.
    pub undefined: u64,
}

/// A field in which two values differ.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The field; none for bits that belong to no known field.
    pub field: Option<&'static Field>,
    /// [`Field::of`] the first value, or its undefined bits.
    pub old: u64,
    /// The same for the second value.
    pub new: u64,
}

/// The fields of an MSR on a vendor's CPUs, sorted by their lowest bits.
///
/// If the vendor's manual does not have the MSR, these are the other vendor's fields: KVM then
/// emulates the other vendor's MSR.
pub fn fields(index: u32, vendor: Option<Vendor>) -> Vec<&'static Field> {
    let mut fields = layout(index, vendor);

    sort(&mut fields);
    fields
}

fn layout(index: u32, vendor: Option<Vendor>) -> Vec<&'static Field> {
    let Some(msr) = msr(index, vendor) else {
        return Vec::new();
    };
    let vendor = vendor.unwrap_or_else(|| msr.owner.likely_vendor(index));
    let common = || msr.fields.iter().filter(|field| field.variant.is_none());
    let of_vendor: Vec<_> = common().filter(|field| field.owner.is_on(vendor)).collect();

    if !of_vendor.is_empty() {
        return of_vendor;
    }
    // There are only two vendors, so these do not overlap either.
    common().collect()
}

/// Sorts them for output: the parts of a field come after it.
fn sort(fields: &mut [&Field]) {
    fields.sort_by_key(|field| (field.bits.lo, field.part, u8::MAX - field.bits.hi));
    // Parts of a field that begin below other fields stay in place, as whole fields do not
    // overlap.
}

fn mask(fields: &[&Field]) -> u64 {
    fields
        .iter()
        .fold(0, |mask, field| mask | field.bits.mask())
}

/// The fields of an MSR for some values.
fn fields_for(index: u32, values: &[u64], vendor: Option<Vendor>) -> Vec<&'static Field> {
    let mut fields = layout(index, vendor);
    let of_msr = msr(index, vendor).map_or(&[][..], |msr| msr.fields);

    // Messages have variants, which the value distinguishes.
    let told: Vec<_> = of_msr
        .iter()
        .filter(|field| {
            field
                .when
                .is_some_and(|when| values.iter().all(|&value| when.is_met(value)))
        })
        .collect();
    let mask_of_told = mask(&told);

    fields.retain(|field| field.bits.mask() & mask_of_told == 0);
    fields.extend(told);

    // A field that only the other vendor or some CPU family has still gives the best name for a
    // bit.
    let set = values.iter().fold(0, |set, value| set | value);

    for foreign in [false, true] {
        for field in of_msr {
            let known = mask(&fields);

            if field.variant.is_some() == foreign
                && field.when.is_none()
                && field.bits.mask() & known == 0
                && field.bits.mask() & set != 0
            {
                fields.push(field);
            }
        }
    }
    sort(&mut fields);
    fields
}

/// The fields of a value.
pub fn decode(index: u32, value: u64, vendor: Option<Vendor>) -> Decoding {
    let fields = fields_for(index, &[value], vendor);

    Decoding {
        undefined: value & !mask(&fields),
        fields: fields
            .into_iter()
            .map(|field| {
                let value = field.of(value);

                Decoded {
                    field,
                    value,
                    meaning: field.meaning(value),
                }
            })
            .collect(),
    }
}

/// The fields in which two values differ.
pub fn changes(index: u32, old: u64, new: u64, vendor: Option<Vendor>) -> Vec<Change> {
    let fields = fields_for(index, &[old, new], vendor);
    let undefined = (old ^ new) & !mask(&fields);
    let mut changes: Vec<_> = fields
        .into_iter()
        .map(|field| Change {
            field: Some(field),
            old: field.of(old),
            new: field.of(new),
        })
        .filter(|change| change.old != change.new)
        .collect();

    if undefined != 0 {
        changes.push(Change {
            field: None,
            old: old & undefined,
            new: new & undefined,
        });
    }
    changes
}

impl Field {
    /// The owner or variant of a field, if it may surprise somebody who asks for `vendor`.
    pub fn origin(&self, vendor: Option<Vendor>) -> Option<String> {
        let owner = match (self.owner, vendor) {
            (Owner::Intel, Some(Vendor::Amd)) | (Owner::Amd, Some(Vendor::Intel)) => {
                Some(self.owner.name())
            }
            _ => None,
        };
        let parts: Vec<_> = owner.into_iter().chain(self.variant).collect();

        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::all;

    fn names(index: u32, value: u64, vendor: Option<Vendor>) -> Vec<(&'static str, u64)> {
        decode(index, value, vendor)
            .fields
            .iter()
            .filter(|decoded| decoded.value != 0)
            .map(|decoded| (decoded.field.name, decoded.value))
            .collect()
    }

    #[test]
    fn a_value_is_cut_into_fields() {
        // The reset value on the boot CPU, with bit 63, which is undefined.
        let decoding = decode(0x1b, 1 << 63 | 0xfee0_0900, None);

        assert_eq!(decoding.undefined, 1 << 63);
        assert_eq!(
            names(0x1b, 1 << 63 | 0xfee0_0900, None),
            [("BSP", 1), ("EN", 1), ("BASE", 0xfee0_0000)]
        );
    }

    #[test]
    fn fields_of_one_vendor_do_not_overlap() {
        for msr in all() {
            for vendor in [None, Some(Vendor::Amd), Some(Vendor::Intel)] {
                let mut seen = 0;

                for field in fields(msr.first, vendor).iter().filter(|field| !field.part) {
                    assert_eq!(seen & field.bits.mask(), 0, "{} {}", msr.name, field.name);
                    seen |= field.bits.mask();
                }
            }
        }
    }

    #[test]
    fn a_message_is_told_by_its_value() {
        // The GUEST_OS_ID of Windows: bit 63 is clear.
        assert!(names(0x4000_0000, 0x0001_040a_0000_4a61, None).contains(&("VENDOR_ID", 1)));
        // SEV_INFO_RESP of the GHCB protocol.
        assert!(names(0xc001_0130, 0x0002_0001_3300_0001, None).contains(&("ENC_BIT_POS", 0x33)));
    }

    #[test]
    fn controls_have_names() {
        let decoding = decode(0x481, 0x0000_007f_0000_0016, Some(Vendor::Intel));

        assert_eq!(decoding.undefined, 0);
        assert!(
            decoding
                .fields
                .iter()
                .any(|decoded| decoded.field.name == "ALLOWED1.NMI_EXITING" && decoded.value == 1)
        );
    }

    #[test]
    fn only_what_differs_changes() {
        let changes = changes(0xc000_0080, 0x501, 0xd01, None);

        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].field.unwrap().name, "NX");
    }

    proptest::proptest! {
        #[test]
        fn no_value_panics(at in 0..2000usize, value: u64, other: u64) {
            let msr = &all()[at % all().len()];

            for vendor in [None, Some(Vendor::Amd), Some(Vendor::Intel)] {
                let decoding = decode(msr.first, value, vendor);
                let known = decoding
                    .fields
                    .iter()
                    .fold(0, |mask, decoded| mask | decoded.field.bits.mask());

                assert_eq!(decoding.undefined, value & !known);
                for change in changes(msr.first, value, other, vendor) {
                    assert_ne!(change.old, change.new);
                }
            }
        }
    }
}
