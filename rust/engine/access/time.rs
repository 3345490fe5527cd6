// SPDX-License-Identifier: GPL-2.0

//! The time stamp counter.

use super::{
    Cpu,
    Feature,
    Field,
    Initiator,
    Request, //
};

pub(super) fn write_tsc<C: Cpu>(cpu: &C, data: u64, initiator: Initiator) {
    if initiator == Initiator::Host {
        cpu.synchronize_tsc(data);
    } else if !cpu.is_tsc_protected() {
        let adjustment = cpu.tsc_adjustment(data);

        cpu.adjust_tsc_offset(adjustment);
        cpu.set_field(
            Field::TscAdjust,
            cpu.field(Field::TscAdjust).wrapping_add(adjustment),
        );
    }
}

pub(super) fn write_tsc_adjust<C: Cpu>(cpu: &C, data: u64, initiator: Initiator) {
    // Without the feature, writes are ignored instead of denied: KVM's ABI.
    if !cpu.has(Feature::TscAdjust) {
        return;
    }
    if initiator == Initiator::Guest {
        cpu.adjust_tsc_offset(data.wrapping_sub(cpu.field(Field::TscAdjust)));
        // The guest's kvmclock derives from the TSC, and would jump without an update.
        cpu.request(Request::ClockUpdate);
    }
    cpu.set_field(Field::TscAdjust, data);
}
