// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Values and their fields, for people and as JSON.

use serde::Serialize;

use crate::catalogue;
use crate::catalogue::Field;
use crate::cpuid::Vendor;
use crate::error::Error;
use crate::error::Result;
use crate::number::Hex;
use crate::number::parse_u64;
use crate::snapshot::SCHEMA;
use crate::snapshot::Snapshot;

/// An MSR with a value, or with two values to compare.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Input {
    /// Its index.
    pub index: u32,
    /// Its value.
    pub value: u64,
    /// The new value, if there are two.
    pub new: Option<u64>,
}

/// How to read numbers without `0x`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Radix {
    /// Decimal.
    #[default]
    Decimal,
    /// Hexadecimal, as `rdmsr` prints them.
    Hexadecimal,
}

/// The output of `kvmsr decode`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// [`SCHEMA`]
    pub schema: u32,
    /// In the order of the input.
    pub msrs: Vec<MsrReport>,
}

/// The fields of an MSR's value, or the fields in which two values differ.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MsrReport {
    /// Its index.
    pub index: Hex<u32>,
    /// Its name, if known.
    pub name: Option<String>,
    /// Its value.
    pub value: Hex<u64>,
    /// The new value, if there are two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Hex<u64>>,
    /// All fields; for two values, those that differ.
    pub fields: Vec<FieldReport>,
    /// Bits that are set, or differ, but belong to no known field.
    pub undefined: Hex<u64>,
}

/// A field with its value.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FieldReport {
    /// `hi:lo`, or one bit.
    pub bits: String,
    /// Its name.
    pub name: &'static str,
    /// Addresses in place, other fields shifted down.
    pub value: Hex<u64>,
    /// The meaning of the value, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<&'static str>,
    /// The new value, if there are two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Hex<u64>>,
    /// The meaning of the new value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_meaning: Option<&'static str>,
    /// The vendor, CPU families or message that have the field, if not all do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
}

impl FieldReport {
    fn new(field: &Field, value: u64, new: Option<u64>, vendor: Option<Vendor>) -> Self {
        FieldReport {
            bits: field.bits.to_string(),
            name: field.name,
            value: Hex(value),
            meaning: field.meaning(value),
            new: new.map(Hex),
            new_meaning: new.and_then(|new| field.meaning(new)),
            only: field.origin(vendor),
        }
    }
}

/// The fields of some values.
pub fn decode(inputs: &[Input], vendor: Option<Vendor>) -> Report {
    Report {
        schema: SCHEMA,
        msrs: inputs.iter().map(|input| of_msr(input, vendor)).collect(),
    }
}

fn of_msr(input: &Input, vendor: Option<Vendor>) -> MsrReport {
    let &Input { index, value, new } = input;
    let (fields, undefined) = match new {
        None => {
            let decoding = catalogue::decode(index, value, vendor);
            let fields = decoding
                .fields
                .iter()
                .map(|of| FieldReport::new(of.field, of.value, None, vendor))
                .collect();

            (fields, decoding.undefined)
        }
        Some(new) => {
            let changes = catalogue::changes(index, value, new, vendor);
            let fields = changes
                .iter()
                .filter_map(|change| {
                    let field = change.field?;

                    Some(FieldReport::new(
                        field,
                        change.old,
                        Some(change.new),
                        vendor,
                    ))
                })
                .collect();
            let undefined = changes
                .iter()
                .filter(|change| change.field.is_none())
                .fold(0, |bits, change| bits | change.old ^ change.new);

            (fields, undefined)
        }
    };

    MsrReport {
        index: Hex(index),
        name: catalogue::name(index, vendor),
        value: Hex(value),
        new: new.map(Hex),
        fields,
        undefined: Hex(undefined),
    }
}

/// Parses `MSR=VALUE`, or `MSR=OLD,NEW`.
///
/// # Errors
///
/// [`Error::Input`] if it is invalid.
pub fn parse_argument(text: &str, radix: Radix) -> Result<Input> {
    let (msr, values) = text.split_once('=').ok_or_else(|| {
        Error::Input(format!(
            "'{}' has no value: use MSR=VALUE, e.g. EFER=0xd01, or MSR=OLD,NEW",
            start(text)
        ))
    })?;

    parse_parts(msr, values, radix)
}

/// Parses standard input: a line for each MSR (`MSR=VALUE`, `MSR: VALUE` or `MSR VALUE`), or a
/// snapshot. Also returns the vendor of the snapshot's host.
///
/// # Errors
///
/// [`Error::Input`] with the line, if it is invalid.
pub fn parse_text(text: &str, radix: Radix) -> Result<(Vec<Input>, Option<Vendor>)> {
    if text.trim_start().starts_with('{') {
        return parse_snapshot(text);
    }
    let mut inputs = Vec::new();

    for (number, line) in (1..).zip(text.lines()) {
        let (line, _) = line.split_once('#').unwrap_or((line, ""));

        if !line.trim().is_empty() {
            inputs.push(parse_line(line.trim(), radix).map_err(|error| {
                Error::Input(format!("line {number} of standard input: {error}"))
            })?);
        }
    }
    Ok((inputs, None))
}

