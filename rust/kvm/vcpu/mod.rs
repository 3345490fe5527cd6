// SPDX-License-Identifier: GPL-2.0

//! vCPUs.
//!
//! The files of this folder implement the engine's traits ([`crate::engine::cpu`]). This one has
//! the vCPU's general purpose registers, mode of operation, requests, counters and traces.

mod clocks;
mod cpuid;
mod fields;
mod fpu;
mod host_cpu;
mod lapic;
mod owners;
mod paravirtual;

pub(crate) use fpu::GuestFpu;

use super::Vm;
use crate::{
    bindings,
    engine::{
        access::{
            Initiator,
            Result, //
        },
        cpu::{
            Cpu,
            Mode,
            Request, //
        },
    },
};
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// A vCPU of a VM that the engine serves.
///
/// # Invariants
///
/// - This is a valid `struct kvm_vcpu` of a VM that meets the invariants of [`Vm`].
/// - Only the current task uses it: the task has the vCPU loaded, or is creating it.
/// - The task writes an MSR whose value refers to the guest's memory only in a read-side section of
///   the VM's `kvm->srcu`: that of the run loop, or one that KVM or the op of an ioctl has entered.
#[repr(transparent)]
pub(crate) struct Vcpu(Opaque<bindings::kvm_vcpu>);

/// The events that the engine counts for each vCPU.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Counter {
    /// Guest reads that the engine handled.
    Reads,
    /// Guest writes that the engine handled.
    Writes,
    /// Guest accesses that the filter denied.
    Filtered,
    /// Guest accesses that exited to user space.
    UserSpace,
    /// Guest accesses that ended in `#GP`.
    GeneralProtection,
    /// MSRs that user space read.
    HostReads,
    /// MSRs that user space wrote.
    HostWrites,
}

// `HostWrites` is the last counter.
const _: () =
    assert!((Counter::HostWrites as usize) < bindings::KVM_NR_MSR_ENGINE_COUNTERS as usize);

impl Cpu for Vcpu {}

/// An access that the vendor module or the PMU serves, or passes on: `struct msr_data`.
pub(crate) type MsrData = bindings::msr_data;

impl MsrData {
    #[inline]
    fn new(index: u32, data: u64, initiator: Initiator) -> Self {
        Self {
            host_initiated: initiator == Initiator::Host,
            index,
            data,
        }
    }

    /// Who accesses the MSR.
    #[inline]
    pub(crate) fn initiator(&self) -> Initiator {
        if self.host_initiated {
            Initiator::Host
        } else {
            Initiator::Guest
        }
    }
}

