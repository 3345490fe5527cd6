// SPDX-License-Identifier: GPL-2.0

//! Prints the files of `make registers`: `Documentation/register-reference.rst`, with the argument
//! `json` `tools/kvmsr/data/registers.json`, or with `assertions` `rust/kvm/msr_index.rs`.
//!
//! It is an example because the programs of this workspace are copied into the VM, where this one
//! is not needed.

use std::process::ExitCode;

use engine_host::reference;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);

    match argument.as_deref() {
        None => print!("{}", reference::text()),
        Some("assertions") => print!("{}", reference::assertions::text()),
        Some("json") => print!("{}", reference::data::json()),
        Some(other) => {
            eprintln!("'{other}' is unknown: use assertions, json, or no argument");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
