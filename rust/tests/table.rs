// SPDX-License-Identifier: GPL-2.0

//! What the table declares, of every MSR in it: these tests have a new one by themselves.

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
        read_excused,
        write,
        write_common,
        write_excused,
        By,
        Report,
        Way, //
    },
    exit::{
        self,
        INVALID,
        UNSUPPORTED, //
    },
    model::{
        Effect,
        Features,
        Owner,
        Vcpu,
        ANSWER,
        NOTHING,
        TSC_DEADLINE,
        WALL_CLOCK,
        XFD, //
    },
    registers::{
        Field,
        Gate,
        Guard,
        Read,
        Register,
        Vendor,
        Write, //
    },
};
use kernel::prelude::kunit_tests;

const VALUES: [u64; 4] = [u64::MAX, 0x8000_0001_0000_0002, 1, 0];

/// An address that is not canonical, with 48 bits or 57, and what becomes of it if it is made so.
const NOT_CANONICAL: [(u32, u64, u64); 2] = [(48, 1 << 47, !0 << 47), (57, 1 << 56, !0 << 56)];

/// Whether guests are let in, of vCPUs that have all there is.
fn lets_guests_in(guard: Guard) -> bool {
    !matches!(guard, Guard::Host | Guard::Smm | Guard::HostFeature(_))
}

/// Whether a read does nothing, and returns what it should.
fn is_mere_read(vcpu: &Vcpu, index: u32, by: By, value: u64) -> bool {
    read_common(vcpu, index, by) == Ok(value) && vcpu.effects() == NOTHING
}

/// Whether a read is somebody else's.
fn is_read_of(vcpu: &Vcpu, index: u32, by: By, owner: Owner) -> bool {
    read_common(vcpu, index, by) == Ok(ANSWER) && vcpu.effects() == [Effect::Read(owner, index)]
}

/// Whether a read does what is declared, unless its family's tests tell.
fn is_read_as_declared(register: &Register, index: u32, by: By) -> bool {
    let mut vcpu = Vcpu::new(Vendor::Intel);

    match register.read {
        Read::Constant(value) => is_mere_read(&vcpu, index, by, value),
        Read::Field(field) => Field::ALL.iter().all(|&other| {
            // Of no other field.
            vcpu.preset(field, 0x12);
            vcpu.preset(other, 0x13);
            is_mere_read(&vcpu, index, by, if other == field { 0x13 } else { 0x12 })
        }),
        Read::WallClock => is_mere_read(&vcpu, index, by, WALL_CLOCK),
        Read::TscDeadline => is_mere_read(&vcpu, index, by, TSC_DEADLINE),
        Read::Xfd => is_mere_read(&vcpu, index, by, XFD),
        Read::HyperV => is_read_of(&vcpu, index, by, Owner::HyperV(by)),
        Read::Mtrr => is_read_of(&vcpu, index, by, Owner::Mtrr),
        Read::X2apic => is_read_of(&vcpu, index, by, Owner::X2apic),
        Read::Xstate => is_read_of(&vcpu, index, by, Owner::Xstate),
        Read::Unsupported | Read::LegacyPmu => {
            let without = match register.read {
                Read::LegacyPmu => Ok(0),
                _ => Err(UNSUPPORTED),
            };
            let lacks = read_common(&vcpu, index, by) == without && vcpu.effects() == NOTHING;

            vcpu.has_pmu = true;
            lacks && is_read_of(&vcpu, index, by, Owner::Pmu(by))
        }
        Read::Tsc
        | Read::PlatformInfo
        | Read::Xss
        | Read::MachineCheckCtl
        | Read::MachineCheckBank
        | Read::MachineCheckCtl2 => true,
    }
}

/// Whether a write does this and nothing else.
fn does(vcpu: &Vcpu, index: u32, data: u64, by: By, effects: impl AsRef<[Effect]>) -> bool {
    write_common(vcpu, index, data, by) == Ok(()) && vcpu.effects() == effects
}

