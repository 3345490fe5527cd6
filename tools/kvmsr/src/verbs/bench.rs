// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr bench`

use anyhow::bail;

use crate::Common;
use crate::output::Output;
use crate::verbs::Found;

/// The command line.
#[derive(Debug, clap::Args)]
pub struct Options {}

/// Does it.
pub fn run(_options: &Options, _common: &Common, _output: &mut Output) -> anyhow::Result<Found> {
    bail!("to be written")
}
