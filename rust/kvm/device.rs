// SPDX-License-Identifier: GPL-2.0

//! VMs and vCPUs as files of `/dev/kvm-msr` use them: by a file descriptor, and by an ID.

use super::{
    host::VendorLoaded,
    Vcpu,
    Vm,
    VmState, //
};
use crate::bindings;
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    fs::LocalFile,
    prelude::*,
    sync::Arc, //
};

/// Finds the VM of a file descriptor, and returns what the engine keeps for it.
///
/// # Errors
///
/// `EBADF` if it is not an open file descriptor, `EINVAL` if it is not a VM's, and `EOPNOTSUPP` if
/// the engine does not serve the VM.
pub(crate) fn state_of_fd(fd: i32) -> Result<Arc<VmState>> {
    // A negative number is above the largest file descriptor.
    let file = LocalFile::fget(fd as u32)?;
    let raw: *mut bindings::file = file.as_ptr().cast();

    // SAFETY: `file` is a valid file.
    if !unsafe { bindings::file_is_kvm(raw) } {
        return Err(EINVAL);
    }
    // SAFETY: The private data of a VM's file is the VM, of which the file has a reference.
    let kvm: *mut bindings::kvm = unsafe { (*raw).private_data }.cast();

    // SAFETY: `kvm` is a valid VM. The pointer does not change after KVM_CREATE_VM, which returns
    // the file descriptor.
    if unsafe { (*kvm).arch.msr_engine }.is_null() {
        return Err(EOPNOTSUPP);
    }
    // SAFETY: The engine serves the VM, and `file` keeps it alive during the call.
    Ok(unsafe { Vm::from_raw(kvm) }.shared_state().into())
}

/// Lets other tasks run, between parts of a long ioctl.
///
/// # Errors
///
/// `EINTR` if a signal is pending.
pub(crate) fn pause() -> Result {
    // SAFETY: An ioctl may sleep here.
    to_result(unsafe { bindings::kvm_msr_glue_pause() })
}

/// A reference to a VM that keeps it alive.
///
/// # Invariants
///
/// The engine serves the VM, and this has a reference to it.
pub(crate) struct VmRef(NonNull<bindings::kvm>);

impl VmRef {
    /// # Safety
    ///
    /// The engine must serve `kvm`, and the caller passes a reference to it.
    pub(super) unsafe fn from_raw(kvm: *mut bindings::kvm) -> Self {
        // INVARIANT: The caller passes the reference.
        // SAFETY: A VM's address is not null.
        Self(unsafe { NonNull::new_unchecked(kvm) })
    }

    /// Proof that the vendor module is loaded: the VM references it.
    pub(crate) fn host(&self) -> VendorLoaded<'_> {
        // SAFETY: Each VM references the vendor module.
        unsafe { VendorLoaded::assume() }
    }

    /// Whether the current task has the VM's address space. Guest memory can only be reached
    /// there.
    pub(crate) fn is_own(&self) -> bool {
        // SAFETY: `self` is a valid VM.
        unsafe { bindings::kvm_msr_glue_is_own(self.0.as_ptr()) }
    }

    /// Loads a vCPU, and calls `access` with it. Waits up to `timeout_ms` milliseconds for a vCPU
    /// that is in use, e.g. in `KVM_RUN`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the VM has no such vCPU, `EBUSY` if the time is over, `EINTR` if a signal is
    /// pending, and `EIO` if KVM has given up on the VM.
    pub(crate) fn with_vcpu<T>(
        &self,
        id: u32,
        timeout_ms: u32,
        access: impl FnOnce(&Vcpu) -> T,
    ) -> Result<T> {
        // SAFETY: `self` is a valid VM. The function takes any ID.
        let vcpu = unsafe { bindings::kvm_msr_glue_vcpu_by_id(self.0.as_ptr(), id) };

        if vcpu.is_null() {
            return Err(ENOENT);
        }
        // SAFETY: `vcpu` is a valid vCPU: vCPUs that are online stay until the VM ends.
        to_result(unsafe { bindings::kvm_msr_glue_lock_vcpu(vcpu, timeout_ms) })?;
        // SAFETY: As above; the function above loaded it for this task.
        let result = access(unsafe { Vcpu::from_raw(vcpu) });

        // SAFETY: As above.
        unsafe { bindings::kvm_msr_glue_unlock_vcpu(vcpu) };
        Ok(result)
    }
}

impl Deref for VmRef {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        // SAFETY: The engine serves the VM, and `self` has a reference to it.
        unsafe { Vm::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for VmRef {
    fn drop(&mut self) {
        // SAFETY: `self` has a reference, which it gives up. If that is the last one, this destroys
        // the VM; the open file keeps the module loaded.
        unsafe { bindings::kvm_put_kvm(self.0.as_ptr()) };
    }
}
