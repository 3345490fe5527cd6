// SPDX-License-Identifier: GPL-2.0

//! Whether reads follow their declaration.

use crate::{
    engine::{
        access::{
            read_common,
            Initiator, //
        },
        exit::UNSUPPORTED,
        registers::{
            Field,
            Read,
            Register,
            Vendor, //
        },
    },
    tests::model::{
        Effect,
        Owner,
        Vcpu,
        ANSWER,
        NOTHING,
        TSC_DEADLINE,
        WALL_CLOCK,
        XFD, //
    },
};

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
pub(super) fn is_read_as_declared(register: &Register, index: u32, initiator: Initiator) -> bool {
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
