// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_NESTED_STATE` and `KVM_SET_NESTED_STATE`.

use crate::{
    bindings,
    engine::{
        access::efer,
        cpu::{
            Cpuid,
            Fields, //
        },
        nested::{
            check,
            is_copied,
            reported_size,
            svm,
            vmx,
            Format,
            Header,
            AREA_SIZE,
            GUEST_MODE, //
        },
        registers::{
            Feature,
            Field, //
        },
    },
    kvm::{
        host,
        nested::{
            self,
            SIZEOF_VMCS12,
            VMCB12_SAVE_SIZE, //
        },
        user::NestedState,
        Vcpu, //
    },
};
use core::mem::offset_of;
use kernel::prelude::*;

// Checks the constants of the engine's rules against the kernel's headers.
const _: () = {
    assert!(svm::CONTROL_SIZE == size_of::<bindings::vmcb_control_area>());
    assert!(svm::MISC_CTL == offset_of!(bindings::vmcb_control_area, misc_ctl));
    assert!(svm::SAVE_EFER == offset_of!(bindings::vmcb_save_area, efer));
    assert!(svm::SAVE_CR0 == offset_of!(bindings::vmcb_save_area, cr0));
    assert!(svm::SAVE_RFLAGS == offset_of!(bindings::vmcb_save_area, rflags));
    assert!(vmx::REVISION == bindings::VMCS12_REVISION);
    assert!(vmx::VMCS_LINK_POINTER == offset_of!(bindings::vmcs12, vmcs_link_pointer));
    assert!(vmx::CPU_BASED_CONTROL == offset_of!(bindings::vmcs12, cpu_based_vm_exec_control));
    assert!(vmx::SECONDARY_CONTROL == offset_of!(bindings::vmcs12, secondary_vm_exec_control));
    assert!(AREA_SIZE == bindings::KVM_STATE_NESTED_VMX_VMCS_SIZE);
    assert!(AREA_SIZE == bindings::KVM_STATE_NESTED_SVM_VMCB_SIZE);
    assert!(svm::CONTROL_SIZE + VMCB12_SAVE_SIZE <= AREA_SIZE as usize);
    assert!(SIZEOF_VMCS12 <= AREA_SIZE as usize);
};

/// `KVM_GET_NESTED_STATE`
///
/// # Errors
///
/// `EINVAL` if nested virtualization is disabled; `E2BIG` if the state does not fit, after writing
/// its size; `EFAULT` if user memory can't be read or written; `ENOMEM`.
pub(crate) fn get_nested_state(vcpu: &Vcpu, state: NestedState) -> Result {
    if !nested::is_enabled() {
        return Err(EINVAL);
    }
    let room = state.read_size()?;
    let mut header = Header::default();
    vcpu.get_nested_header(&mut header);
    let size = reported_size(format(), room, header.size());

    if is_copied(format(), room, size) {
        state.write_header(&header)?;
        write_areas(vcpu, &state, &header)?;
    }
    if size > room {
        state.write_size(size)?;
        return Err(E2BIG);
    }
    Ok(())
}

/// Writes the data areas after the header.
fn write_areas(vcpu: &Vcpu, state: &NestedState, header: &Header) -> Result {
    match format() {
        // The vendor module decides which areas exist. As in C, a shadow VMCS is written even if
        // the reported size does not include it, which is the case while the vCPU runs L1.
        Format::Vmx => write_at(vcpu, state, [0, AREA_SIZE as usize]),
        Format::Svm if header.has(GUEST_MODE) => write_vmcb12(vcpu, state).inspect_err(|_| {
            // C clears the area before it fills it, so user space finds zeros there after a
            // failure.
            let _ = state.clear_data(0, AREA_SIZE as usize);
        }),
        Format::Svm => Ok(()),
    }
}

/// Writes vmcb12, and zeros up to the end of its area.
fn write_vmcb12(vcpu: &Vcpu, state: &NestedState) -> Result {
    const SIZE: usize = svm::CONTROL_SIZE + VMCB12_SAVE_SIZE;

    state.clear_data(SIZE, AREA_SIZE as usize - SIZE)?;
    write_at(vcpu, state, [0, svm::CONTROL_SIZE])
}

fn write_at(vcpu: &Vcpu, state: &NestedState, offsets: [usize; 2]) -> Result {
    vcpu.with_nested_areas(|areas| {
        for (area, offset) in areas.into_iter().zip(offsets) {
            if let Some(bytes) = area {
                state.write_data(offset, bytes)?;
            }
        }
        Ok(())
    })
}

