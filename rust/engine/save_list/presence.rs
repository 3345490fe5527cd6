// SPDX-License-Identifier: GPL-2.0

//! Whether a vCPU has an MSR.

use super::{
    is_internal,
    special, //
};
use crate::engine::{
    access::{
        needs_fpu,
        read_existing,
        write_common,
        Initiator, //
    },
    cpu::Cpu,
    registers::{
        Feature,
        PreCheck,
        Read,
        Register,
        Write, //
    },
};

/// Whether the vCPU has an MSR that user space or the guest can write.
pub(super) fn has<C: Cpu>(cpu: &C, register: &Register, index: u32) -> bool {
    let vendor = cpu.vendor();
    let is_read_by_vendor = register.vendor.reads(vendor);
    let is_written_by_vendor = register.vendor.writes(vendor);

    if is_internal(register) {
        return false;
    }
    // This is asked before a read, which would create a performance event for branch records.
    if cpu.pmu_has(index) {
        return true;
    }
    // Indices without a declaration are those of a PMU.
    if register.is_undeclared() {
        return false;
    }
    match (register.read, register.write) {
        // Nobody can change the value.
        (_, Write::Unsupported) if !is_written_by_vendor => false,
        _ if special::is_derived(index) => false,
        // User space can read them even if the guest has no such interface. The read would log
        // indices that Hyper-V does not define.
        (Read::HyperV, _) => {
            special::is_defined_by_hyperv(index)
                && read_existing(cpu, special::readable(index), Initiator::Guest).is_ok()
        }
        // Reads fail for registers that can only be written.
        (Read::X2apic, _) if special::is_x2apic_command(index) => {
            read_existing(cpu, special::X2APIC_ID, Initiator::Host).is_ok()
        }
        // Reads need the FPU's state.
        (Read::Xstate, _) => needs_fpu(cpu, register),
        // User space can read it without XSAVES, but can't write it.
        (Read::Xss, _) => cpu.has_xsaves(),
        // User space can read it, but only 64-bit vCPUs have it.
        _ if register.pre_check == PreCheck::ShadowStackTable && !cpu.has(Feature::Lm) => false,
        // All writes fail: KVM reports ready pages with an interrupt, and needs the scheduler's
        // statistics for steal time.
        (_, Write::AsyncPfInt) if !cpu.has_lapic() => false,
        (_, Write::StealTime) if !cpu.has_sched_info() => false,
        // Commands. 0 is a command to do nothing.
        (Read::Unsupported, Write::PredCmd | Write::FlushCmd) => {
            write_common(cpu, index, 0, Initiator::Guest).is_ok()
        }
        (Read::Unsupported, Write::Ignore) => true,
        // A register of AMD's whose writes the vendor module drops.
        (Read::Unsupported, _) if is_written_by_vendor && !is_read_by_vendor => true,
        _ => read_existing(cpu, index, Initiator::Host).is_ok(),
    }
}