/// The same of writes that are refused.
fn is_refused(vcpu: &Vcpu, index: u32, data: u64, by: By, effects: impl AsRef<[Effect]>) -> bool {
    write_common(vcpu, index, data, by) == Err(INVALID) && vcpu.effects() == effects
}

/// Whether a write does what is declared, unless its family's tests tell.
fn is_written_as_declared(register: &Register, index: u32, data: u64, by: By) -> bool {
    let mut vcpu = Vcpu::new(Vendor::Intel);
    let unimplemented = Effect::Unimplemented(index, data);
    let passed_on = |owner| [Effect::Write(owner, index, data)];

    match register.write {
        Write::Ignore => does(&vcpu, index, data, by, NOTHING),
        Write::Drop => does(&vcpu, index, data, by, [unimplemented]),
        Write::Zero if data == 0 => does(&vcpu, index, data, by, NOTHING),
        Write::Zero => is_refused(&vcpu, index, data, by, [unimplemented]),
        Write::Field(field) => does(&vcpu, index, data, by, [Effect::Field(field, data)]),
        Write::HostField(field) if by == By::Host => {
            does(&vcpu, index, data, by, [Effect::Field(field, data)])
        }
        Write::HostField(_) => does(&vcpu, index, data, by, NOTHING),
        Write::Reserved(field, reserved) => {
            let valid = data & !reserved;

            does(&vcpu, index, valid, by, [Effect::Field(field, valid)])
                && (0..64)
                    .map(|bit| 1 << bit)
                    .filter(|bit| reserved & bit != 0)
                    .all(|bit| is_refused(&vcpu, index, valid | bit, by, NOTHING))
        }
        Write::HyperV => does(&vcpu, index, data, by, passed_on(Owner::HyperV(by))),
        Write::Mtrr => does(&vcpu, index, data, by, passed_on(Owner::Mtrr)),
        Write::X2apic => does(&vcpu, index, data, by, passed_on(Owner::X2apic)),
        Write::Xstate => does(&vcpu, index, data, by, passed_on(Owner::Xstate)),
        Write::TscDeadline => does(&vcpu, index, data, by, [Effect::TscDeadline(data)]),
        Write::WallClock => does(&vcpu, index, data, by, [Effect::WallClock(data)]),
        Write::ApicBase => does(&vcpu, index, data, by, [Effect::ApicBase(data, by)]),
        Write::PvEoi => does(&vcpu, index, data, by, [Effect::PvEoi(data)]),
        Write::Unsupported => {
            let lacks = write_common(&vcpu, index, data, by) == Err(UNSUPPORTED)
                && vcpu.effects() == NOTHING;

            vcpu.has_pmu = true;
            lacks && does(&vcpu, index, data, by, passed_on(Owner::Pmu(by)))
        }
        Write::LegacyPmu => {
            let lacks = match data {
                0 => does(&vcpu, index, data, by, NOTHING),
                _ => does(&vcpu, index, data, by, [unimplemented]),
            };

            vcpu.has_pmu = true;
            lacks && does(&vcpu, index, data, by, passed_on(Owner::Pmu(by)))
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

/// Whether a guard lets in and keeps out whom it should, by an access that has no other reason to
/// fail.
fn guards(guard: Guard, access: impl Fn(&Vcpu, By) -> access::Result) -> bool {
    const UNSUPPORTED: access::Result = Err(exit::UNSUPPORTED);
    const INVALID: access::Result = Err(exit::INVALID);

    let all = Vcpu::new(Vendor::Intel);
    let lacking = match guard {
        Guard::None | Guard::Host => all.clone(),
        Guard::Feature(feature)
        | Guard::FeatureElseInvalid(feature)
        | Guard::GuestFeature(feature)
        | Guard::HostFeature(feature) => all.clone().without(feature),
        Guard::Pv(feature) => all.clone().without_pv(feature),
        Guard::Smm => Vcpu {
            has_smm: false,
            ..all.clone()
        },
    };
    // The guest and user space, of a vCPU that has what is asked for, and of one that lacks it.
    let [guest, host, guest_lacking, host_lacking] = match guard {
        Guard::None => return true,
        Guard::Feature(_) | Guard::Pv(_) => [Ok(()), Ok(()), UNSUPPORTED, UNSUPPORTED],
        Guard::FeatureElseInvalid(_) => [Ok(()), Ok(()), INVALID, INVALID],
        Guard::GuestFeature(_) => [Ok(()), Ok(()), INVALID, Ok(())],
        Guard::HostFeature(_) => [UNSUPPORTED, Ok(()), UNSUPPORTED, UNSUPPORTED],
        Guard::Host => [INVALID, Ok(()), INVALID, Ok(())],
        Guard::Smm => [INVALID, Ok(()), INVALID, INVALID],
    };
    let check = |vcpu: &Vcpu, by, expected| {
        let result = access(vcpu, by);
        let effects = vcpu.effects();

        result == expected && (result.is_ok() || effects == NOTHING)
    };

    check(&all, By::Guest, guest)
        && check(&all, By::Host, host)
        && check(&lacking, By::Guest, guest_lacking)
        && check(&lacking, By::Host, host_lacking)
}

/// Whether the vendor module has those accesses, and no others, that are declared as its.
fn is_owned_as_declared(vcpu: &Vcpu, register: &Register, index: u32) -> bool {
    let by = By::Host;
    let vendor = vcpu.vendor;
    let reads = register.vendor.reads(vendor)
        || vcpu.is_protected
        || vcpu.is_nested && register.vendor.reads_nested(vendor);
    let writes = register.vendor.writes(vendor) || vcpu.is_protected;

    let _ = read(vcpu, index, by);
    let has_read = vcpu.effects() == [Effect::Read(Owner::Vendor(by), index)];
    let _ = write(vcpu, index, 0, by);
    let has_written = vcpu.effects() == [Effect::Write(Owner::Vendor(by), index, 0)];

    has_read == reads && has_written == writes
}

/// vCPUs of both vendors, usual and unusual ones.
fn states() -> impl Iterator<Item = Vcpu> {
    VENDORS.into_iter().flat_map(|vendor| {
        (0..4).map(move |state| Vcpu {
            is_nested: state & 1 != 0,
            is_protected: state & 2 != 0,
            ..Vcpu::new(vendor)
        })
    })
}

/// Whether an access that may be excused is the access, and the log is told if it was not.
fn is_excused<T: PartialEq>(
    vcpu: &Vcpu,
    report: Effect,
    access: impl Fn(&Vcpu) -> access::Result<T>,
    excused: impl Fn(&Vcpu) -> access::Result<T>,
) -> bool {
    // What is stored may count in the next access.
    let [vcpu, same] = [vcpu.clone(), vcpu.clone()];
    let result = access(&vcpu);
    let mut effects = vcpu.effects();

    if result == Err(UNSUPPORTED) {
        effects = effects.and(report);
    }
    excused(&same) == result && same.effects() == effects
}

/// Whether the short ways lead where the careful one does.
fn is_short_way_right(vcpu: &Vcpu, index: u32, by: By) -> bool {
    let unhandled = |way, data| Effect::Report(Report::Unhandled(way), index, data);

    is_excused(
        vcpu,
        unhandled(Way::Read, 0),
        |vcpu| read(vcpu, index, by),
        |vcpu| read_excused(vcpu, index, by),
    ) && VALUES.into_iter().all(|data| {
        is_excused(
            vcpu,
            unhandled(Way::Write, data),
            |vcpu| write(vcpu, index, data, by),
            |vcpu| write_excused(vcpu, index, data, by),
        )
    })
}

/// Whether a gate sees to addresses that are not canonical.
fn gates_addresses(register: &Register, index: u32, by: By) -> bool {
    NOT_CANONICAL.into_iter().all(|(bits, address, canonical)| {
        let vcpu = Vcpu {
            address_bits: bits,
            ..Vcpu::new(Vendor::Intel)
        };
        let takes = |data, stored| {
            write(&vcpu, index, data, by) == Ok(())
                && vcpu.effects() == [Effect::Write(Owner::Vendor(by), index, stored)]
        };
        let refuses =
            |data| write(&vcpu, index, data, by) == Err(INVALID) && vcpu.effects() == NOTHING;

        match register.gate {
            Gate::None | Gate::TscAux | Gate::Cet => true,
            Gate::MakeCanonical => takes(address, canonical),
            Gate::Canonical => takes(canonical, canonical) && refuses(address),
            Gate::ShadowStackPointer | Gate::ShadowStackTable | Gate::GuestShadowStackPointer => {
                refuses(address)
            }
        }
    })
}

/// Whether a gate keeps out vCPUs without features, even if the vendor module has the MSR.
fn gates_features(register: &Register, index: u32) -> bool {
    let vcpu = Vcpu {
        features: Features(0),
        is_protected: true,
        ..Vcpu::new(Vendor::Intel)
    };
    let refuses = |by, denial| {
        read(&vcpu, index, by) == Err(denial)
            && write(&vcpu, index, 0, by) == Err(denial)
            && vcpu.effects() == NOTHING
    };

    match register.gate {
        Gate::None | Gate::Canonical | Gate::MakeCanonical => true,
        Gate::TscAux => refuses(By::Guest, INVALID),
        Gate::Cet | Gate::ShadowStackPointer | Gate::ShadowStackTable => {
            BOTH.into_iter().all(|by| refuses(by, UNSUPPORTED))
        }
        Gate::GuestShadowStackPointer => {
            refuses(By::Guest, INVALID) && refuses(By::Host, UNSUPPORTED)
        }
    }
}

/// Whether the same value is read as was written.
fn is_stored(register: &Register, index: u32) -> bool {
    let vcpu = Vcpu::new(Vendor::Intel);

    match (register.read, register.write) {
        (Read::Field(_), Write::Field(_)) => VALUES.into_iter().all(|data| {
            write_common(&vcpu, index, data, By::Host) == Ok(())
                && read_common(&vcpu, index, By::Host) == Ok(data)
        }),
        _ => true,
    }
}

#[kunit_tests(kvm_msr_table)]
mod cases {
    use super::*;

    #[test]
    fn reads_do_what_is_declared() {
        for by in BOTH {
            assert!(holds_for_all(|register, index| {
                by == By::Guest && !lets_guests_in(register.read_guard)
                    || is_read_as_declared(register, index, by)
            }));
        }
    }

    #[test]
    fn writes_do_what_is_declared() {
        for by in BOTH {
            for data in VALUES {
                assert!(holds_for_all(|register, index| {
                    by == By::Guest && !lets_guests_in(register.write_guard)
                        || is_written_as_declared(register, index, data, by)
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
            guards(register.read_guard, |vcpu, by| {
                read_common(vcpu, index, by).map(|_| ())
            })
        }));
        assert!(holds_for_all(|register, index| {
            guards(register.write_guard, |vcpu, by| {
                write_common(vcpu, index, 0, by)
            })
        }));
    }

    #[test]
    fn gates_check_addresses() {
        for by in BOTH {
            assert!(holds_for_all(|register, index| gates_addresses(
                register, index, by
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
                has_user_return_tsc_aux: false,
                ..all.clone()
            };

            for vcpu in [all, refused, bare] {
                for by in BOTH {
                    assert!(holds_for_all(|_, index| is_short_way_right(
                        &vcpu, index, by
                    )));
                }
            }
        }
    }
}
