// SPDX-License-Identifier: GPL-2.0

//! Prints `Documentation/register-reference.rst`, for `make registers`.
//!
//! An example, as the programs of this workspace all go into the VM, where this one has no use.

fn main() {
    print!("{}", engine_host::reference::text());
}
