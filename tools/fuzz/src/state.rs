// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A VM's whole state, as far as user space and the guest can see it.

use anyhow::Result;
use kvm_bindings::*;
use kvm_ioctls::VcpuFd;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Mapping;

use crate::cpu::Cpu;
use crate::nested_state;
use crate::pages;
use crate::seen::Seen;
use crate::seen::steady;

/// The entries that fit in a call.
const ENTRIES: usize = 255;

/// The local APIC's registers that depend on time: its timer counts, and requests interrupts.
const APIC_BY_TIME: [std::ops::Range<usize>; 2] = [0x100..0x280, 0x390..0x394];

/// A part of the state. Parts are compared one by one, and become text only if they differ.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// What came of completing an exit to user space.
    Completion(Seen),
    /// KVM_GET_REGS
    Regs(Result<kvm_regs, Errno>),
    /// KVM_GET_SREGS
    Sregs(Result<kvm_sregs, Errno>),
    /// KVM_GET_VCPU_EVENTS
    Events(Result<kvm_vcpu_events, Errno>),
    /// KVM_GET_MP_STATE
    RunState(Result<kvm_mp_state, Errno>),
    /// KVM_GET_DEBUGREGS
    DebugRegs(Result<kvm_debugregs, Errno>),
    /// KVM_GET_XCRS
    Xcrs(Result<[kvm_xcr; 16], Errno>),
    /// KVM_GET_TSC_KHZ
    TscKhz(Result<u32, Errno>),
    /// KVM_GET_NESTED_STATE
    Nested(Seen),
    /// KVM_GET_LAPIC
    Apic(Vec<std::ffi::c_char>),
    /// An entry of KVM_GET_CPUID2
    Cpuid(kvm_cpuid_entry2),
    /// An MSR's index and value
    Msr(u32, u64),
    /// An address, and the guest's memory from there on
    Memory(usize, Vec<u8>),
}

impl Part {
    /// As text, with only what differs from the other side's part where it is long.
    pub fn against(&self, other: Option<&Part>) -> String {
        match (self, other) {
            (Part::Memory(start, bytes), Some(Part::Memory(_, others))) => {
                let bytes = bytes.iter().zip(others).enumerate();
                let differ: Vec<_> = bytes
                    .filter(|(_, (one, other))| one != other)
                    .take(16)
                    .map(|(at, (one, _))| format!("{:#x}: {one:#x}", start + at))
                    .collect();

                format!("memory {}", differ.join(" "))
            }
            (Part::Nested(one), Some(Part::Nested(other))) => {
                let [text, _] = one.against(other);

                format!("nested state {text}")
            }
            _ => format!("{self:x?}"),
        }
    }
}

/// The state of a vCPU, with these MSRs.
pub fn of_vcpu(mut cpu: Cpu<'_>, indices: &[u32]) -> Result<Vec<Part>> {
    let completion = Part::Completion(Seen::Runs(cpu.finish()?));
    let vcpu = cpu.fd;
    let mut state = vec![
        completion,
        Part::Regs(vcpu.get_regs().map_err(Errno::from)),
        Part::Sregs(vcpu.get_sregs().map_err(Errno::from)),
        Part::Events(vcpu.get_vcpu_events().map_err(Errno::from)),
        Part::RunState(vcpu.get_mp_state().map_err(Errno::from)),
        Part::DebugRegs(vcpu.get_debug_regs().map_err(Errno::from)),
        Part::Xcrs(vcpu.get_xcrs().map(|xcrs| xcrs.xcrs).map_err(Errno::from)),
        Part::TscKhz(vcpu.get_tsc_khz().map_err(Errno::from)),
        Part::Nested(nested_state::get(vcpu, nested_state::LARGEST as u32)?),
    ];

    if let Ok(mut apic) = vcpu.get_lapic() {
        for range in APIC_BY_TIME {
            apic.regs[range].fill(0);
        }
        state.push(Part::Apic(apic.regs.to_vec()));
    }
    if let Ok(cpuid) = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES) {
        state.extend(cpuid.as_slice().iter().copied().map(Part::Cpuid));
    }
    msrs(vcpu, indices, &mut state)?;
    Ok(state)
}

/// Adds MSRs, without those that the vCPU lacks.
fn msrs(vcpu: &VcpuFd, indices: &[u32], state: &mut Vec<Part>) -> Result<()> {
    let mut left = indices;

    while !left.is_empty() {
        let entries: Vec<_> = left
            .iter()
            .take(ENTRIES)
            .map(|&index| kvm_msr_entry {
                index,
                ..Default::default()
            })
            .collect();
        let mut msrs = Msrs::from_entries(&entries)?;
        let done = vcpu.get_msrs(&mut msrs)?;

        state.extend(
            msrs.as_slice()[..done]
                .iter()
                .map(|entry| Part::Msr(entry.index, steady(entry.index, entry.data))),
        );
        // The next one has failed, if there was one.
        left = &left[(done + usize::from(done < entries.len())).min(left.len())..];
    }
    Ok(())
}

/// The guest's memory that is in use, without what KVM writes the time to.
pub fn of_memory(memory: &Mapping) -> impl Iterator<Item = Part> {
    pages::COMPARED
        .iter()
        .map(|area| Part::Memory(area.start, memory.read(area.start, area.len())))
}
