// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A small KVM guest that makes MSR accesses on demand, and the MSR ioctls.
//!
//! The guest is 32-bit protected mode code of a few bytes ([`code`]). The VMM ([`Guest`]) points
//! the vCPU at one of its stubs, sets ECX and EDX:EAX, and runs it until the access has an
//! [`Outcome`]: a value, `#GP`, or an exit to user space, which the caller answers.
//!
//! [`filter`] and [`ioctl`] make the MSR ioctls without checks, including malformed calls and the
//! 32-bit compat forms that a safe wrapper would not allow; [`device`] does so for `/dev/kvm-msr`.
//! [`engine`] selects the engine that serves a new VM, and reads its files in debugfs.

pub mod code;
pub mod device;
pub mod engine;
pub mod filter;
pub mod ioctl;
pub mod kcov;
mod layout;
pub mod memory;
pub mod msrs;
pub mod nested;
pub mod outcome;
mod random;
pub mod run;
pub mod vm;
pub mod watchdog;

pub use device::Device;
pub use engine::Engine;
pub use engine::VmFolder;
pub use filter::Filter;
pub use filter::Range;
pub use ioctl::Abi;
pub use ioctl::Errno;
pub use memory::Mapping;
pub use memory::UserPtr;
pub use outcome::Access;
pub use outcome::MsrExit;
pub use outcome::Outcome;
pub use random::Random;
pub use vm::Cpuid;
pub use vm::Guest;
pub use vm::Options;
pub use watchdog::Watchdog;
