// SPDX-License-Identifier: GPL-2.0

//! The attributes that derive from an MSR's declaration.

use super::{
    FIXED,
    GUEST_MEMORY,
    IGNORED,
    LISTED,
    SIDE_EFFECT,
    VOLATILE,
    WRITE_ONLY, //
};
use crate::engine::{
    cpu::Cpu,
    registers::{
        Read,
        Register,
        Write, //
    },
};

pub(super) fn of<C: Cpu>(cpu: &C, register: &Register, index: u32) -> u32 {
    // Where the vendor module serves accesses, these rules apply only as far as it uses them.
    let is_read_here = !register.vendor.reads(cpu.vendor());
    let is_written_here = !register.vendor.writes(cpu.vendor());
    let has_pmu = cpu.pmu_has(index);
    let is_write_only = is_read_here && register.read == Read::Unsupported && !has_pmu
        || register.write == Write::AsyncPfAck;

    [
        // The timer clears the deadline when it expires.
        (
            matches!(register.read, Read::Tsc | Read::TscDeadline),
            VOLATILE,
        ),
        (is_write_only, WRITE_ONLY),
        (register.is_immutable(), FIXED),
        (has_side_effect(register.write), SIDE_EFFECT),
        (register.write.accesses_guest_memory(), GUEST_MEMORY),
        (cpu.is_listed(register, index), LISTED),
        (is_written_here && ignores(register.write, has_pmu), IGNORED),
    ]
    .iter()
    .filter(|(holds, _)| *holds)
    .fold(0, |attributes, (_, attribute)| attributes | attribute)
}

/// Whether a write of user space changes other state than the value.
fn has_side_effect(write: Write) -> bool {
    match write {
        // They change the guest's CPUID.
        Write::MiscEnable | Write::Xss
        // It configures the PMU.
        | Write::PerfCapabilities
        // They change how KVM translates addresses, and the mode of the local APIC.
        | Write::Efer | Write::ApicBase
        // KVM makes the TSCs of vCPUs equal that are written at about the same time.
        | Write::Tsc
        // These are commands, or have an effect that a guest requests, e.g. to send an interrupt.
        | Write::PredCmd | Write::FlushCmd | Write::AsyncPfAck | Write::X2apic
        // It arms a timer.
        | Write::TscDeadline
        // It can drop parts of the FPU's state.
        | Write::Xfd => true,
        // They write to guest memory, or let KVM do so later.
        write => write.accesses_guest_memory(),
    }
}

/// Whether writes of user space succeed without an effect.
fn ignores(write: Write, has_pmu: bool) -> bool {
    match write {
        Write::Ignore | Write::Drop | Write::Zero => true,
        Write::LegacyPmu => !has_pmu,
        _ => false,
    }
}
