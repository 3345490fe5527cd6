// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The CPUID of a vCPU from a file: the output of `cpuid -r`, or one of [`formats`].

use std::path::Path;

use crate::cpuid::Cpuid;
use crate::cpuid::Leaf;
use crate::error::Error;
use crate::error::Result;
use crate::formats;
use crate::input;
use crate::number::Hex;
use crate::number::parse_u32;

/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`
const INDEX_MATTERS: u32 = 1;

/// Reads the CPUID from a file. A file that only modifies a host's CPUID modifies that of `host`.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::Input`] if the file can't be read, or has no CPUID.
pub fn read(path: &Path, host: &Cpuid) -> Result<Cpuid> {
    let (name, bytes) = input::bytes(path)?;

    parse(bytes, &name, host)
}

/// Parses the content for [`read`].
fn parse(bytes: Vec<u8>, name: &str, host: &Cpuid) -> Result<Cpuid> {
    let is_json = bytes.trim_ascii_start().starts_with(b"{");
    let cpuid = if is_json {
        let file = formats::read_bytes(&bytes, name)?;

        if file.cpuid.0.is_empty() && !file.cpuid_modifiers.is_empty() {
            let mut cpuid = host.clone();

            if let Some(modifier) = cpuid.apply(&file.cpuid_modifiers).first() {
                return Err(Error::Input(format!(
                    "{name} sets bits of CPUID {}, which this host does not have",
                    modifier.function
                )));
            }
            cpuid
        } else {
            file.cpuid
        }
    } else {
        raw(&input::text(bytes, name)?, name)?
    };

    if cpuid.0.is_empty() {
        return Err(Error::Input(format!(
            "{name} has no CPUID; for a vCPU without CPUID, use --cpu none"
        )));
    }
    Ok(cpuid)
}

/// Parses the first CPU of `cpuid -r`.
///
/// Leaves of all zeros are left out: the instruction returns zeros for leaves that do not exist,
/// and KVM accepts 256 leaves.
fn raw(text: &str, name: &str) -> Result<Cpuid> {
    let mut leaves = Vec::new();
    let mut cpus = 0;

    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();

        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with("CPU") && line.ends_with(':') {
            cpus += 1;
            if cpus > 1 {
                break;
            }
            continue;
        }
        let leaf = raw_leaf(line).ok_or_else(|| {
            Error::Input(format!(
                "line {number} of {name} is not a line of 'cpuid -r', and the file is not JSON: \
                 '{}'",
                line.chars().take(80).collect::<String>()
            ))
        })?;

        if [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx] != [Hex(0); 4] {
            leaves.push(leaf);
        }
    }
    Ok(Cpuid(leaves))
}

/// Parses a line such as `0x00000001 0x00: eax=0x000906ea ebx=0x00100800 ecx=0x7ffafbbf
/// edx=0xbfebfbff`.
fn raw_leaf(line: &str) -> Option<Leaf> {
    let (input, registers) = line.split_once(':')?;
    let mut input = input.split_whitespace().map(parse_u32);
    let (function, index) = (input.next()?.ok()?, input.next()?.ok()?);
    let mut values = registers
        .split_whitespace()
        .zip(["eax=", "ebx=", "ecx=", "edx="])
        .map(|(text, name)| text.strip_prefix(name).map(parse_u32));
    let mut value = || values.next()??.ok().map(Hex);

    Some(Leaf {
        function: Hex(function),
        index: Hex(index),
        flags: if has_subleaves(function) {
            INDEX_MATTERS
        } else {
            0
        },
        eax: value()?,
        ebx: value()?,
        ecx: value()?,
        edx: value()?,
    })
}

/// Whether the leaf has subleaves, selected by ECX: SDM, CPUID instruction; APM volume 3, appendix
/// "Obtaining Processor Information Via the CPUID Instruction".
fn has_subleaves(function: u32) -> bool {
    matches!(
        function,
        0x4 | 0x7
            | 0xb
            | 0xd
            | 0xf
            | 0x10
            | 0x12
            | 0x14
            | 0x17
            | 0x18
            | 0x1b
            | 0x1d
            | 0x1e
            | 0x1f
            | 0x20
            | 0x23
            | 0x24
            | 0x27
            | 0x28
            | 0x8000_001d
            | 0x8000_0020
            | 0x8000_0026
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpuid::Register;
    use crate::cpuid::Vendor;
    use crate::snapshot::SCHEMA;
    use crate::snapshot::Snapshot;

    const RAW: &str = "\
CPU 0:
   0x00000000 0x00: eax=0x00000016 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69
   0x00000001 0x00: eax=0x000906ea ebx=0x00100800 ecx=0x7ffafbbf edx=0xbfebfbff
   0x00000003 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000
   0x00000004 0x01: eax=0x1c004122 ebx=0x01c0003f ecx=0x0000003f edx=0x00000000
CPU 1:
   0x00000000 0x00: eax=0x00000016 ebx=0x68747541 ecx=0x444d4163 edx=0x69746e65
";

    fn parsed(text: &str) -> Result<Cpuid> {
        parse(text.as_bytes().to_vec(), "file", &Cpuid::default())
    }

    #[test]
    fn the_first_cpu_is_taken() {
        let cpuid = parsed(RAW).unwrap();

        assert_eq!(cpuid.0.len(), 3);
        assert_eq!(cpuid.vendor(), Some(Vendor::Intel));
        assert_eq!(cpuid.register(4, 1, Register::Eax), 0x1c00_4122);
        assert_eq!(cpuid.register(4, 0, Register::Eax), 0);
    }

    #[test]
    fn a_snapshot_is_taken() {
        let snapshot = Snapshot {
            schema: SCHEMA,
            cpuid: parsed(RAW).unwrap(),
            ..Default::default()
        };
        let text = serde_json::to_string(&snapshot).unwrap();

        assert_eq!(parsed(&text).unwrap(), snapshot.cpuid);
        for cut in 1..text.len() {
            assert!(parsed(&text[..cut]).is_err());
        }
    }

    #[test]
    fn a_template_changes_the_hosts() {
        let template = r#"{ "kvm_capabilities": [], "msr_modifiers": [], "cpuid_modifiers": [
            { "leaf": "0x1", "subleaf": "0x0", "flags": 0, "modifiers": [
                { "register": "ecx", "bitmap": "0bxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0" }] }] }"#;
        let host = parsed(RAW).unwrap();
        let cpuid = parse(template.into(), "file", &host).unwrap();

        assert_eq!(host.register(1, 0, Register::Ecx), 0x7ffa_fbbf);
        assert_eq!(cpuid.register(1, 0, Register::Ecx), 0x7ffa_fbbe);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("", "no CPUID"),
            ("hello", "line 1"),
            ("CPU 0:\n 0x0 0x0: eax=1", "line 2"),
            (
                "{\"schema\": 2, \"kind\": \"snapshot\", \"msrs\": []}",
                "schema",
            ),
            ("{}", "file"),
        ] {
            let error = parsed(text).unwrap_err().to_string();

            assert!(error.contains(word), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".*") {
            let _ = parsed(&text);
        }

        #[test]
        fn nothing_like_it_panics(text in "(CPU 0:)?\n *0x[0-9a-f]{0,9} 0x[0-9a-f]{0,9}:( e[abcd]x=0x[0-9a-f]{0,9}){0,5}") {
            let _ = parsed(&text);
        }
    }
}
