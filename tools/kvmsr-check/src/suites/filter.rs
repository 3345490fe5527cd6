// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests `kvmsr filter` and its library with random lists: compares them with a walk through the
//! ranges that is written independently, with a minimum found by exhaustive search, and with a
//! plain guest.

mod lists;
mod malformed;
mod minimum;
mod proof;
mod walk;

use anyhow::Context;
use anyhow::ensure;
use kvm_msr_guest::Access;
use kvm_msr_guest::Random;
use kvm_msr_guest::filter::WRITE;
use kvmsr::filter;
use kvmsr::filter::Rules;
use serde_json::Value;

use self::lists::List;
use self::lists::Lists;
use crate::report::Report;
use crate::run::Kvmsr;

const SEED: u64 = 0x6b76_6d73_7266_696c;

/// Number of lists that the library compiles.
const LISTS: usize = 10_000;
/// Number of lists that a guest proves.
const PROVEN: usize = 200;
/// Number of lists for the program.
const BY_PROGRAM: usize = 5;

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    report.test("10,000 random allow lists", compile);
    report.test("200 of them proven by a guest", prove);
    report.test("filters that KVM refuses", malformed::refused);
    let mut documents = Vec::new();

    report.test("compile, show and lint", || {
        by_program(kvmsr, &mut documents)
    });
    report.test("test --on-kvm", || on_kvm(kvmsr, &mut documents));
    report.test("test --on-kvm of the fastpath", || fast_path(kvmsr));
    for (schema, document) in documents {
        report.document(schema, &document.to_string());
    }
}

fn compile() -> anyhow::Result<String> {
    let mut lists = Lists::new(SEED);
    let (mut compiled, mut ranges, mut refused) = (0, 0, 0);

    for number in 0..LISTS {
        let list = lists.next();

        judge(&list)
            .map(|count| match count {
                Some(count) => {
                    compiled += 1;
                    ranges += count;
                }
                None => refused += 1,
            })
            .with_context(|| format!("list {number} of seed {SEED:#x}:\n{}", list.text()))?;
    }
    ensure!(compiled > LISTS / 4, "only {compiled} lists were possible");
    ensure!(
        refused > LISTS / 100,
        "only {refused} lists were impossible"
    );
    Ok(format!(
        "{compiled} with {ranges} ranges, the minimum; {refused} refused that need more \
         than 16"
    ))
}

/// Compiles a list, and returns the number of ranges if it is possible.
fn judge(list: &List) -> anyhow::Result<Option<usize>> {
    match filter::compile(&list.policy()) {
        Ok(filter) => {
            ensure!(
                filter.ranges.len() == list.least && list.least <= 16,
                "{} ranges, but the minimum is {}",
                filter.ranges.len(),
                list.least
            );
            walk::compare(&filter, list)?;
            Ok(Some(filter.ranges.len()))
        }
        Err(refused) => {
            ensure!(
                list.least > 16,
                "refused, but {} ranges are enough",
                list.least
            );
            ensure!(
                refused.needs == Some(list.least),
                "refused for {:?} ranges, but the minimum is {}",
                refused.needs,
                list.least
            );
            Ok(None)
        }
    }
}

fn prove() -> anyhow::Result<String> {
    let mut lists = Lists::new(SEED);
    let mut random = Random::new(SEED);
    let mut guest = proof::guest()?;
    let (mut proven, mut accesses) = (0, 0);

    while proven < PROVEN {
        let list = lists.next();
        let Ok(filter) = filter::compile(&Rules::from_text(&list.text())?.policy()?) else {
            continue;
        };

        accesses += proof::prove(&mut guest, &filter, &list, &mut random)
            .with_context(|| format!("list of seed {SEED:#x}:\n{}", list.text()))?;
        proven += 1;
    }
    Ok(format!("{proven} filters, {accesses} accesses"))
}