/// `KVM_SET_NESTED_STATE`. Returns the ioctl's return value: 0, or a value of `enum
/// nvmx_vmentry_status` if the VM-entry to L2 fails.
///
/// # Errors
///
/// `EINVAL` if nested virtualization is disabled or the state is invalid for the vCPU; `EFAULT` if
/// user memory can't be read; `ENOMEM`. On SVM, the vCPU stays in L2 if its CR3 can't be loaded. On
/// VMX, [`vmx`] describes the effects of a failure.
pub(crate) fn set_nested_state(vcpu: &Vcpu, state: NestedState) -> Result<c_int> {
    if !nested::is_enabled() {
        return Err(EINVAL);
    }
    let mut header = Header::default();

    state.read_header(&mut header)?;
    check(&header)?;

    let _section = vcpu.vm().read_section();

    match format() {
        Format::Vmx => set_vmx(vcpu, &state, &header),
        Format::Svm => set_svm(vcpu, &state, &header),
    }
}

fn set_svm(vcpu: &Vcpu, state: &NestedState, header: &Header) -> Result<c_int> {
    let cpu = svm::Cpu {
        svme: vcpu.field(Field::Efer) & efer::SVME != 0,
        smm: vcpu.is_smm(),
        reserved_address: vcpu.reserved_address(),
    };

    svm::check(header, &cpu)?;

    if !header.has(GUEST_MODE) {
        return vcpu.enter_vmcb12(header, None);
    }

    let mut vmcb12 = state.read_first(svm::CONTROL_SIZE + VMCB12_SAVE_SIZE)?;
    let (control, save) = vmcb12
        .split_at_mut_checked(svm::CONTROL_SIZE)
        .ok_or(EINVAL)?;

    svm::check_vmcb12(
        header,
        vcpu.cr0(),
        || vcpu.has_separate_pat(),
        control,
        save,
    )?;
    vcpu.enter_vmcb12(header, Some((control, save)))
}

fn set_vmx(vcpu: &Vcpu, state: &NestedState, header: &Header) -> Result<c_int> {
    let cpu = vmx::Cpu {
        vmx: vcpu.has(Feature::Vmx),
        evmcs: vcpu.has_evmcs(),
        smm: vcpu.is_smm(),
        reserved_address: vcpu.reserved_address(),
        vmcs12_size: SIZEOF_VMCS12 as u32,
    };

    vmx::check(header, &cpu)?;

    // User memory is read here, before any state changes. An error is reported only at the step at
    // which C reads that memory, so that user space sees the same order of errors.
    let has_vmcs12 = vmx::has_vmcs12(header, &cpu);
    let mut vmcs12 = Area::missing(Ok(()));
    let mut shadow = Area::missing(Ok(()));

    if header.has_vmxon_region() && has_vmcs12 == Ok(true) {
        vmcs12 = Area::read(state, 0)?;
        if vmcs12.result.is_ok() {
            vmcs12.result = vmx::check_vmcs12(&vmcs12.bytes).map_err(Into::into);
        }
        if vmcs12.result.is_ok() && header.has(GUEST_MODE) && vmx::has_shadow(&vmcs12.bytes) {
            shadow = match vmx::check_shadow_size(header, &cpu) {
                Ok(()) => Area::read(state, AREA_SIZE as usize)?,
                Err(error) => Area::missing(Err(error.into())),
            };
        }
    }

    let Some(vmx) = vcpu.enter_vmx(header)? else {
        return Ok(0);
    };

    if !has_vmcs12? {
        return Ok(0);
    }
    let loaded = vmx.load_vmcs12(header, &vmcs12.bytes, &shadow.bytes);

    vmcs12.result?;
    if !header.has(GUEST_MODE) {
        return Ok(0);
    }
    loaded.enter_l2(header, shadow.result)
}

/// vmcs12 or its shadow VMCS, as user space passes it.
struct Area {
    /// The contents, or empty if there are none. Bytes that can't be read are 0.
    bytes: KVec<u8>,
    /// The error of the area, if it is invalid or can't be read.
    result: Result,
}

impl Area {
    const fn missing(result: Result) -> Self {
        Self {
            bytes: KVec::new(),
            result,
        }
    }

    /// Reads the area at `offset` bytes from the header's end.
    fn read(state: &NestedState, offset: usize) -> Result<Self> {
        let mut bytes = KVec::from_elem(0, SIZEOF_VMCS12, GFP_KERNEL)?;
        let result = state.read_data(offset, &mut bytes);

        Ok(Self { bytes, result })
    }
}

fn format() -> Format {
    if host::is_amd() {
        Format::Svm
    } else {
        Format::Vmx
    }
}
