// SPDX-License-Identifier: GPL-2.0

//! WRMSR exits that are over before interrupts are enabled again.
//!
//! Nothing here may sleep, or depend on what only the full way out of the guest provides. The
//! filter is not asked, as x2APIC MSRs have none, and the deadline is that of a timer which the
//! guest could set in other ways, too.

use super::Vcpu;
use crate::kvm::{
    Counter,
    Fastpath, //
};
use kernel::prelude::*;

const X2APIC_ICR: u32 = 0x830;
const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// WRMSR: the index is in ECX, the value in EDX:EAX.
pub(crate) fn wrmsr(vcpu: &Vcpu) -> Fastpath {
    write(vcpu, vcpu.ecx(), vcpu.edx_eax())
}

/// WRMSR with the index in the instruction: the value is in one register.
pub(crate) fn wrmsr_imm(vcpu: &Vcpu, index: u32, reg: c_int) -> Fastpath {
    write(vcpu, index, vcpu.operand(reg))
}

fn write(vcpu: &Vcpu, index: u32, data: u64) -> Fastpath {
    // A PMU that counts instructions has to see this one.
    if !vcpu.pmu_allows_fastpath() {
        return Fastpath::None;
    }
    match index {
        X2APIC_ICR if vcpu.send_ipi_fast(data) => (),
        IA32_TSC_DEADLINE => vcpu.set_lapic_tsc_deadline(data),
        _ => return Fastpath::None,
    }
    vcpu.count(Counter::Writes, 1);
    vcpu.trace_write(index, data, Ok(()));
    vcpu.skip_instruction_fast()
}
