// SPDX-License-Identifier: GPL-2.0

//! Whether an access takes the declared route: to the vendor module, or to the engine's own rules, by
//! a shortcut or by the complete path.

use super::VALUES;
use crate::{
    engine::{
        access::{
            self,
            read,
            read_existing,
            write,
            write_existing,
            write_unchecked,
            Access,
            Initiator, //
        },
        cpu::Report,
        exit::UNSUPPORTED,
        registers::{
            lookup,
            Register, //
        },
    },
    tests::{
        model::{
            Effect,
            Owner,
            Vcpu, //
        },
        VENDORS,
    },
};

/// Whether the vendor module serves exactly the accesses that are declared for it.
pub(super) fn is_owned_as_declared(vcpu: &Vcpu, register: &Register, index: u32) -> bool {
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
pub(super) fn states() -> impl Iterator<Item = Vcpu> {
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
pub(super) fn is_short_way_right(vcpu: &Vcpu, index: u32, initiator: Initiator) -> bool {
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
