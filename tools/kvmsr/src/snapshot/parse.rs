// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Reads and writes snapshots as JSON.

use serde::Deserialize;
use serde_json::error::Category;

use crate::error::Error;
use crate::error::Result;
use crate::snapshot::SCHEMA;
use crate::snapshot::Snapshot;

/// What every version of the file begins with.
#[derive(Deserialize)]
struct Version {
    schema: Option<u64>,
}

impl Snapshot {
    /// Parses a snapshot or a profile of kvmsr's.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with where and what: it is cut off, no JSON, not of kvmsr, of another
    /// version, or has a field that means nothing.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let version: Version = serde_json::from_slice(json).map_err(|error| describe(&error))?;

        match version.schema {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            Some(schema) => {
                return Err(Error::Input(format!(
                    "it is of schema {schema}, and this kvmsr knows schema {SCHEMA}: use the \
                     kvmsr that wrote it, or take it anew"
                )));
            }
            None => {
                return Err(Error::Input(
                    "it is JSON, but has no \"schema\", so it is not a file of kvmsr's: 'kvmsr \
                     snapshot' writes one"
                        .to_owned(),
                ));
            }
        }
        serde_json::from_slice(json).map_err(|error| describe(&error))
    }

    /// The snapshot as JSON, which [`Snapshot::parse`] takes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], which does not happen with memory enough.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self).map_err(Error::io("write JSON"))?;

        json.push(b'\n');
        Ok(json)
    }
}

fn describe(error: &serde_json::Error) -> Error {
    Error::Input(match error.classify() {
        Category::Eof => format!(
            "it is empty or cut off: it ends in line {}, in the middle of the JSON",
            error.line()
        ),
        Category::Syntax => format!("it is not JSON: {error}"),
        Category::Data | Category::Io => format!("it is not a snapshot: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpuid::Vendor;
    use crate::number::Hex;
    use crate::snapshot::Host;
    use crate::snapshot::Value;

    fn snapshot() -> Snapshot {
        Snapshot {
            schema: SCHEMA,
            host: Host {
                kernel: "7.3.4".to_owned(),
                vendor: Some(Vendor::Amd),
                ..Host::default()
            },
            saved: vec![Hex(0x10), Hex(0x3b)],
            msrs: vec![Value {
                moves: true,
                ..Value::new(0x10, 0xffff_ffff_ffff_ffff)
            }],
            ..Snapshot::default()
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let json = snapshot().to_json().unwrap();

        assert_eq!(Snapshot::parse(&json).unwrap(), snapshot());
    }

    #[test]
    fn bad_files_are_explained() {
        for (json, says) in [
            ("", "empty or cut off"),
            (
                r#"{"schema": 1, "kind": "snap"#,
                "cut off: it ends in line 1",
            ),
            ("\u{7f}ELF", "not JSON"),
            ("{}", "no \"schema\""),
            (r#"[{"index": 1}]"#, "not a snapshot"),
            (r#"{"schema": 2, "news": true}"#, "schema 2"),
            (
                r#"{"schema": 1, "kind": "snapshot", "msrs": [], "color": 1}"#,
                "unknown field `color`",
            ),
            (
                r#"{"schema": 1, "kind": "snapshot", "msrs": [{"index": "0x100000000", "value": 0}]}"#,
                "more than 32 bits",
            ),
            (
                "{\"schema\": 1, \"kind\": \"snapshot\", \"msrs\":\n\
                 [{\"index\": 1, \"value\": \"0x10000000000000000\"}]}",
                "more than 64 bits at line 2",
            ),
            (
                r#"{"schema": 1, "kind": "snapshot", "msrs": [{"index": 1, "value": 18446744073709551616}]}"#,
                "expected a number",
            ),
            (
                r#"{"schema": 1, "kind": "snapshot"}"#,
                "missing field `msrs`",
            ),
        ] {
            let error = Snapshot::parse(json.as_bytes()).unwrap_err().to_string();

            assert!(error.contains(says), "{json}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Snapshot::parse(&bytes);
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0usize..2000, byte: u8, cut in 0usize..2000) {
            let mut json = snapshot().to_json().unwrap();
            let length = json.len();

            json[at % length] = byte;
            let _ = Snapshot::parse(&json);
            json.truncate(cut % length);
            prop_assert!(Snapshot::parse(&json).is_err());
        }

        #[test]
        fn all_values_survive(index: u32, value: u64, moves: bool) {
            let mut one = snapshot();

            one.msrs = vec![Value { moves, ..Value::new(index, value) }];
            prop_assert_eq!(Snapshot::parse(&one.to_json().unwrap()).unwrap(), one);
        }
    }
}
