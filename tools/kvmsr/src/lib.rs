// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What KVM does with model-specific registers, for VMM authors and for those who run guests.
//!
//! - [`state`] saves and restores a vCPU's MSRs: the complete list, in an order that works, any
//!   number of entries, and for each entry what became of it.
//! - [`catalogue`] knows the names of MSRs, their bit fields, and KVM's rules for them. It needs
//!   no KVM. [`explain`] and [`decode`] put it in words.
//! - [`filter`] turns what to allow or deny into as few ranges of `KVM_X86_SET_MSR_FILTER` as
//!   there can be, and says what a filter does.
//! - [`snapshot`], [`check`], [`compat`] and [`diff`] compare what vCPUs have, and what hosts
//!   take; [`formats`] reads what other VMMs write.
//! - [`scratch`] is a VM to try things on.
//!
//! The program `kvmsr` is made of these.

#![deny(unsafe_code)]

/// Has the examples of the README tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod access;
pub mod arguments;
pub mod bench;
pub mod catalogue;
pub mod check;
pub mod compat;
pub mod cpu_file;
pub mod cpuid;
pub mod decode;
pub mod diff;
pub mod doctor;
pub mod error;
pub mod explain;
pub mod filter;
pub mod formats;
pub mod input;
pub mod ioctl;
pub mod list;
pub mod number;
pub mod probe;
pub mod scratch;
pub mod snapshot;
pub mod state;
pub mod trace;

pub use error::Error;
pub use error::Result;
