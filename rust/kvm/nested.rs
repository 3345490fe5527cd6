// SPDX-License-Identifier: GPL-2.0

//! Nested state in kernel memory, in the form that the vendor module saves and restores.
//!
//! C header: `struct kvm_x86_nested_ops` in `arch/x86/include/asm/kvm_host.h`.

use super::{
    host,
    Vcpu, //
};
use crate::{
    bindings,
    engine::{
        cpu::Cpuid,
        nested::{
            Header,
            AREA_SIZE,
            GUEST_MODE, //
        },
        registers::Feature,
    },
};
use core::{
    ptr,
    slice, //
};
use kernel::prelude::*;

const _: () = {
    assert!(size_of::<Header>() == size_of::<bindings::kvm_nested_state>());
    assert!(align_of::<Header>() >= align_of::<bindings::kvm_nested_state>());
};

/// `sizeof(struct vmcs12)`, in bytes. It is less than the size of its area in the state.
pub(crate) const SIZEOF_VMCS12: usize = size_of::<bindings::vmcs12>();

/// The size of vmcb12's control area, in bytes.
pub(crate) const VMCB12_CONTROL_SIZE: usize = size_of::<bindings::vmcb_control_area>();

/// The size of vmcb12's save area, in bytes.
pub(crate) const VMCB12_SAVE_SIZE: usize = size_of::<bindings::vmcb_save_area>();

/// Whether the vendor module supports nested virtualization.
#[inline]
pub(crate) fn is_enabled() -> bool {
    // SAFETY: The vendor module writes this only while it is loaded, before any VM exists.
    unsafe { (&raw const bindings::kvm_nested_ops.enabled).read() }
}

impl Header {
    fn as_raw(&self) -> *const bindings::kvm_nested_state {
        // CAST: `Header` has the structure's size and at least its alignment.
        ptr::from_ref(self).cast()
    }
}

impl Vcpu {
    /// Gets the header of the vCPU's nested state.
    #[inline]
    pub(crate) fn get_nested_header(&self, header: &mut Header) {
        // SAFETY: The vCPU is valid and loaded. `header` has the structure's size and alignment.
        unsafe {
            bindings::kvm_msr_glue_nested_header(self.as_raw(), ptr::from_mut(header).cast())
        };
    }

    /// Calls `take` with the areas that follow the header: on VMX, vmcs12 and its shadow VMCS, each
    /// if it exists; on SVM, the control and save areas of vmcb12. On SVM, the vCPU must run L2.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or the error of `take`.
    pub(crate) fn with_nested_areas(
        &self,
        take: impl FnOnce([Option<&[u8]>; 2]) -> Result,
    ) -> Result {
        // SVM caches the controls of vmcb12 in another format, and needs a buffer to convert them.
        let (buffer_size, sizes) = if host::is_amd() {
            (VMCB12_CONTROL_SIZE, [VMCB12_CONTROL_SIZE, VMCB12_SAVE_SIZE])
        } else {
            (0, [AREA_SIZE as usize; 2])
        };
        let mut buffer = KVec::<u8>::with_capacity(buffer_size, GFP_KERNEL)?;
        let mut areas = [ptr::null_mut::<c_void>(); 2];

        // SAFETY: The vCPU is valid and loaded. On AMD, the buffer has the size of a control area.
        unsafe {
            bindings::kvm_msr_glue_nested_areas(
                self.as_raw(),
                buffer.as_mut_ptr().cast(),
                areas.as_mut_ptr(),
            )
        };
        let [first, second] = areas;
        let [first_size, second_size] = sizes;
        let bytes = |area: *mut c_void, size| {
            // SAFETY: The area is the buffer or memory of the vCPU. It has this size and is
            // initialized, and nobody else uses the vCPU while it is loaded.
            (!area.is_null()).then(|| unsafe { slice::from_raw_parts(area.cast(), size) })
        };

        take([bytes(first, first_size), bytes(second, second_size)])
    }

    /// Leaves VMX operation, and enters it if the header has a VMXON region.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EINVAL` on AMD.
    pub(crate) fn enter_vmx(&self, header: &Header) -> Result<Option<VmxOperation<'_>>> {
        if host::is_amd() {
            return Err(EINVAL);
        }
        // SAFETY: The vCPU is valid and loaded.
        kernel::error::to_result(unsafe {
            bindings::kvm_msr_glue_nested_enter(self.as_raw(), header.as_raw())
        })?;
        // INVARIANT: With a VMXON region, the vCPU has entered VMX operation.
        Ok(header
            .has_vmxon_region()
            .then_some(VmxOperation { vcpu: self }))
    }

    /// Leaves nested mode, and enters L2 if `vmcb12` is given, as its control and save areas.
    ///
    /// # Errors
    ///
    /// `EINVAL` if VMRUN does not accept vmcb12, or if the header says that L2 runs but there is no
    /// vmcb12.
    pub(crate) fn enter_vmcb12(
        &self,
        header: &Header,
        vmcb12: Option<(&mut [u8], &mut [u8])>,
    ) -> Result<c_int> {
        let areas = match vmcb12 {
            Some((control, save))
                if control.len() >= VMCB12_CONTROL_SIZE && save.len() >= VMCB12_SAVE_SIZE =>
            {
                [control.as_mut_ptr().cast(), save.as_mut_ptr().cast()]
            }
            None if !header.has(GUEST_MODE) => [ptr::null_mut(); 2],
            _ => return Err(EINVAL),
        };

        if !host::is_amd() {
            return Err(EINVAL);
        }
        // SAFETY: This is SVM, and the areas are vmcb12's if the header says that L2 runs. The
        // structures are packed, so they need no alignment.
        unsafe { self.commit_nested(header, areas, Ok(())) }
    }

    /// # Safety
    ///
    /// On SVM, `areas` must be the control and save areas of vmcb12 if the header says that L2
    /// runs. On VMX, the vCPU must have a vmcs12.
    unsafe fn commit_nested(
        &self,
        header: &Header,
        mut areas: [*mut c_void; 2],
        known: Result,
    ) -> Result<c_int> {
        let known = known.map_or_else(Error::to_errno, |()| 0);
        // SAFETY: The vCPU is valid and loaded. The caller passes valid areas on SVM, and a vCPU
        // with a vmcs12 on VMX.
        let ret = unsafe {
            bindings::kvm_msr_glue_nested_commit(
                self.as_raw(),
                header.as_raw(),
                areas.as_mut_ptr(),
                known,
            )
        };

        if ret < 0 {
            return Err(Error::from_errno(ret));
        }
        Ok(ret)
    }
}

