// SPDX-License-Identifier: GPL-2.0

//! KVM x86's handling of model-specific registers, in Rust.
//!
//! Registers with KVM as its MSR engine, so that VMs that are created from then on get their MSRs,
//! the filter of these, their exits to user space, and the ioctls about them and about nested
//! state from here, rather than from `arch/x86/kvm/msrs.c`. See `Documentation/` for what is
//! served, and what stays in C.

mod bindings;
mod engine;
mod kvm;
mod ops;
#[cfg(CONFIG_KVM_MSR_KUNIT_TEST)]
mod tests;

use crate::{
    kvm::{
        user,
        Denial,
        Emulation,
        Fastpath,
        Files,
        MsrEngine,
        Registration,
        Run, //
    },
    ops::{
        Protected,
        Section,
        Vcpu,
        Vm, //
    },
};
use kernel::prelude::*;

module! {
    type: KvmMsr,
    name: "kvm_msr",
    authors: ["kvm-msr developers"],
    description: "KVM x86 MSR engine in Rust",
    license: "GPL v2",
}

struct KvmMsr {
    _registration: Registration<Self>,
}

impl kernel::Module for KvmMsr {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // Once this succeeded, nothing may fail anymore: VMs can attach.
        let registration = Registration::new().inspect_err(|error| {
            if *error == EBUSY {
                pr_err!("another MSR engine is loaded already, unload that first\n");
            }
        })?;

        pr_info!("serving the MSRs of new VMs from Rust (parameter enable: all or none of them)\n");
        Ok(Self {
            _registration: registration,
        })
    }
}

impl Drop for KvmMsr {
    fn drop(&mut self) {
        pr_info!("unloading, from now on C serves the MSRs of new VMs\n");
    }
}

impl MsrEngine for KvmMsr {
    type OwnerModule = LocalModule;
    type Protected = Protected;

    const FILES: &'static Files<Protected> = &ops::debugfs::FILES;

    fn set_msr_filter(vm: &Vm, filter: user::MsrFilter) -> Result {
        ops::msr_filter::set(vm, filter)
    }

    fn enable_user_space_msr(vm: &Vm, mask: u64) -> Result {
        ops::user_space_msr::enable(vm, mask)
    }

    fn get_msrs(vcpu: &Vcpu, list: user::MsrList) -> Result<usize> {
        ops::msrs::get(vcpu, list)
    }

    fn set_msrs(vcpu: &Vcpu, list: user::MsrList) -> Result<usize> {
        ops::msrs::set(vcpu, list)
    }

    fn get_msr_index_list(list: user::UserList<u32>) -> Result {
        ops::lists::get_indices(list)
    }

    fn get_feature_msr_index_list(list: user::UserList<u32>) -> Result {
        ops::lists::get_model_indices(list)
    }

    fn get_feature_msrs(list: user::MsrList) -> Result<usize> {
        ops::lists::get_models(list)
    }

    fn get_one_reg(vcpu: &Vcpu, one_reg: user::OneReg) -> Result {
        ops::one_reg::get(vcpu, one_reg)
    }

    fn set_one_reg(vcpu: &Vcpu, one_reg: user::OneReg) -> Result {
        ops::one_reg::set(vcpu, one_reg)
    }

    fn get_reg_list(vcpu: &Vcpu, list: user::UserList<u64>) -> Result {
        ops::lists::get_registers(vcpu, list)
    }

    fn get_nested_state(vcpu: &Vcpu, state: user::NestedState) -> Result {
        ops::nested_state::get(vcpu, state)
    }

    fn set_nested_state(vcpu: &Vcpu, state: user::NestedState) -> Result<c_int> {
        ops::nested_state::set(vcpu, state)
    }

    fn fastpath_wrmsr(vcpu: &Vcpu) -> Fastpath {
        ops::fastpath::wrmsr(vcpu)
    }

    fn fastpath_wrmsr_imm(vcpu: &Vcpu, index: u32, reg: c_int) -> Fastpath {
        ops::fastpath::wrmsr_imm(vcpu, index, reg)
    }

    #[inline]
    fn emulate_rdmsr(vcpu: &Vcpu, section: &Section<'_>) -> Run {
        ops::exits::rdmsr(vcpu, section)
    }

    fn emulate_rdmsr_imm(vcpu: &Vcpu, section: &Section<'_>, index: u32, reg: c_int) -> Run {
        ops::exits::rdmsr_imm(vcpu, section, index, reg)
    }

    #[inline]
    fn emulate_wrmsr(vcpu: &Vcpu, section: &Section<'_>) -> Run {
        ops::exits::wrmsr(vcpu, section)
    }

    fn emulate_wrmsr_imm(vcpu: &Vcpu, section: &Section<'_>, index: u32, reg: c_int) -> Run {
        ops::exits::wrmsr_imm(vcpu, section, index, reg)
    }

    fn emulator_get_msr(vcpu: &Vcpu, section: &Section<'_>, index: u32) -> (Emulation, u64) {
        ops::emulator::get(vcpu, section, index)
    }

    fn emulator_set_msr(vcpu: &Vcpu, section: &Section<'_>, index: u32, data: u64) -> Emulation {
        ops::emulator::set(vcpu, section, index, data)
    }

    fn msr_allowed(section: &Section<'_>, index: u32, kind: u32) -> bool {
        ops::msr_filter::allows_kind(section, index, kind)
    }

    fn emulate_msr_read(vcpu: &Vcpu, section: &Section<'_>, index: u32) -> Result<u64, Denial> {
        ops::access::read(vcpu, section, index)
    }

    fn emulate_msr_write(
        vcpu: &Vcpu,
        section: &Section<'_>,
        index: u32,
        data: u64,
    ) -> Result<(), Denial> {
        ops::access::write(vcpu, section, index, data)
    }

    fn emulate_msr_read_unfiltered(vcpu: &Vcpu, index: u32) -> Result<u64, Denial> {
        ops::access::read_unfiltered(vcpu, index)
    }

    fn emulate_msr_write_unfiltered(vcpu: &Vcpu, index: u32, data: u64) -> Result<(), Denial> {
        ops::access::write_unfiltered(vcpu, index, data)
    }

    fn emulator_get_msr_unfiltered(vcpu: &Vcpu, index: u32) -> Result<u64, Denial> {
        ops::emulator::get_unfiltered(vcpu, index)
    }

    fn msr_read(vcpu: &Vcpu, index: u32) -> Result<u64, Denial> {
        ops::access::read_as_host(vcpu, index)
    }

    fn msr_write(vcpu: &Vcpu, index: u32, data: u64) -> Result<(), Denial> {
        ops::access::write_as_host(vcpu, index, data)
    }

    fn get_msr_common(vcpu: &Vcpu, index: u32, host: bool) -> Result<u64, Denial> {
        ops::access::read_common(vcpu, index, host)
    }

    fn set_msr_common(vcpu: &Vcpu, index: u32, data: u64, host: bool) -> Result<(), Denial> {
        ops::access::write_common(vcpu, index, data, host)
    }

    fn valid_efer(vcpu: &Vcpu, efer: u64) -> bool {
        ops::access::is_valid_efer(vcpu, efer)
    }
}
