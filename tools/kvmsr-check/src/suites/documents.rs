// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One JSON document of each kind, for the suite on the host, which has the schemas.

use anyhow::Context;

use crate::report::Report;
use crate::run::Kvmsr;

/// The input for `-` in a command line.
#[derive(Clone, Copy)]
enum Input {
    Nothing,
    Snapshot,
    Rules,
    Policy,
}

use Input::Nothing;
use Input::Policy;
use Input::Rules;
use Input::Snapshot;

const RULES: &str = "default deny\nallow 0x10 0x174-0x176\nallow read IA32_APIC_BASE\n";

const POLICY: &str = "ignore when unsupported 0x0-0x7ff\nmask=0x1 IA32_MISC_ENABLE\n";

const RULES_FILE: &str = include_str!("../../../kvmsr/tests/data/filter/rules.json");

/// The schema, the input, and a command line that prints such a document. The suite `live` has
/// those of `top`, `log` and `bench`, and the suite `device` those that need a running VM.
const DOCUMENTS: &[(&str, Input, &[&str])] = &[
    ("explain", Nothing, &["explain", "IA32_EFER", "0x12345678"]),
    ("decode", Nothing, &["decode", "IA32_EFER=0xd01"]),
    ("list", Nothing, &["list"]),
    ("get", Nothing, &["get", "IA32_EFER", "0x12345678"]),
    ("set", Nothing, &["set", "IA32_CR_PAT", "0"]),
    ("probe", Nothing, &["probe", "IA32_CR_PAT", "0x12345678"]),
    ("snapshot", Nothing, &["snapshot"]),
    ("doctor", Nothing, &["doctor", "--report"]),
    ("diff", Snapshot, &["diff", "-", "--host"]),
    ("check", Snapshot, &["check", "-", "--all"]),
    (
        "compat",
        Snapshot,
        &["compat", "-", "-o", "/tmp/profile.json"],
    ),
    ("filter-compile", Rules, &["filter", "compile", "-"]),
    ("filter-show", Rules, &["filter", "show", "-"]),
    ("filter-lint", Rules, &["filter", "lint", "-"]),
    (
        "filter-test",
        Rules,
        &["filter", "test", "--on-kvm", "-", "read:0x10", "write:0x1b"],
    ),
    ("policy", Rules, &["policy", "compile", "-"]),
    (
        "policy-test",
        Policy,
        &["policy", "test", "-", "read:0x10", "write:0x1a0=3"],
    ),
];

/// Passes them on.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    // No verb prints rules, but rule files have a schema.
    report.document("filter-rules", RULES_FILE);
    let snapshot = kvmsr
        .json(&["snapshot"], "", &[0])
        .map(|snapshot| snapshot.to_string())
        .unwrap_or_default();

    for &(schema, input, arguments) in DOCUMENTS {
        let input = match input {
            Nothing => "",
            Snapshot => &snapshot,
            Rules => RULES,
            Policy => POLICY,
        };
        let mut document = None;

        report.test(&format!("{schema} prints JSON"), || {
            // The exit code does not matter here.
            let value = kvmsr.json(arguments, input, &[0, 1])?;

            value
                .get("schema")
                .and_then(|schema| schema.as_u64())
                .filter(|&schema| schema == 1)
                .context("it has no schema of 1")?;
            document = Some(value.to_string());
            Ok(String::new())
        });
        if let Some(document) = document {
            report.document(schema, &document);
        }
    }
}
