// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_NESTED_STATE` and `KVM_SET_NESTED_STATE`.

use super::Vcpu;
use crate::{
    bindings,
    engine::{
        access::{
            efer,
            Cpu, //
        },
        nested::{
            self,
            svm,
            vmx,
            Format,
            Header,
            AREA_SIZE,
            GUEST_MODE, //
        },
        registers::Field,
    },
    kvm::{
        self,
        host,
        nested::{
            Vmcs12,
            VMCB12_SAVE_SIZE,
            VMCS12_SIZE, //
        },
        user::NestedState,
        CpuidBit, //
    },
};
use core::mem::offset_of;
use kernel::prelude::*;

// What `engine` takes as given, and the kernel's headers say.
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
    assert!(VMCS12_SIZE <= AREA_SIZE as usize);
};

/// Gets the state that the vCPU is in.
///
/// # Errors
///
/// `EINVAL` if there is no nested virtualisation, `E2BIG` if there is not enough room, after
/// writing how much is needed, `EFAULT` if user memory can't be read or written, `ENOMEM`.
pub(crate) fn get(vcpu: &Vcpu, state: NestedState) -> Result {
    if !kvm::nested::is_enabled() {
        return Err(EINVAL);
    }
    let room = state.read_size()?;
    let mut header = Header::default();
    vcpu.read_nested_header(&mut header.0);
    let size = nested::reported_size(format(), room, header.size());

    if nested::is_copied(format(), room, size) {
        state.write_header(&header.0)?;
        write_areas(vcpu, state, &header)?;
    }
    if size > room {
        state.write_size(size)?;
        return Err(E2BIG);
    }
    Ok(())
}

/// Writes what is behind the header.
fn write_areas(vcpu: &Vcpu, state: NestedState, header: &Header) -> Result {
    match format() {
        // The vendor module knows which there are. C writes a shadow even if the size does not
        // cover it, as it does not while the vCPU runs L1.
        Format::Vmx => vcpu.write_nested_areas(state, [0, AREA_SIZE as usize]),
        Format::Svm if header.has(GUEST_MODE) => write_vmcb12(vcpu, state).inspect_err(|_| {
            // In C, which clears the area before it fills it, that is what fails.
            let _ = state.clear_data(0, AREA_SIZE as usize);
        }),
        Format::Svm => Ok(()),
    }
}

/// Writes vmcb12 and, as it is smaller than its area, zeroes.
fn write_vmcb12(vcpu: &Vcpu, state: NestedState) -> Result {
    const SIZE: usize = svm::CONTROL_SIZE + VMCB12_SAVE_SIZE;

    state.clear_data(SIZE, AREA_SIZE as usize - SIZE)?;
    vcpu.write_nested_areas(state, [0, svm::CONTROL_SIZE])
}

/// Sets the state that the vCPU is in. Returns what `KVM_SET_NESTED_STATE` does: 0, but another
/// number for a VM-entry that fails in the guest.
///
/// # Errors
///
/// `EINVAL` if there is no nested virtualisation or the state is not one that the vCPU can be in,
/// `EFAULT` if user memory can't be read, `ENOMEM`. On SVM, a CR3 that can't be loaded leaves the vCPU
/// in L2; see [`vmx`] for what is left there.
pub(crate) fn set(vcpu: &Vcpu, state: NestedState) -> Result<c_int> {
    if !kvm::nested::is_enabled() {
        return Err(EINVAL);
    }
    let mut header = Header::default();

    state.read_header(&mut header.0)?;
    nested::check(&header)?;

    let _section = vcpu.vm().read_section();

    match format() {
        Format::Vmx => set_vmx(vcpu, state, &header),
        Format::Svm => set_svm(vcpu, state, &header),
    }
}

fn set_svm(vcpu: &Vcpu, state: NestedState, header: &Header) -> Result<c_int> {
    let cpu = svm::Cpu {
        svme: vcpu.field(Field::Efer) & efer::SVME != 0,
        smm: vcpu.is_smm(),
        reserved_address: vcpu.reserved_address(),
    };

    svm::check(header, &cpu)?;

    if !header.has(GUEST_MODE) {
        return vcpu.commit_vmcb12(&header.0, None);
    }

    let mut vmcb12 = state.read_data(svm::CONTROL_SIZE + VMCB12_SAVE_SIZE)?;
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
    vcpu.commit_vmcb12(&header.0, Some((control, save)))
}

fn set_vmx(vcpu: &Vcpu, state: NestedState, header: &Header) -> Result<c_int> {
    let cpu = vmx::Cpu {
        vmx: vcpu.has_cpuid(CpuidBit::VMX),
        evmcs: vcpu.has_evmcs(),
        smm: vcpu.is_smm(),
        reserved_address: vcpu.reserved_address(),
        vmcs12_size: VMCS12_SIZE as u32,
    };

    vmx::check(header, &cpu)?;

    // User memory is read before anything changes, but what is wrong with it counts only where C
    // gets to it.
    let has_vmcs12 = vmx::has_vmcs12(header, &cpu);
    let mut vmcs12 = Area::none(Ok(()));
    let mut shadow = Area::none(Ok(()));

    if header.vmxon_pa() != vmx::NO_ADDRESS && has_vmcs12 == Ok(true) {
        vmcs12 = Area::read(state, 0)?;
        if vmcs12.result.is_ok() {
            vmcs12.result = vmx::check_vmcs12(&vmcs12.bytes).map_err(Into::into);
        }
        if vmcs12.result.is_ok() && header.has(GUEST_MODE) && vmx::has_shadow(&vmcs12.bytes) {
            shadow = match vmx::check_shadow_size(header, &cpu) {
                Ok(()) => Area::read(state, AREA_SIZE as usize)?,
                Err(error) => Area::none(Err(error.into())),
            };
        }
    }

    vcpu.set_nested_vmx(
        &header.0,
        has_vmcs12.map_err(Into::into).map(|has| {
            has.then_some(Vmcs12 {
                bytes: &vmcs12.bytes,
                shadow: &shadow.bytes,
                result: vmcs12.result,
                enter_l2: header.has(GUEST_MODE).then_some(shadow.result),
            })
        }),
    )
}

/// vmcs12 or its shadow, as user space gives it.
struct Area {
    /// What of it could be read, and zeroes, or nothing.
    bytes: KVec<u8>,
    /// Why it is refused, if so.
    result: Result,
}

impl Area {
    const fn none(result: Result) -> Self {
        Self {
            bytes: KVec::new(),
            result,
        }
    }

    /// Reads the area that is `offset` bytes behind the header.
    fn read(state: NestedState, offset: usize) -> Result<Self> {
        let mut bytes = KVec::from_elem(0, VMCS12_SIZE, GFP_KERNEL)?;
        let result = state.read_data_at(offset, &mut bytes);

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
