// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests how many bits of a vCPU's state `decode` can name.

use anyhow::Context;
use anyhow::ensure;
use kvmsr::number::Bits;
use kvmsr::number::parse_u64;
use serde_json::Value;

use crate::report::Report;
use crate::run::Kvmsr;

/// The minimum share of set bits that have a name, in percent.
const LEAST: u32 = 95;

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    report.test("most set bits of a snapshot have names", || {
        let snapshot = kvmsr.json(&["snapshot"], "", &[0])?;
        let decoded = kvmsr.json(&["decode"], &snapshot.to_string(), &[0, 1])?;
        let msrs = decoded["msrs"].as_array().context("no msrs")?;
        let saved = snapshot["msrs"].as_array().context("no msrs")?;
        let (mut named, mut set) = (0, 0);

        ensure!(
            msrs.len() >= saved.len(),
            "{} MSRs of {} are decoded",
            msrs.len(),
            saved.len()
        );
        for msr in msrs {
            let value = number(&msr["value"])?;
            let mut names = 0;

            for field in msr["fields"].as_array().context("no fields")? {
                names |= text(&field["bits"])?.parse::<Bits>()?.mask();
            }
            named += (value & names).count_ones();
            set += value.count_ones();
        }
        ensure!(set >= 20, "only {set} bits are set");
        ensure!(
            named * 100 >= set * LEAST,
            "{named} of {set} bits have names"
        );
        Ok(format!("{named} of {set} bits"))
    });
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().context("not a string")
}

fn number(value: &Value) -> anyhow::Result<u64> {
    Ok(parse_u64(text(value)?)?)
}
