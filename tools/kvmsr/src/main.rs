// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr`: the MSRs of KVM guests, explained, checked, compared and counted.

#![forbid(unsafe_code)]

mod output;
mod verbs;

use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::output::Colour;
use crate::output::Output;

/// Explains, checks, compares and counts the MSRs of KVM guests.
///
/// explain, decode, diff, compat and filter need no KVM. The others need /dev/kvm; top and log need
/// root, to trace.
#[derive(Debug, Parser)]
#[command(
    name = "kvmsr",
    version,
    after_help = "Exit code: 0 success; 1 something differs, is refused or was found; 2 error."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: verbs::Verb,
}

/// Options of every verb.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Print JSON, for programs; the schemas are in Documentation/kvmsr
    #[arg(long, global = true)]
    json: bool,
    /// When to use colour; NO_COLOR in the environment means never
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Colour,
    /// KVM's device
    #[arg(long, global = true, default_value = kvmsr::scratch::DEVICE, value_name = "FILE")]
    device: PathBuf,
}

fn main() -> ExitCode {
    // Scripts call this often, and should not wait until the whole command line is built.
    if std::env::args_os().skip(1).eq(["--version"]) {
        return match writeln!(io::stdout(), "kvmsr {}", env!("CARGO_PKG_VERSION")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(2),
        };
    }
    let cli = Cli::parse();
    let mut output = Output::new(&cli.common);

    match verbs::run(cli.verb, &cli.common, &mut output) {
        Ok(found) => ExitCode::from(u8::from(found == verbs::Found::Something)),
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(2)
        }
    }
}
