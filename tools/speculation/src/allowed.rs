// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The gadgets that somebody has looked at, with the reason why each can stay.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde::Deserialize;

/// A function's gadgets that can stay.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// The function's name.
    pub function: String,
    /// How many: with one more, or one less, somebody has to look again.
    pub gadgets: usize,
    /// Why they can stay.
    pub reason: String,
}

/// Reads a list.
pub fn read(text: &str) -> Result<Vec<Allowed>> {
    let list: Vec<Allowed> = serde_json::from_str(text).context("it is no list of functions")?;

    for entry in &list {
        ensure!(!entry.reason.is_empty(), "{} has no reason", entry.function);
        ensure!(entry.gadgets != 0, "{} has no gadgets", entry.function);
    }
    Ok(list)
}