/// The program's output, with the name of its schema.
type Documents = Vec<(&'static str, Value)>;

fn by_program(kvmsr: &Kvmsr, documents: &mut Documents) -> anyhow::Result<String> {
    let mut lists = Lists::new(SEED);
    let mut done = 0;

    while done < BY_PROGRAM {
        let list = lists.next();
        let text = list.text();

        if list.least > 16 {
            let refused = kvmsr.json(&["filter", "compile", "-"], &text, &[1])?;

            ensure!(
                refused.get("needs").and_then(Value::as_u64) == Some(list.least as u64),
                "{refused}"
            );
            documents.push(("filter-refused", refused));
            continue;
        }
        let file = kvmsr.json(&["filter", "compile", "-"], &text, &[0])?;
        let filter = walk::filter(&file).context("compile prints no filter")?;

        ensure!(filter.ranges.len() == list.least, "{file}");
        walk::compare(&filter, &list)?;

        // The filter shows the same as the rules.
        let of_rules = kvmsr.json(&["filter", "show", "-"], &text, &[0])?;
        let of_filter = kvmsr.json(&["filter", "show", "-"], &file.to_string(), &[0])?;

        ensure!(of_rules == of_filter, "{of_rules} and {of_filter}");
        let lint = kvmsr.json(
            &["filter", "lint", "--guest", "other", "-"],
            &file.to_string(),
            &[0, 1],
        )?;
        let found = lint.get("findings").and_then(Value::as_array);

        // The program's own filters have no findings, except for KVM's fastpath.
        ensure!(
            found.is_some_and(|found| found
                .iter()
                .all(|finding| finding.get("kind").and_then(Value::as_str) == Some("fastpath"))),
            "{lint}"
        );
        documents.extend([
            ("filter-compile", file),
            ("filter-show", of_filter),
            ("filter-lint", lint),
        ]);
        done += 1;
    }
    Ok(format!("{done} lists"))
}

fn on_kvm(kvmsr: &Kvmsr, documents: &mut Documents) -> anyhow::Result<String> {
    let mut lists = Lists::new(SEED + 1);
    let list = loop {
        let list = lists.next();

        if (4..=16).contains(&list.least) {
            break list;
        }
    };
    let text = list.text();
    let mut accesses = Vec::new();

    for &index in list.indices().iter().take(24) {
        for index in [index, index + 1] {
            accesses.push(format!("read:{index:#x}"));
            accesses.push(format!("write:{index:#x}=0"));
        }
    }
    let mut arguments = vec!["filter", "test", "--on-kvm", "-"];

    arguments.extend(accesses.iter().map(String::as_str));
    let report = kvmsr.json(&arguments, &text, &[0])?;
    let tested = report
        .get("accesses")
        .and_then(Value::as_array)
        .context("no accesses in the report")?;

    ensure!(tested.len() == accesses.len(), "{report}");
    for (number, (tested, asked)) in tested.iter().zip(&accesses).enumerate() {
        let index = list.indices()[number / 4] + (number / 2 % 2) as u32;
        let access = [Access::Read, Access::Write][number % 2];
        let wanted = Value::from(if list.allows(access, index) {
            "allow"
        } else {
            "deny"
        });
        let proven = tested.pointer("/on_kvm/verdict");

        ensure!(
            tested.get("verdict") == Some(&wanted) && proven == Some(&wanted),
            "{asked} must be {wanted}: {tested}"
        );
    }
    documents.push(("filter-test", report));
    // An unexpected verdict is reported.
    kvmsr.json(
        &["filter", "test", "--expect", "allow", "-", "read:0x10"],
        "default deny",
        &[1],
    )?;
    Ok(format!("{} accesses", accesses.len()))
}

/// KVM performs a write in its fastpath, if it has one, without checking the filter: `test
/// --on-kvm` must report what the plain guest sees.
fn fast_path(kvmsr: &Kvmsr) -> anyhow::Result<String> {
    const TSC_DEADLINE: u32 = 0x6e0;
    let mut guest = proof::guest()?;

    kvm_msr_guest::Filter::deny_by_default()
        .with(kvm_msr_guest::Range::deny(WRITE, TSC_DEADLINE, 1))
        .set(guest.vm())?;
    let outcome = guest.wrmsr(TSC_DEADLINE, 0)?;
    let (verdict, code) = if proof::is_allowed(&outcome)? {
        ("allow", 1)
    } else {
        ("deny", 0)
    };
    let report = kvmsr.json(
        &["filter", "test", "--on-kvm", "-", "write:0x6e0=0"],
        "default deny",
        &[code],
    )?;

    ensure!(
        report.pointer("/accesses/0/on_kvm/verdict") == Some(&Value::from(verdict)),
        "the plain guest's write gave {outcome}: {report}"
    );
    Ok(format!("a denied write: {outcome}"))
}
