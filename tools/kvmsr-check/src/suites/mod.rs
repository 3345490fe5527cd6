// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The suites, one for each verb that uses KVM.

mod access;
mod check;
mod decode;
mod device;
mod documents;
mod explain;
mod filter;
mod library;
mod live;
mod offline;
mod pages;
mod samples;
mod speed;
mod vmm;

use crate::report::Report;
use crate::run::Kvmsr;

/// A suite.
pub type Suite = fn(&Kvmsr, &mut Report);

/// All suites that need no VMM, by name.
pub const ALL: &[(&str, Suite)] = &[
    ("access", access::run),
    ("check", check::run),
    ("decode", decode::run),
    ("device", device::run),
    ("explain", explain::run),
    ("filter", filter::run),
    ("library", library::run),
    ("live", live::run),
    ("offline", offline::run),
    ("documents", documents::run),
    ("pages", pages::run),
    ("samples", samples::run),
    ("speed", speed::run),
];

/// The suites with an unmodified VMM.
pub const VMM: &[(&str, Suite)] = &[("attach", vmm::attach), ("boot", vmm::boot)];
