// SPDX-License-Identifier: GPL-2.0

//! KUnit tests, which run when the module is loaded.
//!
//! They need no VM: the tests apply the rules to the vCPU and the host of [`model`].

mod amd;
mod apic;
mod capabilities;
mod cet;
mod constants;
mod efer;
mod exit;
mod filter;
mod io;
mod lists;
mod machine_check;
mod model;
mod nested;
mod paravirtual;
mod passed_on;
mod policy;
mod probed;
mod save_list;
mod speculation;
mod stats;
mod stored;
mod table;
mod time;
mod unknown;
mod xsave;

use crate::{
    engine::{
        access::Initiator,
        registers::{
            lookup,
            Register,
            Vendor,
            REGISTERS, //
        },
    },
    kvm::Registration,
    OPS, //
};
use core::ptr;
use kernel::prelude::*;

const BOTH: [Initiator; 2] = [Initiator::Guest, Initiator::Host];
const VENDORS: [Vendor; 2] = [Vendor::Amd, Vendor::Intel];

/// Checks all declared MSRs, at each index. It logs the MSRs that fail, as the message of an
/// assertion does not name them.
fn holds_for_all(check: impl Fn(&Register, u32) -> bool) -> bool {
    let mut holds = true;
    let declared = REGISTERS
        .iter()
        .filter(|register| !register.name.is_empty())
        .flat_map(|register| (register.first..=register.last).map(move |index| (register, index)))
        // Another declaration may override this index of a range.
        .filter(|&(register, index)| ptr::eq(register, lookup(index)));

    for (register, index) in declared {
        if !check(register, index) {
            pr_err!("fails for {:#x}, {}\n", index, register.name);
            holds = false;
        }
    }
    holds
}

#[kunit_tests(kvm_msr_registration)]
mod registration {
    use super::*;

    #[test]
    fn a_second_engine_is_busy() {
        // The first reference is the module's own.
        assert_eq!(Registration::new(OPS).err(), Some(EBUSY));
    }
}
