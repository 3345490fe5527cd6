// SPDX-License-Identifier: GPL-2.0

//! VM-exits for WRMSR that are handled while interrupts are disabled.
//!
//! The code here must not sleep, or use state that only the slow path saves. It does not check the
//! filter: filters don't apply to x2APIC MSRs, and as in C not to IA32_TSC_DEADLINE on this path.

use crate::{
    engine::{
        access::Access,
        cpu::Lapic,
        registers::{
            index::{
                IA32_TSC_DEADLINE,
                X2APIC_ICR, //
            },
            Location, //
        },
    },
    kvm::{
        Counter,
        Fastpath,
        InFastpath,
        Tsc,
        Vcpu, //
    },
};
use kernel::prelude::*;

/// WRMSR: the index is in ECX, the value in EDX:EAX.
pub(crate) fn fastpath_wrmsr(vcpu: InFastpath<'_>) -> Fastpath {
    write(vcpu, vcpu.ecx(), vcpu.edx_eax())
}

/// WRMSR with an immediate index: the value is in one register.
pub(crate) fn fastpath_wrmsr_imm(vcpu: InFastpath<'_>, index: u32, reg: c_int) -> Fastpath {
    write(vcpu, index, vcpu.operand(reg))
}

#[inline(always)]
fn write(vcpu: InFastpath<'_>, index: u32, data: u64) -> Fastpath {
    if vcpu.vm().state().watches_fastpath() {
        return write_overlaid(vcpu, index, data);
    }
    write_plain(&vcpu, index, data)
}

/// Rules can apply to IA32_TSC_DEADLINE, and learning records all writes: this leaves them to the
/// slow path. Statistics count the write here.
#[inline(never)]
fn write_overlaid(vcpu: InFastpath<'_>, index: u32, data: u64) -> Fastpath {
    let counting = match vcpu.overlay() {
        Some(overlay) if overlay.only_counts => &overlay.counting,
        _ => return Fastpath::None,
    };
    let start = Tsc::now();
    let written = write_plain(&vcpu, index, data);

    if !matches!(written, Fastpath::None) {
        // Both MSRs are in a page with MSRs. The location is one of two constants: that of `index`
        // would be computed without a mask, which is not needed here unless the CPU mispredicts.
        let location = match index {
            X2APIC_ICR => const { Location::of(X2APIC_ICR) },
            _ => const { Location::of(IA32_TSC_DEADLINE) },
        };

        match counting.find(&vcpu, location, Access::Write) {
            Some(histogram) => histogram.add(start.elapsed()),
            None => counting.add(&vcpu, index, Access::Write, true, start.elapsed()),
        }
    }
    written
}

#[inline(always)]
fn write_plain(vcpu: &Vcpu, index: u32, data: u64) -> Fastpath {
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
