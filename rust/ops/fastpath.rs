// SPDX-License-Identifier: GPL-2.0

//! VM-exits for WRMSR that are handled while interrupts are disabled.
//!
//! The code here must not sleep, or use state that only the slow path saves. It does not check the
//! filter: filters don't apply to x2APIC MSRs, and as in C not to IA32_TSC_DEADLINE on this path.

use crate::{
    engine::{
        cpu::Lapic,
        registers::index::{
            IA32_TSC_DEADLINE,
            X2APIC_ICR, //
        },
    },
    kvm::{
        Counter,
        Fastpath,
        Vcpu, //
    },
};
use kernel::prelude::*;

/// WRMSR: the index is in ECX, the value in EDX:EAX.
pub(crate) fn fastpath_wrmsr(vcpu: &Vcpu) -> Fastpath {
    write(vcpu, vcpu.ecx(), vcpu.edx_eax())
}

/// WRMSR with an immediate index: the value is in one register.
pub(crate) fn fastpath_wrmsr_imm(vcpu: &Vcpu, index: u32, reg: c_int) -> Fastpath {
    write(vcpu, index, vcpu.operand(reg))
}

fn write(vcpu: &Vcpu, index: u32, data: u64) -> Fastpath {
    // A PMU that counts instructions has to count this one.
    if !vcpu.pmu_allows_fastpath() {
        return Fastpath::None;
    }
    match index {
        X2APIC_ICR if vcpu.send_ipi_fast(data) => (),
        IA32_TSC_DEADLINE => vcpu.set_tsc_deadline(data),
        _ => return Fastpath::None,
    }
    vcpu.count(Counter::Writes, 1);
    vcpu.trace_write(index, data, Ok(()));
    vcpu.skip_instruction_fast()
}
