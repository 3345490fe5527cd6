// SPDX-License-Identifier: GPL-2.0

//! The declarations of the table, for every MSR: a new MSR is tested automatically.

mod checks;
mod reads;
mod routes;
mod writes;

use self::{
    checks::{
        gates_addresses,
        gates_features,
        guards, //
    },
    reads::is_read_as_declared,
    routes::{
        is_owned_as_declared,
        is_short_way_right,
        states, //
    },
    writes::is_written_as_declared,
};
use super::{
    holds_for_all,
    model::{
        Features,
        Vcpu, //
    },
    BOTH,
};
use crate::engine::{
    access::{
        read_common,
        write_common,
        Initiator, //
    },
    exit::UNSUPPORTED,
    registers::{
        Permission,
        Read,
        Register,
        Vendor,
        Write, //
    },
};
use kernel::prelude::kunit_tests;

const VALUES: [u64; 4] = [u64::MAX, 0x8000_0001_0000_0002, 1, 0];

/// Whether the guest has permission, on a vCPU with all features.
fn lets_guests_in(permission: Permission) -> bool {
    !matches!(
        permission,
        Permission::Host | Permission::Smm | Permission::HostFeature(_)
    )
}

/// Whether a read returns the value that was written.
fn is_stored(register: &Register, index: u32) -> bool {
    let vcpu = Vcpu::new(Vendor::Intel);

    match (register.read, register.write) {
        (Read::Field(_), Write::Field(_)) => VALUES.into_iter().all(|data| {
            write_common(&vcpu, index, data, Initiator::Host) == Ok(())
                && read_common(&vcpu, index, Initiator::Host) == Ok(data)
        }),
        _ => true,
    }
}

#[kunit_tests(kvm_msr_table)]
mod cases {
    use super::*;

    #[test]
    fn reads_do_what_is_declared() {
        for initiator in BOTH {
            assert!(holds_for_all(|register, index| {
                initiator == Initiator::Guest && !lets_guests_in(register.read_permission)
                    || is_read_as_declared(register, index, initiator)
            }));
        }
    }

    #[test]
    fn writes_do_what_is_declared() {
        for initiator in BOTH {
            for data in VALUES {
                assert!(holds_for_all(|register, index| {
                    initiator == Initiator::Guest && !lets_guests_in(register.write_permission)
                        || is_written_as_declared(register, index, data, initiator)
                }));
            }
        }
    }

    #[test]
    fn what_is_stored_is_read() {
        assert!(holds_for_all(is_stored));
    }

    #[test]
    fn guards_keep_out() {
        assert!(holds_for_all(|register, index| {
            guards(register.read_permission, |vcpu, initiator| {
                read_common(vcpu, index, initiator).map(|_| ())
            })
        }));
        assert!(holds_for_all(|register, index| {
            guards(register.write_permission, |vcpu, initiator| {
                write_common(vcpu, index, 0, initiator)
            })
        }));
    }

    #[test]
    fn gates_check_addresses() {
        for initiator in BOTH {
            assert!(holds_for_all(|register, index| gates_addresses(
                register, index, initiator
            )));
        }
    }

    #[test]
    fn gates_check_features() {
        assert!(holds_for_all(gates_features));
    }

    #[test]
    fn vendor_modules_have_what_is_theirs() {
        for vcpu in states() {
            assert!(holds_for_all(|register, index| is_owned_as_declared(
                &vcpu, register, index
            )));
        }
    }

    #[test]
    fn short_ways_lead_where_the_careful_one_does() {
        for all in states() {
            let refused = Vcpu {
                answer: Err(UNSUPPORTED),
                has_pmu: true,
                ..all.clone()
            };
            let bare = Vcpu {
                features: Features(0),
                pv: 0,
                can_switch_tsc_aux: false,
                ..all.clone()
            };

            for vcpu in [all, refused, bare] {
                for initiator in BOTH {
                    assert!(holds_for_all(|_, index| is_short_way_right(
                        &vcpu, index, initiator
                    )));
                }
            }
        }
    }
}
