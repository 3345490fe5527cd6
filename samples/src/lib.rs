// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the samples share. To copy a sample, copy the modules that it uses.

pub mod debugfs;
pub mod guest;
pub mod memory;
pub mod msrs;
