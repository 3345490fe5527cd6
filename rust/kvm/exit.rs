// SPDX-License-Identifier: GPL-2.0

//! The outcomes of guest accesses, and the return codes of KVM's functions that access MSRs.

use super::{
    Counter,
    Vcpu, //
};
use crate::{
    bindings,
    engine::{
        access::Result,
        exit::Denial, //
    },
};
use core::mem::MaybeUninit;
use kernel::prelude::*;

/// What the run loop does after a VM-exit was handled: a positive value resumes the guest, 0 exits
/// to user space, an errno fails `KVM_RUN`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Run(pub(super) c_int);

impl Run {
    /// Exit to user space, with the reason in `struct kvm_run`.
    pub(crate) const TO_USER_SPACE: Self = Self(0);

    /// Resume the guest.
    const GUEST: Self = Self(1);

    /// Fail `KVM_RUN` with an errno. Returns [`None`] if the denial is not an errno, i.e. not
    /// negative.
    pub(crate) fn errno(denial: Denial) -> Option<Self> {
        (denial.get() < 0).then_some(Self(return_code(denial)))
    }
}

/// What the instruction emulator does after an access.
#[must_use]
#[repr(u32)]
pub(crate) enum Emulation {
    /// Continue: the access is complete.
    Continue = bindings::X86EMUL_CONTINUE,
    /// Stop, and let user space finish the access.
    UserSpace = bindings::X86EMUL_IO_NEEDED,
    /// Inject the exception, `#GP`.
    Fault = bindings::X86EMUL_PROPAGATE_FAULT,
    /// Give up.
    Unhandleable = bindings::X86EMUL_UNHANDLEABLE,
}

/// The outcome of a VM-exit on the fast path, which runs with interrupts disabled.
#[must_use]
#[repr(u32)]
pub(crate) enum Fastpath {
    /// The VM-exit was not handled: take the slow path.
    None = bindings::exit_fastpath_completion_EXIT_FASTPATH_NONE,
    /// The VM-exit was handled: enter the guest again.
    Reenter = bindings::exit_fastpath_completion_EXIT_FASTPATH_REENTER_GUEST,
    /// The VM-exit was handled, and KVM exits to user space, which single-steps the guest.
    UserSpace = bindings::exit_fastpath_completion_EXIT_FASTPATH_EXIT_USERSPACE,
}

/// Completes an access in the next `KVM_RUN`, with the answer of user space.
pub(crate) trait Completion {
    /// Completes the access, and returns what the run loop does next.
    fn complete(vcpu: &Vcpu) -> Run;
}

/// # Safety
///
/// `vcpu` must meet the invariants of [`Vcpu`]. The run loop calls this as the vCPU's
/// `complete_userspace_io`.
unsafe extern "C" fn complete<C: Completion>(vcpu: *mut bindings::kvm_vcpu) -> c_int {
    // SAFETY: The run loop, which calls this, has the vCPU loaded.
    C::complete(unsafe { Vcpu::from_raw(vcpu) }).0
}

impl Vcpu {
    /// Fills in `struct kvm_run` for an exit to user space, and sets the completion. `write` is the
    /// value that the guest writes, or [`None`] if it reads. `reason` is one of
    /// `KVM_MSR_EXIT_REASON_*`.
    pub(crate) fn exit_to_user_space<C: Completion>(
        &self,
        index: u32,
        write: Option<u64>,
        reason: u32,
    ) {
        self.count(Counter::UserSpace, 1);

        // SAFETY: `self` is a valid vCPU, and its `run` page is valid as long as the vCPU. User
        // space maps that page and can write it at any time, so nothing is read back.
        unsafe {
            let run = (*self.as_raw()).run;
            let msr = &raw mut (*run).__bindgen_anon_1.msr;

            (&raw mut (*run).exit_reason).write_volatile(if write.is_some() {
                bindings::KVM_EXIT_X86_WRMSR
            } else {
                bindings::KVM_EXIT_X86_RDMSR
            });
            (&raw mut (*msr).error).write_volatile(0);
            (&raw mut (*msr).pad).write_volatile([0; 7]);
            (&raw mut (*msr).reason).write_volatile(reason);
            (&raw mut (*msr).index).write_volatile(index);
            (&raw mut (*msr).data).write_volatile(write.unwrap_or(0));
            (*self.as_raw()).arch.complete_userspace_io = Some(complete::<C>);
        }
    }