impl Vcpu {
    /// # Safety
    ///
    /// `vcpu` must meet the type's invariants for all of `'a`.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(vcpu: *mut bindings::kvm_vcpu) -> &'a Self {
        // CAST: `Self` is transparent.
        // SAFETY: The caller passes a valid vCPU that nobody else uses for all of `'a`.
        unsafe { &*vcpu.cast() }
    }

    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::kvm_vcpu {
        self.0.get()
    }

    /// The VM.
    #[inline]
    pub(crate) fn vm(&self) -> &Vm {
        // SAFETY: A vCPU's VM is valid as long as the vCPU, and the engine serves this VM.
        unsafe { Vm::from_raw((*self.as_raw()).kvm) }
    }

    /// The vCPU's number in its VM, without the upper bits.
    #[inline]
    pub(crate) fn short_number(&self) -> u8 {
        // SAFETY: `self` is a valid vCPU, and its number does not change.
        unsafe { (*self.as_raw()).vcpu_idx as u8 }
    }

    /// Reads all 64 bits of a general purpose register.
    #[inline]
    fn gpr(&self, reg: bindings::kvm_reg) -> u64 {
        // SAFETY: `self` is a valid vCPU, and only the task that has it loaded, this one, writes
        // its registers. The index is that register's, which is in bounds.
        unsafe { (*self.as_raw()).arch.regs[reg as usize] as u64 }
    }

    #[inline]
    fn set_gpr(&self, reg: bindings::kvm_reg, value: u32) {
        // SAFETY: `self` is a valid vCPU, and only the task that has it loaded, this one, uses its
        // registers. The index is that register's, which is in bounds.
        unsafe { (*self.as_raw()).arch.regs[reg as usize] = value as usize }
    }

    /// ECX, which has the MSR's index for RDMSR and WRMSR.
    #[inline]
    pub(crate) fn ecx(&self) -> u32 {
        // RDMSR and WRMSR ignore the upper half of RCX.
        self.gpr(bindings::kvm_reg_VCPU_REGS_RCX) as u32
    }

    /// EDX:EAX, which has the value for WRMSR.
    #[inline]
    pub(crate) fn edx_eax(&self) -> u64 {
        self.gpr(bindings::kvm_reg_VCPU_REGS_RDX) << 32
            | self.gpr(bindings::kvm_reg_VCPU_REGS_RAX) & u64::from(u32::MAX)
    }

    /// Sets EDX:EAX to the value that RDMSR read. Clears the upper halves of RDX and RAX, as the
    /// CPU does.
    #[inline]
    pub(crate) fn set_edx_eax(&self, value: u64) {
        self.set_gpr(bindings::kvm_reg_VCPU_REGS_RAX, value as u32);
        self.set_gpr(bindings::kvm_reg_VCPU_REGS_RDX, (value >> 32) as u32);
    }

    /// Reads a register as an instruction's operand: only its lower half outside of 64-bit mode.
    pub(crate) fn operand(&self, reg: c_int) -> u64 {
        // SAFETY: `self` is a valid vCPU that this task has loaded. An unknown register reads as 0.
        unsafe { bindings::kvm_msr_glue_operand(self.as_raw(), reg) as u64 }
    }

    /// Sets a register that is an instruction's operand.
    pub(crate) fn set_operand(&self, reg: c_int, value: u64) {
        // SAFETY: `self` is a valid vCPU that this task has loaded. A write to an unknown register
        // is ignored.
        unsafe { bindings::kvm_msr_glue_set_operand(self.as_raw(), reg, value as usize) }
    }

    /// The destination register of the RDMSR with an immediate index that is in progress.
    pub(crate) fn rdmsr_imm_reg(&self) -> c_int {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, writes this.
        unsafe { (*self.as_raw()).arch.cui_rdmsr_imm_reg }
    }

    /// Stores the destination register of an RDMSR with an immediate index.
    pub(crate) fn set_rdmsr_imm_reg(&self, reg: c_int) {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, uses this.
        unsafe { (*self.as_raw()).arch.cui_rdmsr_imm_reg = reg }
    }

    /// Whether feature MSRs may still change, i.e. the vCPU has not run yet.
    pub(crate) fn can_set_feature_msrs(&self) -> bool {
        // SAFETY: `self` is a valid vCPU that this task has loaded, so it does not run meanwhile.
        unsafe { bindings::kvm_msr_glue_can_set_feature_msrs(self.as_raw()) }
    }

    /// Adds to a counter, which may wrap.
    #[inline]
    pub(crate) fn count(&self, counter: Counter, by: u64) {
        // SAFETY: `self` is a valid vCPU, which has all the counters.
        let counter =
            unsafe { &raw mut (*self.as_raw()).arch.msr_engine_counters[counter as usize] };

        // Volatile like WRITE_ONCE(), as other tasks read it concurrently. It costs no more than an
        // `inc`.
        // SAFETY: The counter is valid, and only the task that has the vCPU loaded, this one,
        // writes it.
        unsafe { counter.write_volatile(counter.read_volatile().wrapping_add(by)) }
    }

    /// Reads a counter of a vCPU, which need not be loaded.
    ///
    /// # Safety
    ///
    /// `vcpu` must be a valid vCPU.
    pub(super) unsafe fn read_counter(vcpu: *mut bindings::kvm_vcpu, counter: Counter) -> u64 {
        // SAFETY: The caller passes a valid vCPU. The task that has it loaded may write
        // concurrently.
        unsafe { (&raw const (*vcpu).arch.msr_engine_counters[counter as usize]).read_volatile() }
    }

    /// Traces a guest read with the tracepoint `kvm_msr`.
    #[inline]
    pub(crate) fn trace_read(&self, index: u32, read: Result<u64>) {
        #[cfg(CONFIG_TRACEPOINTS)]
        // SAFETY: Tracepoints copy numbers, and any task may be traced at any time.
        unsafe {
            match read {
                Ok(data) => bindings::kvm_msr_glue_trace_read(index, data),
                Err(_) => bindings::kvm_msr_glue_trace_read_ex(index),
            }
        }
        #[cfg(not(CONFIG_TRACEPOINTS))]
        let _ = (index, read);
    }

    /// Traces a guest write with the tracepoint `kvm_msr`.
    #[inline]
    pub(crate) fn trace_write(&self, index: u32, data: u64, write: Result) {
        #[cfg(CONFIG_TRACEPOINTS)]
        // SAFETY: Tracepoints copy numbers, and any task may be traced at any time.
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

impl Mode for Vcpu {
    fn is_paging(&self) -> bool {
        self.cr0() >> bindings::X86_CR0_PG_BIT & 1 != 0
    }

    fn is_boot_cpu(&self) -> bool {
        // SAFETY: `self` is a valid vCPU, whose ID does not change.
        unsafe { (*self.as_raw()).vcpu_id == 0 }
    }

    #[inline]
    fn is_nested(&self) -> bool {
        // SAFETY: `self` is a valid vCPU, and only this task, which has it loaded, enters L2.
        unsafe { (*self.as_raw()).arch.hflags & bindings::HF_GUEST_MASK != 0 }
    }

    #[inline]
    fn is_protected(&self) -> bool {
        // SAFETY: `self` is a valid vCPU. This is set before its first VM-entry and never cleared.
        // As in C, an access may be concurrent to that; the vendor module handles it.
        unsafe { (*self.as_raw()).arch.guest_state_protected }
    }

    fn request(&self, request: Request) {
        let vcpu = self.as_raw();

        // SAFETY: `self` is a valid vCPU. Any task may make a request to it at any time.
        unsafe {
            match request {
                Request::ClockUpdate => bindings::kvm_msr_glue_request_clock_update(vcpu),
                Request::GlobalClockUpdate => {
                    bindings::kvm_msr_glue_request_global_clock_update(vcpu)
                }
                Request::MasterClockUpdate => {
                    bindings::kvm_msr_glue_request_master_clock_update(vcpu)
                }
                Request::RecalcIntercepts => bindings::kvm_msr_glue_request_recalc_intercepts(vcpu),
                Request::StealUpdate => bindings::kvm_msr_glue_request_steal_update(vcpu),
            }
        }
    }
}
