// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Converts between indices and names.

use super::Msr;
use super::Owner;
use super::data;
use super::spelling;
use crate::cpuid::Vendor;
use crate::error::Error;
use crate::error::Result;
use crate::number::parse_u32;

/// The maximum number of indices that [`parse_indices`] returns.
pub const MAX_INDICES: u32 = 0x1_0000;

/// The maximum number of suggestions for a mistyped name.
const MAX_SUGGESTIONS: usize = 5;
/// The minimum similarity of suggestions, from 0 to 1.
const LIKENESS: f64 = 0.84;

/// The name of an MSR, with the number of an element, e.g. `IA32_MC3_CTL`.
pub fn name(index: u32, vendor: Option<Vendor>) -> Option<String> {
    let msr = msr(index, vendor)?;

    Some(match msr.number(index) {
        Some(number) => msr.name.replace("{n}", &number.to_string()),
        None => msr.name.to_owned(),
    })
}

/// The MSR with an index. If the vendors have different MSRs with it, `vendor` selects one.
pub fn msr(index: u32, vendor: Option<Vendor>) -> Option<&'static Msr> {
    let at = data::ELEMENTS.partition_point(|&(element, _)| element < index);
    let here = || {
        data::ELEMENTS
            .get(at..)
            .unwrap_or_default()
            .iter()
            .take_while(|&&(element, _)| element == index)
            .filter_map(|&(_, msr)| data::MSRS.get(usize::from(msr)))
    };
    let vendor = vendor.unwrap_or(Vendor::Intel);

    here()
        .find(|msr| msr.owner.is_on(vendor))
        .or_else(|| here().next())
}

/// All MSRs, sorted by index. There are two if the vendors have different MSRs with an index.
pub fn all() -> &'static [Msr] {
    &data::MSRS
}

/// The index for a name of the manuals, Linux or others, in any case, with or without `MSR_`.
pub fn index_of(name: &str) -> Option<u32> {
    spelling::forms(name).iter().find_map(|form| {
        let at = data::NAMES
            .binary_search_by(|&(name, _)| name.cmp(form))
            .ok()?;
        let &(_, index) = data::NAMES.get(at)?;

        Some(index)
    })
}

/// The MSRs whose names contain a text.
pub fn find(part: &str) -> Vec<&'static Msr> {
    let part = part.trim().as_bytes();
    let has = |name: &str| {
        name.as_bytes()
            .windows(part.len().max(1))
            .any(|window| window.eq_ignore_ascii_case(part))
    };

    if part.is_empty() {
        return Vec::new();
    }
    data::MSRS
        .iter()
        .filter(|msr| has(msr.name) || msr.aliases.iter().any(|alias| has(alias)))
        .collect()
}

