// SPDX-License-Identifier: GPL-2.0

//! The declarations of the table, for every MSR: a new MSR is tested automatically.

use super::model::{
    Effect,
    Features,
    Owner,
    Vcpu,
    ANSWER,
    NOTHING,
    TSC_DEADLINE,
    WALL_CLOCK,
    XFD, //
};
use super::{
    holds_for_all,
    BOTH,
    VENDORS, //
};
use crate::engine::{
    access::{
        self,
        read,
        read_common,
        read_existing,
        write,
        write_common,
        write_existing,
        write_unchecked,
        Access, //
        Initiator,
    },
    cpu::Report,
    exit::{
        self,
        INVALID,
        UNSUPPORTED, //
    },
    registers::{
        lookup,
        Field,
        Permission,
        PreCheck,
        Read,
        Register,
        Vendor,
        Write, //
    },
};
use kernel::prelude::kunit_tests;

const VALUES: [u64; 4] = [u64::MAX, 0x8000_0001_0000_0002, 1, 0];

/// An address that is not canonical, with 48 or 57 bits, and the same address sign-extended.
const NOT_CANONICAL: [(u32, u64, u64); 2] = [(48, 1 << 47, !0 << 47), (57, 1 << 56, !0 << 56)];

/// Whether the guest has permission, on a vCPU with all features.
fn lets_guests_in(permission: Permission) -> bool {
    !matches!(
        permission,
        Permission::Host | Permission::Smm | Permission::HostFeature(_)
    )
}

/// Whether a read has no effect, and returns the expected value.
fn is_mere_read(vcpu: &Vcpu, index: u32, initiator: Initiator, value: u64) -> bool {
    read_common(vcpu, index, initiator) == Ok(value) && vcpu.effects() == NOTHING
}

/// Whether another part of KVM serves a read.
fn is_read_of(vcpu: &Vcpu, index: u32, initiator: Initiator, owner: Owner) -> bool {
    read_common(vcpu, index, initiator) == Ok(ANSWER)
        && vcpu.effects() == [Effect::Read(owner, index)]
}

/// Whether a read follows its declaration. Other files test the kinds that this omits.
fn is_read_as_declared(register: &Register, index: u32, initiator: Initiator) -> bool {
    let mut vcpu = Vcpu::new(Vendor::Intel);

    match register.read {
        Read::Constant(value) => is_mere_read(&vcpu, index, initiator, value),
        Read::Field(field) => Field::ALL.iter().all(|&other| {
            // No other field affects the value.
            vcpu.preset(field, 0x12);
            vcpu.preset(other, 0x13);
            is_mere_read(
                &vcpu,
                index,
                initiator,
                if other == field { 0x13 } else { 0x12 },
            )
        }),
        Read::WallClock => is_mere_read(&vcpu, index, initiator, WALL_CLOCK),
        Read::TscDeadline => is_mere_read(&vcpu, index, initiator, TSC_DEADLINE),
        Read::Xfd => is_mere_read(&vcpu, index, initiator, XFD),
        Read::HyperV => is_read_of(&vcpu, index, initiator, Owner::HyperV(initiator)),
        Read::Mtrr => is_read_of(&vcpu, index, initiator, Owner::Mtrr),
        Read::X2apic => is_read_of(&vcpu, index, initiator, Owner::X2apic),
        Read::Xstate => is_read_of(&vcpu, index, initiator, Owner::Xstate),
        Read::Unsupported | Read::LegacyPmu => {
            let without = match register.read {
                Read::LegacyPmu => Ok(0),
                _ => Err(UNSUPPORTED),
            };
            let lacks =
                read_common(&vcpu, index, initiator) == without && vcpu.effects() == NOTHING;

            vcpu.has_pmu = true;
            lacks && is_read_of(&vcpu, index, initiator, Owner::Pmu(initiator))
        }
        Read::Tsc
        | Read::PlatformInfo
        | Read::Xss
        | Read::MachineCheckCtl
        | Read::MachineCheckBank
        | Read::MachineCheckCtl2 => true,
    }
}

