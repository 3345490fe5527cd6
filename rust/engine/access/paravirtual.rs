// SPDX-License-Identifier: GPL-2.0

//! KVM's own MSRs.
//!
//! Source: `Documentation/virt/kvm/x86/msr.rst`.

use super::{
    checks::require,
    Cpu,
    Field,
    Initiator,
    Pv,
    Request,
    Result,
    INVALID, //
};

const ENABLED: u64 = 1 << 0;

const ASYNC_PF_DELIVERY_AS_PF_VMEXIT: u64 = 1 << 2;
const ASYNC_PF_DELIVERY_AS_INT: u64 = 1 << 3;
const ASYNC_PF_RESERVED: u64 = 0b11 << 4;
const ASYNC_PF_ADDRESS: u64 = !0x3f;

const STEAL_TIME_RESERVED: u64 = 0b1_1111 << 1;

pub(super) fn write_system_time<C: Cpu>(cpu: &C, data: u64, old: bool, initiator: Initiator) {
    if cpu.is_boot_cpu() && initiator == Initiator::Guest {
        // All vCPUs share one master clock, unless the boot vCPU uses the old MSR: then the guest
        // may predate that clock.
        if cpu.boot_clock_is_old() != old {
            cpu.request(Request::MasterClockUpdate);
        }
        cpu.set_boot_clock_is_old(old);
    }
    cpu.set_field(Field::SystemTime, data);
    cpu.request(Request::GlobalClockUpdate);
    cpu.set_clock_address((data & ENABLED != 0).then_some(data & !ENABLED));
}

pub(super) fn write_async_pf_en<C: Cpu>(cpu: &C, data: u64) -> Result {
    if data & ASYNC_PF_RESERVED != 0
        || data & ASYNC_PF_DELIVERY_AS_PF_VMEXIT != 0 && !cpu.has_pv(Pv::ASYNC_PF_VMEXIT)
        || data & ASYNC_PF_DELIVERY_AS_INT != 0 && !cpu.has_pv(Pv::ASYNC_PF_INT)
    {
        return Err(INVALID);
    }
    if !cpu.has_lapic() {
        return require(data == 0, INVALID);
    }

    // KVM reports that a page is ready by interrupt only.
    let enabled = data & ENABLED != 0 && data & ASYNC_PF_DELIVERY_AS_INT != 0;

    if enabled {
        cpu.set_async_pf_address(data & ASYNC_PF_ADDRESS)?;
    }
    cpu.set_field(Field::AsyncPfEn, data);
    if enabled {
        cpu.wake_async_pf();
    } else {
        cpu.clear_async_pf();
    }
    Ok(())
}

pub(super) fn write_async_pf_int<C: Cpu>(cpu: &C, data: u64) -> Result {
    let vector = u8::try_from(data).map_err(|_| INVALID)?;

    require(cpu.has_lapic(), INVALID)?;
    cpu.set_field(Field::AsyncPfInt, data);
    cpu.set_async_pf_vector(vector);
    Ok(())
}

pub(super) fn write_async_pf_ack<C: Cpu>(cpu: &C, data: u64) {
    if data & 1 != 0 {
        cpu.acknowledge_async_pf();
    }
}

pub(super) fn write_steal_time<C: Cpu>(cpu: &C, data: u64) -> Result {
    require(cpu.has_sched_info(), INVALID)?;
    require(data & STEAL_TIME_RESERVED == 0, INVALID)?;
    cpu.set_field(Field::StealTime, data);
    if data & ENABLED != 0 {
        cpu.request(Request::StealUpdate);
    }
    Ok(())
}