fn parse_snapshot(text: &str) -> Result<(Vec<Input>, Option<Vendor>)> {
    let snapshot: Snapshot = serde_json::from_str(text).map_err(|error| {
        Error::Input(format!(
            "the JSON on standard input is not a snapshot of kvmsr: {error}"
        ))
    })?;

    if snapshot.schema != SCHEMA {
        return Err(Error::Input(format!(
            "the snapshot on standard input has schema {}, but this kvmsr supports {SCHEMA}",
            snapshot.schema
        )));
    }
    let inputs = snapshot
        .msrs
        .iter()
        .map(|msr| Input {
            index: msr.index.0,
            value: msr.value.0,
            new: None,
        })
        .collect();

    Ok((inputs, snapshot.host.vendor))
}

fn parse_line(line: &str, radix: Radix) -> Result<Input> {
    let (msr, values) = line
        .split_once(['=', ':'])
        .or_else(|| line.split_once(char::is_whitespace))
        .ok_or_else(|| {
            Error::Input(format!(
                "'{}' is not an MSR and a value, e.g. 'EFER 0xd01'",
                start(line)
            ))
        })?;

    parse_parts(msr, values, radix)
}

fn parse_parts(msr: &str, values: &str, radix: Radix) -> Result<Input> {
    let (value, new) = match values.split_once(',') {
        Some((old, new)) => (old, Some(new)),
        None => (values, None),
    };

    Ok(Input {
        index: catalogue::parse_index(msr)?,
        value: parse_value(value, radix)?,
        new: new.map(|new| parse_value(new, radix)).transpose()?,
    })
}

fn parse_value(text: &str, radix: Radix) -> Result<u64> {
    let text = text.trim();
    let is_hexadecimal = text.starts_with(|c: char| c.is_ascii_hexdigit())
        && text.chars().all(|c| c.is_ascii_hexdigit());

    match radix {
        Radix::Hexadecimal if is_hexadecimal => parse_u64(&format!("0x{text}")),
        Radix::Decimal if is_hexadecimal && !text.chars().all(|c| c.is_ascii_digit()) => {
            Err(Error::Input(format!(
                "'{}' is not a number: write it as 0x{}, or use --hex for the output of rdmsr",
                start(text),
                start(text)
            )))
        }
        _ => parse_u64(text),
    }
}

/// The part of a text that an error quotes.
fn start(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_parsed() {
        let one = |index, value| Input {
            index,
            value,
            new: None,
        };

        assert_eq!(
            parse_argument("EFER=0xd01", Radix::Decimal).unwrap(),
            one(0xc000_0080, 0xd01)
        );
        assert_eq!(
            parse_argument("0x10=1,2", Radix::Decimal).unwrap(),
            Input {
                new: Some(2),
                ..one(0x10, 1)
            }
        );
        assert_eq!(
            parse_argument("16=10", Radix::Hexadecimal).unwrap(),
            one(0x10, 0x10)
        );
        for bad in [
            "",
            "=",
            "0x10",
            "0x10=",
            "=1",
            "0x10=1,",
            "0x10=1,2,3",
            "0x10=d01",
            "0x100000000=1",
            "0x10=0x10000000000000000",
            "0x10-0x12=1",
            "0x10=-1",
        ] {
            assert!(parse_argument(bad, Radix::Decimal).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_are_parsed() {
        let text = "# of a guest\n\n0x10=1\n IA32_EFER: 0xd01\nPAT\t0x0007040600070406 # reset\n";
        let (inputs, vendor) = parse_text(text, Radix::Decimal).unwrap();

        assert_eq!(vendor, None);
        assert_eq!(
            inputs.iter().map(|input| input.index).collect::<Vec<_>>(),
            [0x10, 0xc000_0080, 0x277]
        );
        let error = parse_text("0x10=1\n\nwhat\n", Radix::Decimal).unwrap_err();

        assert!(
            error.to_string().starts_with("line 3 of standard input:"),
            "{error}"
        );
    }

    #[test]
    fn snapshots_are_parsed() {
        let text = r#"{ "schema": 1, "kind": "snapshot", "host": { "kernel": "", "vendor": "amd",
            "cpu": "" }, "msrs": [ { "index": "0xc0000080", "value": "0x1000" } ] }"#;
        let (inputs, vendor) = parse_text(text, Radix::Decimal).unwrap();

        assert_eq!(vendor, Some(Vendor::Amd));
        assert_eq!(inputs[0].value, 0x1000);
        for bad in ["{", "{}", "{\"schema\": 1, \"x\": 2}"] {
            assert!(parse_text(bad, Radix::Decimal).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        // Searching similar names takes long.
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = parse_text(&text, Radix::Decimal);
            let _ = parse_argument(&text, Radix::Hexadecimal);
        }

        #[test]
        fn nothing_like_a_list_panics(text in "[0-9a-fx=:, \n#{}\"]{0,80}") {
            let _ = parse_text(&text, Radix::Hexadecimal);
            let _ = parse_argument(&text, Radix::Decimal);
        }
    }
}
