// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Converts the tables of `data/` to arrays, so that the program does not parse them.

#[path = "build/literal.rs"]
mod literal;
#[path = "build/msrs.rs"]
mod msrs;
#[path = "build/names.rs"]
mod names;
#[path = "build/rows.rs"]
mod rows;
#[path = "build/rules.rs"]
mod rules;
#[path = "src/catalogue/spelling.rs"]
mod spelling;

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=data");
    println!("cargo::rerun-if-changed=src/catalogue/spelling.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let msrs = msrs::read()?;
    let rules = rules::read()?;

    fs::write(
        out.join("catalogue.rs"),
        [
            msrs::arrays(&msrs),
            rules.arrays()?,
            names::array(&msrs, &rules),
        ]
        .concat(),
    )?;
    Ok(())
}
