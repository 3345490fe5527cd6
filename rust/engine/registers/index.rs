// SPDX-License-Identifier: GPL-2.0

//! Indices and bits of MSRs that are used outside of the table, as in `asm/msr-index.h`.

pub(crate) const IA32_UCODE_REV: u32 = 0x8b;
pub(crate) const PLATFORM_INFO: u32 = 0xce;
pub(crate) const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
pub(crate) const IA32_PERF_CAPABILITIES: u32 = 0x345;
pub(crate) const IA32_TSC_DEADLINE: u32 = 0x6e0;
pub(crate) const X2APIC_ICR: u32 = 0x830;
/// The guest's current shadow stack pointer. Only KVM itself accesses it as an MSR; no CPU has this
/// index.
pub(crate) const KVM_INTERNAL_GUEST_SSP: u32 = 0x4b56_4dff;

/// In `IA32_ARCH_CAPABILITIES`: the CPU has `IA32_TSX_CTRL`.
pub(crate) const ARCH_CAP_TSX_CTRL: u64 = 1 << 7;
/// In `PLATFORM_INFO`: CPUID can be made to fault.
pub(crate) const PLATFORM_INFO_CPUID_FAULT: u64 = 1 << 31;
