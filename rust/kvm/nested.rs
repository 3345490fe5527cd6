// SPDX-License-Identifier: GPL-2.0

//! Nested state, as the vendor module collects it and takes it: in kernel memory.
//!
//! C header: `struct kvm_x86_nested_ops` in `arch/x86/include/asm/kvm_host.h`.

use super::{
    host,
    user::NestedState,
    Vcpu, //
};
use crate::bindings;
use core::{
    ptr,
    slice, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// `struct kvm_nested_state` without data, in words of 64 bits.
pub(crate) type NestedHeader = [u64; 16];

const _: () = {
    assert!(size_of::<NestedHeader>() == size_of::<bindings::kvm_nested_state>());
    assert!(align_of::<NestedHeader>() >= align_of::<bindings::kvm_nested_state>());
};

/// `sizeof(struct vmcs12)`, in bytes. There is room for more in the state.
pub(crate) const VMCS12_SIZE: usize = bindings::KVM_MSR_VMCS12_SIZE as usize;

/// The size of vmcb12's save area, in bytes.
pub(crate) const VMCB12_SAVE_SIZE: usize = bindings::KVM_MSR_VMCB_SAVE_SIZE as usize;

const VMCB12_CONTROL_SIZE: usize = bindings::KVM_MSR_VMCB_CONTROL_SIZE as usize;
const VMCS12_ROOM: usize = bindings::KVM_STATE_NESTED_VMX_VMCS_SIZE as usize;

/// A vmcs12 as user space gives it, and what is to become of it.
pub(crate) struct Vmcs12<'a> {
    /// What of it could be read.
    pub(crate) bytes: &'a [u8],
    /// The same of its shadow, or nothing.
    pub(crate) shadow: &'a [u8],
    /// Why it is refused once it is the current one, if so.
    pub(crate) result: Result,
    /// Whether L2 is to be entered, unless that fails for a reason that is known already.
    pub(crate) enter_l2: Option<Result>,
}

/// Whether the vendor module does nested virtualisation.
#[inline]
pub(crate) fn is_enabled() -> bool {
    // SAFETY: The vendor module writes this when it is loaded, as it is while there are VMs.
    unsafe { (&raw const bindings::kvm_nested_ops.enabled).read() }
}

impl<P: Send + Sync> Vcpu<P> {
    /// The header of the state that the vCPU is in.
    #[inline]
    pub(crate) fn read_nested_header(&self, header: &mut NestedHeader) {
        // SAFETY: By the type invariants. The header is as large as the structure.
        unsafe { bindings::kvm_msr_glue_nested_header(self.as_raw(), header.as_mut_ptr().cast()) };
    }

    /// Writes what follows the header to so many bytes behind it: vmcs12 and its shadow, each if
    /// there is one, or vmcb12's control and save areas, of a vCPU that runs L2.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EFAULT` if not all can be written.
    pub(crate) fn write_nested_areas(&self, to: NestedState, offsets: [usize; 2]) -> Result {
        // SVM does not keep vmcb12's control area in the state's format, so it needs room.
        let (scratch_size, sizes) = if host::is_amd() {
            (VMCB12_CONTROL_SIZE, [VMCB12_CONTROL_SIZE, VMCB12_SAVE_SIZE])
        } else {
            (0, [VMCS12_ROOM; 2])
        };
        let mut scratch = KVec::<u8>::with_capacity(scratch_size, GFP_KERNEL)?;
        let mut areas = [ptr::null_mut::<c_void>(); 2];

        // SAFETY: By the type invariants. On AMD, the scratch has the size of a control area.
        unsafe {
            bindings::kvm_msr_glue_nested_areas(
                self.as_raw(),
                scratch.as_mut_ptr().cast(),
                areas.as_mut_ptr(),
            )
        };

        for ((area, size), offset) in areas.into_iter().zip(sizes).zip(offsets) {
            if !area.is_null() {
                // SAFETY: It is the scratch, or the vCPU's, initialised and of that size. By the
                // type invariants nobody else uses the vCPU until the slice is gone.
                let bytes = unsafe { slice::from_raw_parts(area.cast(), size) };

                to.write_data_at(offset, bytes)?;
            }
        }
        Ok(())
    }

