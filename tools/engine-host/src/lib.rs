// SPDX-License-Identifier: GPL-2.0

//! The files of `rust/engine/`, as the module has them, for `cargo test`.
//!
//! The tests know nothing of how the engine does it: they compare it with models that are
//! written from the documentation. And [`reference`], documentation that is written from them.

#[allow(dead_code)]
#[path = "../../../rust/engine/mod.rs"]
mod engine;
pub mod reference;

#[cfg(test)]
mod exit;
#[cfg(test)]
mod filter;
#[cfg(test)]
mod io;
#[cfg(test)]
mod registers;
