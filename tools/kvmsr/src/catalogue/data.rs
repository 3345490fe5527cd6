// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The tables of `data/`, as `build.rs` puts them.

use super::Feature;
use super::Field;
use super::Initiator;
use super::Msr;
use super::Owner;
use super::When;
use super::rules::Access;
use super::rules::Check;
use super::rules::FeatureMsr;
use super::rules::List;
use super::rules::Needs;
use super::rules::Otherwise;
use super::rules::Rule;
use super::rules::Served;
use super::rules::Server;
use super::rules::Way;
use super::rules::Words;
use crate::cpuid::Register;
use crate::cpuid::Vendor;
use crate::number::Bits;

/// A row of `vendor_rules.csv`.
pub(super) struct OfModule {
    pub(super) first: u32,
    pub(super) last: u32,
    /// Bits that no write may have set, apart from what the check says.
    pub(super) reserved: u64,
    /// What the check can't say.
    pub(super) words: &'static str,
    pub(super) check: Check,
}

include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));
