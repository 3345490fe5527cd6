// SPDX-License-Identifier: GPL-2.0

//! Whether writes follow their declaration.

use crate::{
    engine::{
        access::{
            write_common,
            Initiator, //
        },
        exit::{
            INVALID,
            UNSUPPORTED, //
        },
        registers::{
            Register,
            Vendor,
            Write, //
        },
    },
    tests::model::{
        Effect,
        Owner,
        Vcpu,
        NOTHING, //
    },
};

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
pub(super) fn is_written_as_declared(
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
