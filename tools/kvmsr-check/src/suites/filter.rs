// SPDX-License-Identifier: Apache-2.0 OR MIT

//! To be written.

use crate::report::Report;
use crate::run::Kvmsr;

/// Runs the tests.
pub fn run(_kvmsr: &Kvmsr, _report: &mut Report) {}
