// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvm-msr-speculation`: which accesses of an object to memory does only a branch keep in bounds?

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use kvm_msr_speculation::allowed;
use kvm_msr_speculation::allowed::Allowed;
use kvm_msr_speculation::gadget;
use kvm_msr_speculation::gadget::Findings;
use kvm_msr_speculation::image::Image;
use serde_json::json;

/// Looks for Spectre v1 gadgets in a relocatable object, as kvm-msr.ko is
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The object
    object: PathBuf,

    /// The list of gadgets that can stay, in JSON
    #[arg(long)]
    allowed: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let of = |path: &PathBuf| path.display().to_string();
    let object = fs::read(&arguments.object).with_context(|| of(&arguments.object))?;
    let image = Image::read(&object).with_context(|| of(&arguments.object))?;
    let allowed = match &arguments.allowed {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| of(path))?;
            allowed::read(&text).with_context(|| of(path))?
        }
        None => Vec::new(),
    };
    let found = found_in(&image);
    let unused: Vec<&Allowed> = allowed
        .iter()
        .filter(|entry| {
            !found
                .iter()
                .any(|findings| findings.function == entry.function)
        })
        .collect();
    let judged: Vec<(&Findings, usize)> = found
        .iter()
        .map(|findings| (findings, allowed_of(&allowed, findings)))
        .collect();

    if arguments.json {
        print_json(&image, &judged, &unused)?;
    } else {
        print_text(&judged, &unused);
    }
    let good = unused.is_empty()
        && judged
            .iter()
            .all(|(findings, allowed)| findings.gadgets.len() == *allowed);

    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is in the functions that have an index. The instances of a generic function are one.
fn found_in(image: &Image) -> Vec<Findings> {
    let mut found: BTreeMap<&str, Findings> = BTreeMap::new();

    for function in &image.functions {
        let new = gadget::find(image, function);

        if new.indexed == 0 {
            continue;
        }
        match found.entry(&function.name) {
            Entry::Vacant(entry) => {
                entry.insert(new);
            }
            Entry::Occupied(mut entry) => entry.get_mut().add(new),
        }
    }
    found.into_values().collect()
}

/// How many gadgets may be in a function.
fn allowed_of(allowed: &[Allowed], findings: &Findings) -> usize {
    allowed
        .iter()
        .filter(|entry| entry.function == findings.function)
        .map(|entry| entry.gadgets)
        .sum()
}

fn print_json(image: &Image, judged: &[(&Findings, usize)], unused: &[&Allowed]) -> Result<()> {
    let mut tables: BTreeMap<&str, usize> = BTreeMap::new();

    for (findings, _) in judged {
        for &place in &findings.tables {
            *tables.entry(image.name_of(place)).or_default() += 1;
        }
    }
    let functions: Vec<_> = judged
        .iter()
        .map(|(findings, allowed)| {
            json!({
                "function": findings.function,
                "indexed": findings.indexed,
                "allowed": allowed,
                "gadgets": findings.gadgets,
            })
        })
        .collect();
    let document = json!({
        "functions": functions,
        "tables": tables,
        "unused": unused.iter().map(|entry| &entry.function).collect::<Vec<_>>(),
    });

    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}

fn print_text(judged: &[(&Findings, usize)], unused: &[&Allowed]) {
    for (findings, allowed) in judged {
        if findings.gadgets.len() == *allowed {
            continue;
        }
        println!(
            "{}: {} gadgets, {allowed} allowed",
            findings.function,
            findings.gadgets.len()
        );
        for gadget in &findings.gadgets {
            println!("  {}", gadget.instruction);
            println!("    {}", gadget.reason);
            for instruction in &gadget.history {
                println!("      {instruction}");
            }
        }
    }
    for entry in unused {
        println!(
            "{} is allowed {} gadgets, and has none",
            entry.function, entry.gadgets
        );
    }
    let total: usize = judged.iter().map(|(findings, _)| findings.indexed).sum();

    println!("{} functions with {total} indexed accesses", judged.len());
}
