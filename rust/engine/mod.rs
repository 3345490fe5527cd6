// SPDX-License-Identifier: GPL-2.0

//! The rules of KVM's MSR interface, without the kernel.
//!
//! Everything here is a function of its arguments: it neither allocates, nor locks, nor reads
//! user memory, and it knows no kernel type. So the same files are built by cargo on the host,
//! where they are tested against independent models (`make host-test`).

#![forbid(unsafe_code)]

pub(crate) mod access;
pub(crate) mod cpu;
pub(crate) mod error;
pub(crate) mod exit;
pub(crate) mod filter;
pub(crate) mod io;
pub(crate) mod lists;
pub(crate) mod nested;
pub(crate) mod one_reg;
pub(crate) mod registers;