    /// Leaves VMX operation. If the header has a VMXON region, enters it anew, and if there is a
    /// vmcs12, makes it the current one, and goes on as it says. Returns 0, or one of the vendor
    /// module's numbers for a VM-entry that failed later than by vmcs12: `enum
    /// nvmx_vmentry_status`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or the error in place of vmcs12, or one that it has, or `EINVAL` if it is one that
    /// VM-entry does not accept.
    pub(crate) fn set_nested_vmx(
        &self,
        header: &NestedHeader,
        vmcs12: Result<Option<Vmcs12<'_>>>,
    ) -> Result<c_int> {
        const NO_ADDRESS: u64 = u64::MAX;
        let [_, vmxon_pa, ..] = *header;

        if host::is_amd() {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariants. The header is as large as the structure.
        to_result(unsafe {
            bindings::kvm_msr_glue_nested_enter(self.as_raw(), header.as_ptr().cast())
        })?;
        if vmxon_pa == NO_ADDRESS {
            return Ok(0);
        }
        let Some(vmcs12) = vmcs12? else {
            return Ok(0);
        };

        let mut areas = [ptr::null_mut::<c_void>(); 2];
        // SAFETY: By the type invariants. The header is as large as the structure.
        unsafe {
            bindings::kvm_msr_glue_nested_load(
                self.as_raw(),
                header.as_ptr().cast(),
                areas.as_mut_ptr(),
            )
        };
        for (area, from) in areas.into_iter().zip([vmcs12.bytes, vmcs12.shadow]) {
            // SAFETY: The vCPU is in VMX operation, so each area is `VMCS12_ROOM` bytes of its,
            // which by the type invariants nobody else uses.
            let area: &mut [u8] = unsafe { slice::from_raw_parts_mut(area.cast(), VMCS12_ROOM) };

            if let Some(to) = area.get_mut(..from.len()) {
                to.copy_from_slice(from);
            }
        }

        vmcs12.result?;
        match vmcs12.enter_l2 {
            None => Ok(0),
            Some(known) => {
                let known = known.map_or_else(Error::to_errno, |()| 0);

                // The vCPU has a vmcs12.
                self.commit_nested(header, [ptr::null_mut(); 2], known)
            }
        }
    }

    /// Leaves nested mode, and enters L2 if there is a vmcb12: its control and save areas.
    ///
    /// # Errors
    ///
    /// `EINVAL` if vmcb12 is one that VMRUN does not accept, or there is none but the header says
    /// that L2 runs.
    pub(crate) fn commit_vmcb12(
        &self,
        header: &NestedHeader,
        vmcb12: Option<(&mut [u8], &mut [u8])>,
    ) -> Result<c_int> {
        let areas = match vmcb12 {
            Some((control, save))
                if control.len() >= VMCB12_CONTROL_SIZE && save.len() >= VMCB12_SAVE_SIZE =>
            {
                [control.as_mut_ptr().cast(), save.as_mut_ptr().cast()]
            }
            None if header[0] & u64::from(bindings::KVM_STATE_NESTED_GUEST_MODE) == 0 => {
                [ptr::null_mut(); 2]
            }
            _ => return Err(EINVAL),
        };

        if !host::is_amd() {
            return Err(EINVAL);
        }
        self.commit_nested(header, areas, 0)
    }

    fn commit_nested(
        &self,
        header: &NestedHeader,
        mut areas: [*mut c_void; 2],
        known: c_int,
    ) -> Result<c_int> {
        // SAFETY: By the type invariants. The header is as large as the structure. On SVM, the areas
        // are those of vmcb12 if the header needs such; the structures are packed, so that they may
        // be anywhere. On VMX, there is a vmcs12.
        let r = unsafe {
            bindings::kvm_msr_glue_nested_commit(
                self.as_raw(),
                header.as_ptr().cast(),
                areas.as_mut_ptr(),
                known,
            )
        };

        if r < 0 {
            return Err(Error::from_errno(r));
        }
        Ok(r)
    }

    /// Whether the vCPU is in system management mode.
    pub(crate) fn is_smm(&self) -> bool {
        #[cfg(CONFIG_KVM_SMM)]
        // SAFETY: By the type invariants.
        return unsafe { (*self.as_raw()).arch.hflags & bindings::HF_SMM_MASK != 0 };
        #[cfg(not(CONFIG_KVM_SMM))]
        return false;
    }

    /// CR0.
    pub(crate) fn cr0(&self) -> u64 {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_cr0(self.as_raw()) }
    }

    /// The bits that the guest's physical addresses do not have.
    pub(crate) fn reserved_address(&self) -> u64 {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.reserved_gpa_bits }
    }

    /// Whether user space enabled enlightened VMCSs.
    pub(crate) fn has_evmcs(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_has_evmcs(self.as_raw()) }
    }

    /// Whether L2's PAT is not L1's, if L1 uses nested paging.
    pub(crate) fn has_separate_pat(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_has_separate_pat(self.as_raw()) }
    }
}