/// Whether a write has this effect and no other.
fn does(
    vcpu: &Vcpu,
    index: u32,
    data: u64,
    initiator: Initiator,
    effects: impl AsRef<[Effect]>,
) -> bool {
    write_common(vcpu, index, data, initiator) == Ok(()) && vcpu.effects() == effects
}

/// Whether a write is denied without any effect.
fn is_refused(
    vcpu: &Vcpu,
    index: u32,
    data: u64,
    initiator: Initiator,
    effects: impl AsRef<[Effect]>,
) -> bool {
    write_common(vcpu, index, data, initiator) == Err(INVALID) && vcpu.effects() == effects
}

/// Whether a write follows its declaration. Other files test the kinds that this omits.
fn is_written_as_declared(
    register: &Register,
    index: u32,
    data: u64,
    initiator: Initiator,
) -> bool {
    let mut vcpu = Vcpu::new(Vendor::Intel);
    let unimplemented = Effect::Unimplemented(index, data);
    let passed_on = |owner| [Effect::Write(owner, index, data)];

    match register.write {
        Write::Ignore => does(&vcpu, index, data, initiator, NOTHING),
        Write::Drop => does(&vcpu, index, data, initiator, [unimplemented]),
        Write::Zero if data == 0 => does(&vcpu, index, data, initiator, NOTHING),
        Write::Zero => is_refused(&vcpu, index, data, initiator, [unimplemented]),
        Write::Field(field) => does(&vcpu, index, data, initiator, [Effect::Field(field, data)]),
        Write::HostField(field) if initiator == Initiator::Host => {
            does(&vcpu, index, data, initiator, [Effect::Field(field, data)])
        }
        Write::HostField(_) => does(&vcpu, index, data, initiator, NOTHING),
        Write::Reserved(field, reserved) => {
            let valid = data & !reserved;

            does(
                &vcpu,
                index,
                valid,
                initiator,
                [Effect::Field(field, valid)],
            ) && (0..64)
                .map(|bit| 1 << bit)
                .filter(|bit| reserved & bit != 0)
                .all(|bit| is_refused(&vcpu, index, valid | bit, initiator, NOTHING))
        }
        Write::HyperV => does(
            &vcpu,
            index,
            data,
            initiator,
            passed_on(Owner::HyperV(initiator)),
        ),
        Write::Mtrr => does(&vcpu, index, data, initiator, passed_on(Owner::Mtrr)),
        Write::X2apic => does(&vcpu, index, data, initiator, passed_on(Owner::X2apic)),
        Write::Xstate => does(&vcpu, index, data, initiator, passed_on(Owner::Xstate)),
        Write::TscDeadline => does(&vcpu, index, data, initiator, [Effect::TscDeadline(data)]),
        Write::WallClock => does(&vcpu, index, data, initiator, [Effect::WallClock(data)]),
        Write::ApicBase => does(
            &vcpu,
            index,
            data,
            initiator,
            [Effect::ApicBase(data, initiator)],
        ),
        Write::PvEoi => does(&vcpu, index, data, initiator, [Effect::PvEoi(data)]),
        Write::Unsupported => {
            let lacks = write_common(&vcpu, index, data, initiator) == Err(UNSUPPORTED)
                && vcpu.effects() == NOTHING;

            vcpu.has_pmu = true;
            lacks
                && does(
                    &vcpu,
                    index,
                    data,
                    initiator,
                    passed_on(Owner::Pmu(initiator)),
                )
        }
        Write::LegacyPmu => {
            let lacks = match data {
                0 => does(&vcpu, index, data, initiator, NOTHING),
                _ => does(&vcpu, index, data, initiator, [unimplemented]),
            };

            vcpu.has_pmu = true;
            lacks
                && does(
                    &vcpu,
                    index,
                    data,
                    initiator,
                    passed_on(Owner::Pmu(initiator)),
                )
        }
        Write::Efer
        | Write::Pat
        | Write::Tsc
        | Write::TscAdjust
        | Write::MiscEnable
        | Write::PerfCapabilities
        | Write::PredCmd
        | Write::FlushCmd
        | Write::Xss
        | Write::Xfd
        | Write::XfdErr
        | Write::Hwcr
        | Write::MiscFeaturesEnables
        | Write::MachineCheckCtl
        | Write::MachineCheckBank
        | Write::MachineCheckCtl2
        | Write::SystemTime { .. }
        | Write::AsyncPfEn
        | Write::AsyncPfInt
        | Write::AsyncPfAck
        | Write::StealTime => true,
    }
}

