// SPDX-License-Identifier: Apache-2.0 OR MIT

//! An unmodified QEMU, to whose VM `kvmsr` and this process attach while its guest runs.

mod attach;
mod boot;
mod kill;
mod qemu;
mod rom;
mod usage;

pub use attach::run as attach;
pub use boot::run as boot;
