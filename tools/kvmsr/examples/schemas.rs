// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Writes the JSON schemas of the output of `kvmsr --json`.
//!
//! `cargo run -p kvmsr --features schema --example schemas -- Documentation/kvmsr/schema`

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use schemars::JsonSchema;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use serde_json::json;

/// A report's name, and its schema.
type Named = (&'static str, fn() -> Schema);

/// Every report, by the name of its file.
const REPORTS: &[Named] = &[
    ("bench", of::<kvmsr::bench::Measurements>),
    ("check", of::<kvmsr::check::Report>),
    ("compat", of::<kvmsr::compat::Report>),
    ("decode", of::<kvmsr::decode::Report>),
    ("diff", of::<kvmsr::diff::Report>),
    ("doctor", of::<kvmsr::doctor::Findings>),
    ("explain", of::<kvmsr::explain::Report>),
    ("filter-compile", of::<kvmsr::filter::FilterFile>),
    ("filter-lint", of::<kvmsr::filter::LintReport>),
    ("filter-refused", of::<kvmsr::filter::Refused>),
    ("filter-rules", of::<kvmsr::filter::RulesFile>),
    ("filter-show", of::<kvmsr::filter::ShowReport>),
    ("filter-test", of::<kvmsr::filter::TestReport>),
    ("get", of::<kvmsr::access::GetReport>),
    ("get-vm", of::<kvmsr::running::VmGetReport>),
    ("learn", of::<kvmsr::learned::LearnedFile>),
    ("list", of::<kvmsr::list::ListReport>),
    ("log", of::<kvmsr::trace::Entry>),
    ("policy", of::<kvmsr::policy::PolicyFile>),
    ("policy-set", of::<kvmsr::policy::PolicySetReport>),
    ("policy-test", of::<kvmsr::policy::PolicyTestReport>),
    ("probe", of::<kvmsr::probe::ProbeReport>),
    ("save-list", of::<kvmsr::running::SaveListReport>),
    ("set", of::<kvmsr::access::SetReport>),
    ("set-vm", of::<kvmsr::running::VmSetReport>),
    ("snapshot", of::<kvmsr::snapshot::Snapshot>),
    ("stats", of::<kvmsr::stats::StatsReport>),
    ("top", of::<kvmsr::trace::Top>),
];

fn main() -> anyhow::Result<()> {
    let directory = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .context("the argument must be the directory for the schemas")?;

    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    for &(name, schema) in REPORTS {
        write(&directory, name, schema().into())?;
    }
    Ok(())
}

/// JSON Schema 2020-12 of serialised data; deserialisation accepts more.
fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
}

fn write(directory: &Path, name: &str, mut schema: Value) -> anyhow::Result<()> {
    let path = directory.join(format!("{name}.json"));

    strict(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), json!(title(name)));
    }
    if let Some(version) = schema.pointer_mut("/properties/schema") {
        *version = json!({
            "description": "The version of this format.",
            "const": kvmsr::snapshot::SCHEMA,
        });
    }
    let mut text = serde_json::to_string_pretty(&schema)?;

    text.push('\n');
    fs::write(&path, text).with_context(|| path.display().to_string())
}

/// The description of a document.
fn title(name: &str) -> String {
    match name {
        "filter-refused" => "kvmsr filter compile --json, if there is no filter".to_owned(),
        "get-vm" => "kvmsr get --vm --json".to_owned(),
        "policy" => "A policy of kvmsr policy".to_owned(),
        "save-list" => "kvmsr save-list --json".to_owned(),
        "set-vm" => "kvmsr set --vm --json".to_owned(),
        "filter-rules" => "Rules for kvmsr filter".to_owned(),
        name => format!("kvmsr {} --json", name.replace('-', " ")),
    }
}

/// Forbids undeclared members in every object.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let is_combined = ["oneOf", "anyOf", "allOf", "$ref"]
                .iter()
                .any(|keyword| object.contains_key(*keyword));
            // The parts of a combination do not know each other's members.
            let keyword = if is_combined {
                "unevaluatedProperties"
            } else {
                "additionalProperties"
            };

            if object.get("properties").is_some_and(Value::is_object)
                && !object.contains_key("additionalProperties")
            {
                object.insert(keyword.to_owned(), json!(false));
            }
            object.values_mut().for_each(strict);
        }
        Value::Array(values) => values.iter_mut().for_each(strict),
        _ => {}
    }
}
