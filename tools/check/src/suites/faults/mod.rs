// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Allocations, copies from and to user space, and functions of KVM that fail on demand. This needs
//! the options of `tools/kernel/configs/faults.config`.

pub mod copies;
mod each;
pub mod functions;
mod injector;

pub use self::each::Call;
pub use self::each::Faults;
pub use self::each::each_fails;
pub use self::injector::possible;
