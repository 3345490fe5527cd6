// SPDX-License-Identifier: GPL-2.0

//! Prints what `make registers` writes: `Documentation/register-reference.rst`, or with `json` as
//! its argument `tools/kvmsr/data/registers.json`.
//!
//! An example, as the programs of this workspace all go into the VM, where this one has no use.

use std::process::ExitCode;

use engine_host::reference;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);

    match argument.as_deref() {
        None => print!("{}", reference::text()),
        Some("json") => print!("{}", reference::data::json()),
        Some(other) => {
            eprintln!("'{other}' is not known: give json, or nothing");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
