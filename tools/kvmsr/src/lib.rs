// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The model-specific registers of KVM guests, for VMM authors and for people who run guests.
//!
//! - [`state`] saves and restores a vCPU's MSRs: the complete list, in an order that works, any
//!   number of entries, with a status for each.
//! - [`catalogue`] has the names of MSRs, their bit fields, and KVM's rules for them. It needs no
//!   KVM. [`explain`] and [`decode`] describe them in text.
//! - [`filter`] turns rules into the minimum number of ranges for `KVM_X86_SET_MSR_FILTER`, and
//!   describes what a filter does.
//! - [`snapshot`], [`check`], [`compat`] and [`diff`] compare vCPUs, and what hosts accept;
//!   [`formats`] reads the files of other VMMs.
//! - [`scratch`] is a VM to try things on.
//! - [`device`] is `/dev/kvm-msr`, the device of `kvm-msr.ko`: a [`policy`] for a VM, what its guest
//!   accesses ([`learned`]), [`stats`], and the registers of a VM of another process.
//!
//! The program `kvmsr` is built on these modules.

#![deny(unsafe_code)]

/// Runs the examples of the README as tests.
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
pub mod device;
pub mod diff;
pub mod doctor;
pub mod error;
pub mod explain;
pub mod filter;
pub mod formats;
pub mod input;
pub mod ioctl;
pub mod learned;
pub mod list;
pub mod number;
pub mod policy;
pub mod probe;
pub mod running;
pub mod scratch;
pub mod snapshot;
pub mod state;
pub mod stats;
pub mod trace;

pub use error::Error;
pub use error::Result;
