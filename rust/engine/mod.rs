// SPDX-License-Identifier: GPL-2.0

//! The rules of KVM's MSR interface, without the kernel.
//!
//! The code here depends only on its arguments: it does not allocate memory, take locks or access
//! user memory, and it uses no kernel types. So cargo can build the same files on the host and test
//! them against independent models (`make host-test`).

#![forbid(unsafe_code)]

pub(crate) mod access;
pub(crate) mod cpu;
pub(crate) mod exit;
pub(crate) mod filter;
pub(crate) mod learn;
pub(crate) mod lists;
pub(crate) mod nested;
pub(crate) mod one_reg;
pub(crate) mod policy;
pub(crate) mod registers;
pub(crate) mod request;
pub(crate) mod save_list;
pub(crate) mod stats;
