// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One JSON document of each kind, for the suite on the host, which has the schemas.

use anyhow::Context;

use crate::report::Report;
use crate::run::Kvmsr;

/// The schema, and a command line that prints such a document.
const DOCUMENTS: &[(&str, &[&str])] = &[
    ("explain", &["explain", "IA32_EFER", "0x12345678"]),
    ("decode", &["decode", "IA32_EFER=0xd01"]),
    ("list", &["list"]),
    ("get", &["get", "IA32_EFER", "0x12345678"]),
    ("set", &["set", "IA32_CR_PAT", "0"]),
    ("probe", &["probe", "IA32_CR_PAT", "0x12345678"]),
    ("snapshot", &["snapshot"]),
    ("doctor", &["doctor"]),
];

/// Hands them over.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    for (schema, arguments) in DOCUMENTS {
        let mut document = None;

        report.test(&format!("{schema} prints JSON"), || {
            // What it found is of no interest here.
            let value = kvmsr.json(arguments, "", &[0, 1])?;

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
