// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvm-msr-profile` writes the counters of the loaded kvm-msr.ko to standard output, as a raw
//! profile for `llvm-profdata merge`.
//!
//! The module has to be built with `-Cinstrument-coverage`. In a process, LLVM's runtime library
//! would write the profile at exit; a module has none, so its memory is read from outside.

mod memory;
mod profile;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use object::Object;
use object::ObjectSection;

use crate::memory::KernelMemory;
use crate::profile::Profile;
use crate::profile::Section;

/// Writes the counters of kvm-msr.ko, built with coverage, as a raw LLVM profile
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The module's file, which has the sizes of its sections
    #[arg(long, default_value = "/lib/modules/kvm-msr.ko")]
    module: PathBuf,
    /// The module's name in /sys/module, where the addresses are
    #[arg(long, default_value = "kvm_msr")]
    name: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let path = &arguments.module;
    let image = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let file = object::File::parse(&*image).context("parse the module")?;
    let memory = KernelMemory::open()?;

    let section = |name: &str| -> Result<Section> {
        let size = file
            .section_by_name(name)
            .with_context(|| format!("the module has no {name}: it is built without coverage"))?
            .size();
        let address = address(&arguments.name, name)?;

        Ok(Section {
            address,
            bytes: memory
                .read(address, size)
                .with_context(|| name.to_owned())?,
        })
    };
    let profile = Profile {
        data: section("__llvm_prf_data")?,
        counters: section("__llvm_prf_cnts")?,
        names: section("__llvm_prf_names")?,
    };
    std::io::stdout().write_all(&profile.to_bytes()?)?;
    Ok(())
}

/// Where a section of a module was loaded. Only root can read this.
fn address(module: &str, section: &str) -> Result<u64> {
    let path = format!("/sys/module/{module}/sections/{section}");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;

    u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).context(path)
}
