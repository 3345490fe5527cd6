// SPDX-License-Identifier: GPL-2.0

//! Compiles the files of `rust/engine/`, as in the module, for `cargo test`.
//!
//! The tests compare them with models that are written from the documentation, independently of
//! the implementation. [`reference`] generates documentation from them.

// Cargo does not know an option that the module's build defines.
#[allow(dead_code, unexpected_cfgs)]
#[path = "../../../rust/engine/mod.rs"]
mod engine;
#[cfg(test)]
#[allow(dead_code)]
#[path = "../../../rust/tests/model/mod.rs"]
mod model;
pub mod reference;

#[cfg(test)]
mod access;
#[cfg(test)]
mod exit;
#[cfg(test)]
mod filter;
#[cfg(test)]
mod io;
#[cfg(test)]
mod judged;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod nested;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod registers;
#[cfg(test)]
mod save_list;
