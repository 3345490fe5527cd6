// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Looks for Spectre v1 gadgets in the object code of kvm-msr.ko: accesses to memory at an address
//! that depends on an index which a guest or user may choose, and which only a branch keeps in
//! bounds. `Documentation/speculation.rst` says how.

pub mod allowed;
pub mod condition;
pub mod flow;
pub mod gadget;
pub mod image;
pub mod operand;
pub mod range;
pub mod state;
pub mod step;
pub mod value;
