// SPDX-License-Identifier: GPL-2.0

//! Generates `rust/kvm/msr_index.rs`: assertions that the kernel's headers give the declared names
//! to the declared indices.

use crate::engine::registers::{Register, REGISTERS};
use std::fmt::Write as _;

/// Names of several MSRs that the headers have no constant for.
const NOT_IN_HEADERS: [&str; 2] = ["HV_X64", "MTRRphysBase0"];

/// The text before the first assertion.
const HEAD: &str = "\
// SPDX-License-Identifier: GPL-2.0

//! The names of the register table, by the kernel's headers. Generated from
//! `rust/engine/registers/table.rs` by `make registers`. Do not edit.

use crate::bindings::*;

#[rustfmt::skip]
const _: () = {
";

/// The index according to the headers, as a Rust expression.
fn expression(register: &Register) -> String {
    let name = register.name;

    if let Some(rest) = name.strip_prefix("HV_X64_") {
        return format!("HV_X64_MSR_{rest}");
    }
    if name == "APIC_BASE_MSR" {
        return name.to_owned();
    }
    // The headers only have the first counter, and add the number of another.
    for first in ["ARCH_PERFMON_PERFCTR", "ARCH_PERFMON_EVENTSEL"] {
        if let Some(number) = name.strip_prefix(first).filter(|number| *number != "0") {
            return format!("MSR_{first}0 + {number}");
        }
    }
    format!("MSR_{name}")
}

/// The whole file.
pub fn text() -> String {
    let mut text = HEAD.to_owned();
    let named = REGISTERS
        .iter()
        .filter(|register| !register.name.is_empty() && !NOT_IN_HEADERS.contains(&register.name));

    for register in named {
        let expression = expression(register);
        let first = register.first;

        // KVM has Hyper-V's debugger only in its own header for Hyper-V.
        let condition = match expression.contains("_SYNDBG_") {
            true => "#[cfg(CONFIG_KVM_HYPERV)] ",
            false => "",
        };

        // A string takes any amount of text.
        let _ = writeln!(text, "    {condition}assert!({expression} == {first:#x});");
    }
    text + "};\n"
}