/// Whether a permission allows and denies as declared, with an access that can't fail for another
/// reason.
fn guards(permission: Permission, access: impl Fn(&Vcpu, Initiator) -> access::Result) -> bool {
    const UNSUPPORTED: access::Result = Err(exit::UNSUPPORTED);
    const INVALID: access::Result = Err(exit::INVALID);

    let all = Vcpu::new(Vendor::Intel);
    let lacking = match permission {
        Permission::Everybody | Permission::Host => all.clone(),
        Permission::Feature(feature)
        | Permission::FeatureElseInvalid(feature)
        | Permission::GuestFeature(feature)
        | Permission::HostFeature(feature) => all.clone().without(feature),
        Permission::Pv(feature) => all.clone().without_pv(feature),
        Permission::Smm => Vcpu {
            has_smm: false,
            ..all.clone()
        },
    };
    // Guest and user space, on a vCPU with the feature, and on one without it.
    let [guest, host, guest_lacking, host_lacking] = match permission {
        Permission::Everybody => return true,
        Permission::Feature(_) | Permission::Pv(_) => [Ok(()), Ok(()), UNSUPPORTED, UNSUPPORTED],
        Permission::FeatureElseInvalid(_) => [Ok(()), Ok(()), INVALID, INVALID],
        Permission::GuestFeature(_) => [Ok(()), Ok(()), INVALID, Ok(())],
        Permission::HostFeature(_) => [UNSUPPORTED, Ok(()), UNSUPPORTED, UNSUPPORTED],
        Permission::Host => [INVALID, Ok(()), INVALID, Ok(())],
        Permission::Smm => [INVALID, Ok(()), INVALID, INVALID],
    };
    let check = |vcpu: &Vcpu, initiator, expected| {
        let result = access(vcpu, initiator);
        let effects = vcpu.effects();

        result == expected && (result.is_ok() || effects == NOTHING)
    };

    check(&all, Initiator::Guest, guest)
        && check(&all, Initiator::Host, host)
        && check(&lacking, Initiator::Guest, guest_lacking)
        && check(&lacking, Initiator::Host, host_lacking)
}

/// Whether the vendor module serves exactly the accesses that are declared for it.
fn is_owned_as_declared(vcpu: &Vcpu, register: &Register, index: u32) -> bool {
    let initiator = Initiator::Host;
    let vendor = vcpu.vendor;
    let reads = register.vendor.reads(vendor)
        || vcpu.is_protected
        || vcpu.is_nested && register.vendor.reads_nested(vendor);
    let writes = register.vendor.writes(vendor) || vcpu.is_protected;

    let _ = read_existing(vcpu, index, initiator);
    let has_read = vcpu.effects() == [Effect::Read(Owner::Vendor(initiator), index)];
    let _ = write_existing(vcpu, index, 0, initiator);
    let has_written = vcpu.effects() == [Effect::Write(Owner::Vendor(initiator), index, 0)];

    has_read == reads && has_written == writes
}

/// vCPUs of both vendors, in L1, in L2, and with encrypted state.
fn states() -> impl Iterator<Item = Vcpu> {
    VENDORS.into_iter().flat_map(|vendor| {
        (0..4).map(move |state| Vcpu {
            is_nested: state & 1 != 0,
            is_protected: state & 2 != 0,
            ..Vcpu::new(vendor)
        })
    })
}

