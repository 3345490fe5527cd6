// SPDX-License-Identifier: GPL-2.0

//! The files of `rust/engine/`, as the module has them, for `cargo test`.
//!
//! The tests know nothing of how the engine does it: they compare it with models that are
//! written from the documentation. And [`reference`], documentation that is written from them.

// The module's build knows an option that cargo doesn't.
#[allow(dead_code, unexpected_cfgs)]
#[path = "../../../rust/engine/mod.rs"]
mod engine;
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
mod lists;
#[cfg(test)]
mod nested;
#[cfg(test)]
mod registers;