/// A vCPU in VMX operation.
///
/// # Invariants
///
/// The vCPU is in VMX operation.
pub(crate) struct VmxOperation<'a> {
    vcpu: &'a Vcpu,
}

impl<'a> VmxOperation<'a> {
    /// Makes vmcs12 the current VMCS, and copies its shadow VMCS. `shadow` may be empty.
    pub(crate) fn load_vmcs12(
        self,
        header: &Header,
        vmcs12: &[u8],
        shadow: &[u8],
    ) -> LoadedVmcs12<'a> {
        let mut areas = [ptr::null_mut::<c_void>(); 2];

        // SAFETY: The vCPU is valid, loaded and in VMX operation.
        unsafe {
            bindings::kvm_msr_glue_nested_load(
                self.vcpu.as_raw(),
                header.as_raw(),
                areas.as_mut_ptr(),
            )
        };
        for (area, from) in areas.into_iter().zip([vmcs12, shadow]) {
            // SAFETY: In VMX operation, the vCPU has a buffer of `AREA_SIZE` bytes for each area,
            // and nobody else uses the vCPU while it is loaded.
            let area: &mut [u8] =
                unsafe { slice::from_raw_parts_mut(area.cast(), AREA_SIZE as usize) };

            if let Some(to) = area.get_mut(..from.len()) {
                to.copy_from_slice(from);
            }
        }
        // INVARIANT: vmcs12 was just loaded.
        LoadedVmcs12 { vcpu: self.vcpu }
    }
}

/// A vCPU with a current VMCS.
///
/// # Invariants
///
/// The vCPU has a vmcs12.
pub(crate) struct LoadedVmcs12<'a> {
    vcpu: &'a Vcpu,
}

impl LoadedVmcs12<'_> {
    /// Enters L2, unless `known` is an error. Returns 0, or a value of `enum nvmx_vmentry_status`
    /// if the VM-entry fails.
    ///
    /// # Errors
    ///
    /// The error in `known`, `ENOMEM`, or `EINVAL` if VM-entry does not accept vmcs12.
    pub(crate) fn enter_l2(self, header: &Header, known: Result) -> Result<c_int> {
        // SAFETY: This is VMX, and `load_vmcs12()` gave the vCPU a vmcs12.
        unsafe { self.vcpu.commit_nested(header, [ptr::null_mut(); 2], known) }
    }
}

impl Vcpu {
    /// Whether the vCPU is in system management mode.
    pub(crate) fn is_smm(&self) -> bool {
        #[cfg(CONFIG_KVM_SMM)]
        // SAFETY: The vCPU is valid, and nobody else writes its flags while it is loaded.
        return unsafe { (*self.as_raw()).arch.hflags & bindings::HF_SMM_MASK != 0 };
        #[cfg(not(CONFIG_KVM_SMM))]
        return false;
    }

    /// The vCPU's CR0: L2's while L2 runs.
    pub(crate) fn cr0(&self) -> u64 {
        // SAFETY: The vCPU is valid and loaded.
        unsafe { bindings::kvm_msr_glue_cr0(self.as_raw()) }
    }

    /// The bits beyond the guest's physical address width.
    pub(crate) fn reserved_address(&self) -> u64 {
        // SAFETY: The vCPU is valid, and nobody else writes this while it is loaded.
        unsafe { (*self.as_raw()).arch.reserved_gpa_bits }
    }

    /// Whether user space enabled enlightened VMCSs.
    pub(crate) fn has_evmcs(&self) -> bool {
        // SAFETY: The vCPU is valid and loaded.
        unsafe { bindings::kvm_msr_glue_has_evmcs(self.as_raw()) }
    }

    /// Whether L2 has a PAT that is separate from L1's if L1 uses nested paging.
    pub(crate) fn has_separate_pat(&self) -> bool {
        self.has(Feature::Npt)
            && !self
                .vm()
                .has_quirk(bindings::KVM_X86_QUIRK_NESTED_SVM_SHARED_PAT)
    }
}