/// Whether `excused` has the result and the effects of `access`, and logs `report` if the MSR is
/// unknown.
fn is_excused<T: PartialEq>(
    vcpu: &Vcpu,
    report: Effect,
    access: impl Fn(&Vcpu) -> access::Result<T>,
    excused: impl Fn(&Vcpu) -> access::Result<T>,
) -> bool {
    // A stored value may affect the next access.
    let [vcpu, same] = [vcpu.clone(), vcpu.clone()];
    let result = access(&vcpu);
    let mut effects = vcpu.effects();

    if result == Err(UNSUPPORTED) {
        effects = effects.and(report);
    }
    excused(&same) == result && same.effects() == effects
}

/// Whether the shortcuts have the same result as the complete path.
fn is_short_way_right(vcpu: &Vcpu, index: u32, initiator: Initiator) -> bool {
    let unhandled = |way, data| Effect::Report(Report::Unhandled(way), index, data);

    is_excused(
        vcpu,
        unhandled(Access::Read, 0),
        |vcpu| read_existing(vcpu, index, initiator),
        |vcpu| read(vcpu, index, initiator),
    ) && VALUES.into_iter().all(|data| {
        is_excused(
            vcpu,
            unhandled(Access::Write, data),
            |vcpu| write_existing(vcpu, index, data, initiator),
            |vcpu| write(vcpu, index, data, initiator),
        ) && is_excused(
            vcpu,
            unhandled(Access::Write, data),
            |vcpu| write_existing(vcpu, index, data, initiator),
            |vcpu| {
                write_unchecked(vcpu, lookup(index), index, data, initiator)
                    .unwrap_or_else(|| write(vcpu, index, data, initiator))
            },
        )
    })
}

/// Whether a check handles addresses that are not canonical.
fn gates_addresses(register: &Register, index: u32, initiator: Initiator) -> bool {
    NOT_CANONICAL.into_iter().all(|(bits, address, canonical)| {
        let vcpu = Vcpu {
            address_bits: bits,
            ..Vcpu::new(Vendor::Intel)
        };
        let takes = |data, stored| {
            write_existing(&vcpu, index, data, initiator) == Ok(())
                && vcpu.effects() == [Effect::Write(Owner::Vendor(initiator), index, stored)]
        };
        let refuses = |data| {
            write_existing(&vcpu, index, data, initiator) == Err(INVALID)
                && vcpu.effects() == NOTHING
        };

        match register.pre_check {
            PreCheck::None | PreCheck::TscAux | PreCheck::Cet => true,
            PreCheck::MakeCanonical => takes(address, canonical),
            PreCheck::Canonical => takes(canonical, canonical) && refuses(address),
            PreCheck::ShadowStackPointer
            | PreCheck::ShadowStackTable
            | PreCheck::GuestShadowStackPointer => refuses(address),
        }
    })
}

/// Whether a check denies vCPUs without the features, even if the vendor module serves the MSR.
fn gates_features(register: &Register, index: u32) -> bool {
    let vcpu = Vcpu {
        features: Features(0),
        is_protected: true,
        ..Vcpu::new(Vendor::Intel)
    };
    let refuses = |initiator, denial| {
        read_existing(&vcpu, index, initiator) == Err(denial)
            && write_existing(&vcpu, index, 0, initiator) == Err(denial)
            && vcpu.effects() == NOTHING
    };

    match register.pre_check {
        PreCheck::None | PreCheck::Canonical | PreCheck::MakeCanonical => true,
        PreCheck::TscAux => refuses(Initiator::Guest, INVALID),
        PreCheck::Cet | PreCheck::ShadowStackPointer | PreCheck::ShadowStackTable => BOTH
            .into_iter()
            .all(|initiator| refuses(initiator, UNSUPPORTED)),
        PreCheck::GuestShadowStackPointer => {
            refuses(Initiator::Guest, INVALID) && refuses(Initiator::Host, UNSUPPORTED)
        }
    }
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
