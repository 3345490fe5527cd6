// SPDX-License-Identifier: GPL-2.0

//! vCPUs, and KVM's accesses to their registers.

use super::Vm;
use crate::bindings;
use core::{
    marker::PhantomData,
    num::NonZero, //
};
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// A vCPU of a VM that the engine serves.
///
/// # Invariants
///
/// This is a valid `struct kvm_vcpu` of a VM that meets the invariants of [`Vm<P>`]. The current
/// task is the only one to use it: it has the vCPU loaded, or, at the vCPU's creation, nobody else
/// knows of it.
#[repr(transparent)]
pub(crate) struct Vcpu<P> {
    vcpu: Opaque<bindings::kvm_vcpu>,
    _protected: PhantomData<P>,
}

/// What the engine counts, per vCPU.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Counter {
    /// Guest reads that the engine judged.
    Reads,
    /// Guest writes that the engine judged.
    Writes,
    /// Guest accesses that the filter denied.
    Filtered,
    /// Guest accesses that were handed to user space.
    UserSpace,
    /// Guest accesses that ended in `#GP`.
    GeneralProtection,
    /// MSRs that user space got.
    HostReads,
    /// MSRs that user space set.
    HostWrites,
}

/// KVM's internal reason for which it did not access an MSR: `KVM_MSR_RET_UNSUPPORTED`,
/// `KVM_MSR_RET_FILTERED`, an errno, or another value, 1 by convention, for an invalid access.
pub(crate) type Denial = NonZero<c_int>;

// The last of them.
const _: () =
    assert!((Counter::HostWrites as usize) < bindings::KVM_NR_MSR_ENGINE_COUNTERS as usize);

impl<P: Send + Sync> Vcpu<P> {
    /// # Safety
    ///
    /// `vcpu` must meet the type's invariants for all of `'a`.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(vcpu: *mut bindings::kvm_vcpu) -> &'a Self {
        // CAST: `Self` is transparent.
        // SAFETY: By the caller's promise.
        unsafe { &*vcpu.cast() }
    }

    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::kvm_vcpu {
        self.vcpu.get()
    }

    /// The VM.
    #[inline]
    pub(crate) fn vm(&self) -> &Vm<P> {
        // SAFETY: By the type invariants, which the VM outlives.
        unsafe { Vm::from_raw((*self.as_raw()).kvm) }
    }

    /// A general purpose register, all of it.
    #[inline]
    fn gpr(&self, reg: bindings::kvm_reg) -> u64 {
        // SAFETY: By the type invariants nobody else writes the register. The index is that of
        // a general purpose register.
        unsafe { (*self.as_raw()).arch.regs[reg as usize] as u64 }
    }

    #[inline]
    fn set_gpr(&self, reg: bindings::kvm_reg, value: u32) {
        // SAFETY: By the type invariants nobody else uses the register. The index is that of
        // a general purpose register.
        unsafe { (*self.as_raw()).arch.regs[reg as usize] = value as usize }
    }

    /// ECX, which is where RDMSR and WRMSR have the MSR's index.
    #[inline]
    pub(crate) fn ecx(&self) -> u32 {
        // The upper half of RCX does not count.
        self.gpr(bindings::kvm_reg_VCPU_REGS_RCX) as u32
    }

    /// EDX:EAX, which is where WRMSR has the value.
    #[inline]
    pub(crate) fn edx_eax(&self) -> u64 {
        self.gpr(bindings::kvm_reg_VCPU_REGS_RDX) << 32
            | self.gpr(bindings::kvm_reg_VCPU_REGS_RAX) & u64::from(u32::MAX)
    }

    /// Sets EDX:EAX, which is where RDMSR leaves the value. The upper halves are cleared.
    #[inline]
    pub(crate) fn set_edx_eax(&self, value: u64) {
        self.set_gpr(bindings::kvm_reg_VCPU_REGS_RAX, value as u32);
        self.set_gpr(bindings::kvm_reg_VCPU_REGS_RDX, (value >> 32) as u32);
    }

    /// A register as an instruction's operand: its lower half only, unless in 64-bit mode.
    pub(crate) fn operand(&self, reg: c_int) -> u64 {
        // SAFETY: By the type invariants. An unknown register reads as 0.
        unsafe { bindings::kvm_msr_glue_register_read(self.as_raw(), reg) as u64 }
    }

    /// Sets a register that is an instruction's operand.
    pub(crate) fn set_operand(&self, reg: c_int, value: u64) {
        // SAFETY: By the type invariants. An unknown register is left alone.
        unsafe { bindings::kvm_msr_glue_register_write(self.as_raw(), reg, value as usize) }
    }

    /// The operand of the RDMSR that is under way, if it has its index in the instruction.
    pub(crate) fn rdmsr_imm_reg(&self) -> c_int {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.cui_rdmsr_imm_reg }
    }

    /// Keeps the operand of an RDMSR that has its index in the instruction.
    pub(crate) fn set_rdmsr_imm_reg(&self, reg: c_int) {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.cui_rdmsr_imm_reg = reg }
    }

    /// Whether feature MSRs may still change, i.e. the vCPU has not run yet.
    pub(crate) fn can_set_feature_msrs(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_can_set_feature_msrs(self.as_raw()) }
    }

    /// Adds to a counter, which may wrap.
    #[inline]
    pub(crate) fn count(&self, counter: Counter, by: u64) {
        // SAFETY: By the type invariants, and nobody else writes the counter.
        let counter =
            unsafe { &raw mut (*self.as_raw()).arch.msr_engine_counters[counter as usize] };

        // Volatile, as others read it meanwhile: WRITE_ONCE() in C, and the cost of an `inc`.
        // SAFETY: As above.
        unsafe { counter.write_volatile(counter.read_volatile().wrapping_add(by)) }
    }

    /// Reads a counter of a vCPU that need not be loaded.
    ///
    /// # Safety
    ///
    /// `vcpu` must be a valid vCPU.
    pub(super) unsafe fn read_counter(vcpu: *mut bindings::kvm_vcpu, counter: Counter) -> u64 {
        // SAFETY: By the caller's promise. Whoever has it loaded may write meanwhile.
        unsafe { (&raw const (*vcpu).arch.msr_engine_counters[counter as usize]).read_volatile() }
    }

    /// Traces a guest read, by `kvm_msr`.
    #[inline]
    pub(crate) fn trace_read(&self, index: u32, read: Result<u64, Denial>) {
        #[cfg(CONFIG_TRACEPOINTS)]
        // SAFETY: Tracing has no preconditions.
        unsafe {
            match read {
                Ok(data) => bindings::kvm_msr_glue_trace_read(index, data),
                Err(_) => bindings::kvm_msr_glue_trace_read_ex(index),
            }
        }
        #[cfg(not(CONFIG_TRACEPOINTS))]
        let _ = (index, read);
    }

    /// Traces a guest write, by `kvm_msr`.
    #[inline]
    pub(crate) fn trace_write(&self, index: u32, data: u64, write: Result<(), Denial>) {
        #[cfg(CONFIG_TRACEPOINTS)]
        // SAFETY: Tracing has no preconditions.
        unsafe {
            match write {
                Ok(()) => bindings::kvm_msr_glue_trace_write(index, data),
                Err(_) => bindings::kvm_msr_glue_trace_write_ex(index, data),
            }
        }
        #[cfg(not(CONFIG_TRACEPOINTS))]
        let _ = (index, data, write);
    }
}
