// SPDX-License-Identifier: GPL-2.0

//! How the handling of a guest access ends: in the guest, or in user space.

use super::{
    return_code::return_code,
    Counter,
    Vcpu, //
};
use crate::{
    bindings,
    engine::exit::Denial, //
};
use kernel::prelude::*;

/// What the run loop is to do after an exit was handled: positive values resume the guest, 0 goes
/// to user space, an errno fails `KVM_RUN`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Run(c_int);

impl Run {
    /// Go to user space, as `struct kvm_run` says.
    pub(crate) const TO_USER_SPACE: Self = Self(0);

    /// Resume the guest.
    const GUEST: Self = Self(1);

    /// Fail `KVM_RUN` with an errno. Only what is negative does.
    pub(crate) fn errno(denial: Denial) -> Option<Self> {
        (denial.get() < 0).then_some(Self(return_code(denial)))
    }

    #[inline]
    pub(super) fn into_code(self) -> c_int {
        self.0
    }
}

/// What the emulator is to do after an access.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Emulation {
    /// Go on: the access is done.
    Continue,
    /// Stop, and let user space finish the access.
    UserSpace,
    /// Inject the exception, `#GP`.
    Fault,
    /// Give up.
    Unhandleable,
}

impl Emulation {
    pub(super) fn into_code(self) -> c_int {
        let code = match self {
            Self::Continue => bindings::X86EMUL_CONTINUE,
            Self::UserSpace => bindings::X86EMUL_IO_NEEDED,
            Self::Fault => bindings::X86EMUL_PROPAGATE_FAULT,
            Self::Unhandleable => bindings::X86EMUL_UNHANDLEABLE,
        };
        // They are small.
        code as c_int
    }
}

/// What is to be done after an exit was, or was not, handled while interrupts are off.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Fastpath {
    /// It was not: take the slow path.
    None,
    /// It was: enter the guest again.
    Reenter,
    /// It was, and user space is to be told, as it single-steps the guest.
    UserSpace,
}

impl Fastpath {
    pub(super) fn into_code(self) -> bindings::fastpath_t {
        match self {
            Self::None => bindings::exit_fastpath_completion_EXIT_FASTPATH_NONE,
            Self::Reenter => bindings::exit_fastpath_completion_EXIT_FASTPATH_REENTER_GUEST,
            Self::UserSpace => bindings::exit_fastpath_completion_EXIT_FASTPATH_EXIT_USERSPACE,
        }
    }
}

/// An access that user space is asked to answer.
#[derive(Clone, Copy)]
pub(crate) struct UserSpaceExit {
    /// The MSR's index.
    pub(crate) index: u32,
    /// The value that the guest writes, or [`None`] if it reads.
    pub(crate) write: Option<u64>,
    /// Why, one of `KVM_MSR_EXIT_REASON_*`.
    pub(crate) reason: u32,
}

/// What finishes an access when `KVM_RUN` is called again, after user space had its say.
pub(crate) trait Completion<P> {
    /// Finishes the access. It is the run loop's turn again after that.
    fn complete(vcpu: &Vcpu<P>) -> Run;
}

/// # Safety
///
/// As a `complete_userspace_io`, which is to say with a vCPU that meets the invariants of
/// [`Vcpu<P>`].
unsafe extern "C" fn complete<P: Send + Sync, C: Completion<P>>(
    vcpu: *mut bindings::kvm_vcpu,
) -> c_int {
    // SAFETY: The run loop, which calls this, has the vCPU loaded.
    C::complete(unsafe { Vcpu::from_raw(vcpu) }).into_code()
}

impl<P: Send + Sync> Vcpu<P> {
    /// Fills `struct kvm_run` for an exit to user space, and arranges for the completion.
    pub(crate) fn exit_to_user_space<C: Completion<P>>(&self, exit: UserSpaceExit) {
        self.count(Counter::UserSpace, 1);

        // SAFETY: `self` is a valid vCPU, and `run` is its page that user space maps, valid as long
        // as the vCPU. User space can write it at any time, so nothing is read back.
        unsafe {
            let run = (*self.as_raw()).run;
            let msr = &raw mut (*run).__bindgen_anon_1.msr;

            (&raw mut (*run).exit_reason).write_volatile(if exit.write.is_some() {
                bindings::KVM_EXIT_X86_WRMSR
            } else {
                bindings::KVM_EXIT_X86_RDMSR
            });
            (&raw mut (*msr).error).write_volatile(0);
            (&raw mut (*msr).pad).write_volatile([0; 7]);
            (&raw mut (*msr).reason).write_volatile(exit.reason);
            (&raw mut (*msr).index).write_volatile(exit.index);
            (&raw mut (*msr).data).write_volatile(exit.write.unwrap_or(0));
            (*self.as_raw()).arch.complete_userspace_io = Some(complete::<P, C>);
        }
    }

    /// Reads user space's answer: the value that the guest is to read, or [`None`] if the access
    /// is to fail.
    ///
    /// User space can change it at any time, so it is read just once.
    pub(crate) fn user_space_answer(&self) -> Option<u64> {
        // SAFETY: `self` is a valid vCPU, and `run` is its page that user space maps, valid as long
        // as the vCPU.
        unsafe {
            let msr = &raw const (*(*self.as_raw()).run).__bindgen_anon_1.msr;
            let error = (&raw const (*msr).error).read_volatile();

            (error == 0).then(|| (&raw const (*msr).data).read_volatile())
        }
    }

    /// Ends a RDMSR or WRMSR exit: skips the instruction, or injects `#GP` if there is a denial.
    #[inline]
    pub(crate) fn complete_access(&self, access: Result<(), Denial>) -> Run {
        let err = access.map_or_else(return_code, |()| 0);

        // SAFETY: `self` is a valid vCPU that this task has loaded, and the vendor module is there as
        // long as a VM is.
        Run(unsafe { bindings::kvm_msr_glue_complete_access(self.as_raw(), err) })
    }

    /// Ends an access of the emulator, which waits for user space: has it skip the instruction.
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
        unsafe { bindings::kvm_msr_glue_inject_gp(self.as_raw()) };
        Run::GUEST
    }
}