    /// Reads user space's answer: the value for the guest to read, or [`None`] if the access fails.
    ///
    /// User space can change it at any time, so it is read just once.
    pub(crate) fn user_space_answer(&self) -> Option<u64> {
        // SAFETY: `self` is a valid vCPU, and its `run` page is valid as long as the vCPU.
        unsafe {
            let msr = &raw const (*(*self.as_raw()).run).__bindgen_anon_1.msr;
            let error = (&raw const (*msr).error).read_volatile();

            (error == 0).then(|| (&raw const (*msr).data).read_volatile())
        }
    }

    /// The index of the MSR that user space was asked for, or any other if user space has changed it
    /// in the meantime.
    pub(crate) fn user_space_index(&self) -> u32 {
        // SAFETY: `self` is a valid vCPU, and its `run` page is valid as long as the vCPU.
        unsafe { (&raw const (*(*self.as_raw()).run).__bindgen_anon_1.msr.index).read_volatile() }
    }

    /// Completes an RDMSR or WRMSR exit: skips the instruction, or injects `#GP` if the access was
    /// denied.
    #[inline]
    pub(crate) fn complete_access(&self, access: Result) -> Run {
        let err = access.map_or_else(return_code, |()| 0);

        // SAFETY: `self` is a valid vCPU that this task has loaded, and its VM references the
        // vendor module, which the function calls.
        Run(unsafe { bindings::kvm_msr_glue_complete_access(self.as_raw(), err) })
    }

    /// Completes an access of the emulator after user space has answered: the emulator skips the
    /// instruction.
    pub(crate) fn complete_emulation(&self) -> Run {
        const HOW: u32 = bindings::EMULTYPE_NO_DECODE
            | bindings::EMULTYPE_SKIP
            | bindings::EMULTYPE_COMPLETE_USER_EXIT;

        // SAFETY: `self` is a valid vCPU that this task has loaded, in the run loop's section of
        // `kvm->srcu`.
        Run(unsafe { bindings::kvm_emulate_instruction(self.as_raw(), HOW as c_int) })
    }

    /// Skips the instruction, on the fast path.
    pub(crate) fn skip_instruction_fast(&self) -> Fastpath {
        // SAFETY: `self` is a valid vCPU that this task has loaded.
        if unsafe { bindings::kvm_skip_emulated_instruction(self.as_raw()) } == 0 {
            Fastpath::UserSpace
        } else {
            Fastpath::Reenter
        }
    }

    /// Injects `#GP`.
    pub(crate) fn inject_gp(&self) -> Run {
        // SAFETY: `self` is a valid vCPU that this task has loaded.
        unsafe { bindings::kvm_queue_exception_e(self.as_raw(), bindings::GP_VECTOR, 0) };
        Run::GUEST
    }
}

/// Converts a return code to a result.
#[inline]
pub(super) fn to_result(code: c_int) -> Result {
    if code == 0 {
        return Ok(());
    }
    denied(code)
}

/// Not inlined, so that the compiler keeps successful accesses apart, without a result to test.
#[cold]
#[inline(never)]
fn denied(code: c_int) -> Result {
    Denial::new(code.into()).map_or(Ok(()), Err)
}

/// Converts a denial to a return code.
#[inline]
pub(super) fn return_code(denial: Denial) -> c_int {
    // It fits: denials are return codes of KVM's functions, or small constants.
    denial.get() as c_int
}

/// Calls a function that stores the value it reads, and returns that value.
///
/// # Safety
///
/// The function must store a value whenever it returns 0.
#[inline]
pub(super) unsafe fn read_with(read: impl FnOnce(*mut u64) -> c_int) -> Result<u64> {
    let mut data = MaybeUninit::uninit();

    to_result(read(data.as_mut_ptr()))?;
    // SAFETY: The function returned 0, so it has stored a value.
    Ok(unsafe { data.assume_init() })
}