/// Names that are similar to a mistyped one, best first.
pub fn like(name: &str) -> Vec<String> {
    // A text that is longer than any name is similar to none.
    const LONGEST: usize = 64;
    let [.., short] = spelling::forms(name);

    if short.len() > LONGEST {
        return Vec::new();
    }
    let mut like: Vec<(f64, u32)> = data::NAMES
        .iter()
        .map(|&(other, index)| {
            let other = other.strip_prefix("ia32_").unwrap_or(other);

            (strsim::jaro_winkler(&short, other), index)
        })
        .filter(|&(likeness, _)| likeness >= LIKENESS)
        .collect();
    let mut names: Vec<String> = Vec::new();

    like.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    for (_, index) in like {
        let name = match self::name(index, None) {
            Some(name) => name,
            None => super::rule(index).name.to_owned(),
        };

        if names.len() < MAX_SUGGESTIONS && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Parses MSRs: an index, a name, `first-last`, or the name of several with `{n}` for the number.
///
/// # Errors
///
/// [`Error::Input`] if there is no such MSR, with similar names, or if there are more than
/// [`MAX_INDICES`].
pub fn parse_indices(text: &str) -> Result<Vec<u32>> {
    let text = text.trim();

    if text.contains("{n}") {
        return several(text);
    }
    let Some((first, last)) = text.split_once('-') else {
        return Ok(vec![parse_index(text)?]);
    };
    let (first, last) = (parse_index(first)?, parse_index(last)?);

    match last.checked_sub(first) {
        None => Err(Error::Input(format!("'{text}' ends before it starts"))),
        Some(more) if more >= MAX_INDICES => Err(Error::Input(format!(
            "'{text}' has {} indices, which is more than {MAX_INDICES}: use a smaller range",
            u64::from(more) + 1
        ))),
        Some(_) => Ok((first..=last).collect()),
    }
}

fn several(name: &str) -> Result<Vec<u32>> {
    let forms = spelling::forms(name);

    data::MSRS
        .iter()
        .find(|msr| {
            spelling::forms(msr.name)
                .iter()
                .any(|own| forms.contains(own))
        })
        .map(|msr| msr.indices().collect())
        .ok_or_else(|| unknown(name))
}

/// Parses one MSR: an index or a name.
///
/// # Errors
///
/// [`Error::Input`] if there is no such MSR, with similar names.
pub fn parse_index(text: &str) -> Result<u32> {
    let text = text.trim();

    if text.is_empty() {
        return Err(Error::Input(
            "an MSR is missing: use its index or its name, e.g. 0xc0000080 or EFER".to_owned(),
        ));
    }
    if text.contains('-') {
        return Err(Error::Input(format!(
            "'{}' is more than one MSR: use one index or name",
            start(text)
        )));
    }
    // No name starts with a digit.
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return parse_u32(text);
    }
    index_of(text).ok_or_else(|| unknown(text))
}

/// The part of a text that an error quotes.
fn start(text: &str) -> String {
    text.chars().take(80).collect()
}

fn unknown(name: &str) -> Error {
    let like = like(name);
    let parts: Vec<_> = find(name).iter().map(|msr| msr.name).collect();
    let shown = start(name);

    Error::Input(match (parts.as_slice(), like.as_slice()) {
        ([], []) => format!(
            "no MSR is called '{shown}': use its index, or search for a part of its \
                             name, e.g. with 'kvmsr explain mtrr'"
        ),
        ([], like) => format!(
            "no MSR is called '{shown}'; did you mean {}?",
            like.join(", ")
        ),
        (parts, _) if parts.len() <= MAX_SUGGESTIONS => format!(
            "no MSR is called '{shown}'; did you mean {}?",
            parts.join(", ")
        ),
        (parts, _) => format!(
            "no MSR is called '{shown}', but the names of {} contain it: 'kvmsr explain {shown}' \
             lists them",
            parts.len()
        ),
    })
}

impl Owner {
    /// The default vendor: above 0xc0000000 it is AMD.
    pub(super) fn likely_vendor(self, index: u32) -> Vendor {
        match self {
            Owner::Intel => Vendor::Intel,
            Owner::Amd => Vendor::Amd,
            _ if index >= 0xc000_0000 => Vendor::Amd,
            _ => Vendor::Intel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_all_spell_them() {
        for (name, index) in [
            ("EFER", 0xc000_0080),
            ("IA32_EFER", 0xc000_0080),
            ("msr_efer", 0xc000_0080),
            ("IA32_MC3_CTL", 0x40c),
            ("mc3_ctl", 0x40c),
            ("MSR_IA32_MC31_MISC", 0x47f),
            ("IA32_MTRR_PHYSBASE2", 0x204),
            ("MTRRphysBase0", 0x200),
            ("MTRRphysMask3", 0x207),
            ("MSR_IA32_SYSENTER_EIP", 0x176),
            ("IA32_LSTAR", 0xc000_0082),
            ("MSR_KVM_WALL_CLOCK_NEW", 0x4b56_4d00),
            ("KVM_SYSTEM_TIME_NEW", 0x4b56_4d01),
            ("HV_X64_MSR_GUEST_OS_ID", 0x4000_0000),
            ("HV_X64_GUEST_OS_ID", 0x4000_0000),
            ("IA32_X2APIC_APICID", 0x802),
            ("IA32_TSC", 0x10),
            ("IA32_BIOS_SIGN_ID", 0x8b),
            ("PATCH_LEVEL", 0x8b),
            ("IA32_PMC0", 0xc1),
            ("K7_EVNTSEL2", 0xc001_0002),
            ("F15H_PERF_CTR5", 0xc001_020b),
            ("APIC_BASE_MSR", 0x800),
        ] {
            assert_eq!(index_of(name), Some(index), "{name}");
        }
        assert_eq!(index_of("MtrrVar"), None, "it is no one MSR's");
    }

    #[test]
    fn every_name_leads_back_to_its_index() {
        for msr in all() {
            for index in msr.indices() {
                for vendor in [None, Some(Vendor::Amd), Some(Vendor::Intel)] {
                    let name = name(index, vendor).unwrap();

                    assert_eq!(index_of(&name), Some(index), "{name}");
                }
            }
        }
    }

    #[test]
    fn names_of_kvms_table_are_found() {
        for rule in crate::catalogue::rules() {
            assert!(index_of(rule.name).is_some(), "{}", rule.name);
        }
    }

    #[test]
    fn vendors_differ_at_one_index() {
        assert_eq!(name(0x8b, Some(Vendor::Amd)).unwrap(), "PATCH_LEVEL");
        assert_eq!(
            name(0x8b, Some(Vendor::Intel)).unwrap(),
            "IA32_BIOS_SIGN_ID"
        );
        assert_eq!(name(0xffff_ffff, None), None);
    }

    #[test]
    fn indices_are_parsed() {
        assert_eq!(parse_indices("0x10").unwrap(), [0x10]);
        assert_eq!(parse_indices("16").unwrap(), [0x10]);
        assert_eq!(parse_indices("0x10-0x12").unwrap(), [0x10, 0x11, 0x12]);
        assert_eq!(
            parse_indices("IA32_MC0_CTL-IA32_MC0_MISC").unwrap(),
            [0x400, 0x401, 0x402, 0x403]
        );
        assert_eq!(
            parse_indices("IA32_RTIT_ADDR{n}_A").unwrap(),
            [0x580, 0x582, 0x584, 0x586]
        );
        assert_eq!(parse_indices("0-0xffff").unwrap().len(), 0x1_0000);
        assert_eq!(parse_indices("0xffff_ffff").unwrap(), [u32::MAX]);
        for bad in [
            "",
            "-",
            "0x10-",
            "-0x10",
            "0x12-0x10",
            "0-0x10000",
            "0-0xffffffff",
            "0x100000000",
            "{n}",
            "IA32_X{n}",
            "no such MSR",
            "0xefer",
        ] {
            assert!(parse_indices(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mistyped_name_is_recognised() {
        let error = parse_indices("IA32_APICBAES").unwrap_err().to_string();

        assert!(error.contains("did you mean IA32_APIC_BASE"), "{error}");
        let error = parse_indices("MTRR_PHYS").unwrap_err().to_string();

        assert!(error.contains("IA32_MTRR_PHYSBASE{n}"), "{error}");
    }

    proptest::proptest! {
        // Searching similar names takes long.
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = parse_indices(&text);
        }

        #[test]
        fn nothing_like_a_range_panics(text in "[-0-9a-fx_{}n]{0,30}") {
            let _ = parse_indices(&text);
        }
    }
}
