// SPDX-License-Identifier: GPL-2.0

//! KVM x86's handling of model-specific registers (MSRs), in Rust.
//!
//! The module registers with KVM as its MSR engine. For VMs that are created afterwards, it serves
//! MSRs, the MSR filter, MSR exits to user space, and the ioctls for these and for nested state, in
//! place of `arch/x86/kvm/msrs.c`. `Documentation/` lists what the module serves and what stays in
//! C.

mod bindings;
mod engine;
mod kvm;
mod ops;
#[cfg(CONFIG_KVM_MSR_KUNIT_TEST)]
mod tests;

use crate::{
    kvm::{
        msr_engine_ops,
        user,
        DeviceIoctl,
        Emulation,
        Fastpath,
        InFastpath,
        InRunLoop,
        MsrData,
        Run,
        Vcpu,
        Vm, //
    },
    ops::{
        device::DeviceFile,
        AccessResult, //
    },
};
use kernel::{
    miscdevice::MiscDeviceRegistration,
    prelude::*,
    uaccess::UserPtr, //
};

module! {
    type: KvmMsr,
    name: "kvm_msr",
    authors: ["kvm-msr developers"],
    description: "KVM x86 MSR engine in Rust",
    license: "GPL v2",
}

msr_engine_ops! {
    /// The ops that KVM calls. `arch/x86/include/asm/kvm-msr-engine-ops.h` has the same names.
    const OPS: KvmMsr;

    enabled() -> bool = kvm::is_enabled;
    vm_init(vm: kvm::NewVm) -> Result = kvm::NewVm::attach;
    vm_destroy(vm: kvm::DyingVm) -> () = kvm::DyingVm::detach;
    vm_debugfs(vm: &Vm) -> () = ops::debugfs::vm_debugfs;
    vendor_loaded() -> () = kvm::host::probed::forget;

    get_msr_index_list(ioctl: DeviceIoctl<'_, user::UserList<u32>>) -> Result
        = ops::lists::get_msr_index_list;
    get_feature_msr_index_list(ioctl: DeviceIoctl<'_, user::UserList<u32>>) -> Result
        = ops::lists::get_feature_msr_index_list;
    get_feature_msrs(ioctl: DeviceIoctl<'_, user::MsrList>) -> Result<usize>
        = ops::lists::get_feature_msrs;

    set_msr_filter(vm: &Vm, argp: UserPtr, compat: bool) -> Result
        = ops::msr_filter::set_msr_filter;
    enable_user_space_msr(vm: &Vm, mask: u64) -> Result
        = ops::user_space_msr::enable_user_space_msr;

    get_msrs(vcpu: &Vcpu, list: user::MsrList) -> Result<usize> = ops::msrs::get_msrs;
    set_msrs(vcpu: &Vcpu, list: user::MsrList) -> Result<usize> = ops::msrs::set_msrs;
    get_set_one_reg(vcpu: &Vcpu, ioctl: u32, reg: user::OneReg) -> Result
        = ops::one_reg::get_set_one_reg;
    get_reg_list(vcpu: &Vcpu, list: user::UserList<u64>) -> Result = ops::lists::get_reg_list;
    get_nested_state(vcpu: &Vcpu, state: user::NestedState) -> Result
        = ops::nested_state::get_nested_state;
    set_nested_state(vcpu: &Vcpu, state: user::NestedState) -> Result<c_int>
        = ops::nested_state::set_nested_state;

    emulate_rdmsr(vcpu: InRunLoop<'_>) -> Run = ops::exits::emulate_rdmsr;
    emulate_rdmsr_imm(vcpu: InRunLoop<'_>, index: u32, reg: c_int) -> Run
        = ops::exits::emulate_rdmsr_imm;
    emulate_wrmsr(vcpu: InRunLoop<'_>) -> Run = ops::exits::emulate_wrmsr;
    emulate_wrmsr_imm(vcpu: InRunLoop<'_>, index: u32, reg: c_int) -> Run
        = ops::exits::emulate_wrmsr_imm;
    fastpath_wrmsr(vcpu: InFastpath<'_>) -> Fastpath = ops::fastpath::fastpath_wrmsr;
    fastpath_wrmsr_imm(vcpu: InFastpath<'_>, index: u32, reg: c_int) -> Fastpath
        = ops::fastpath::fastpath_wrmsr_imm;
    emulator_get_msr_with_filter(vcpu: InRunLoop<'_>, index: u32, data: &mut u64) -> Emulation
        = ops::emulator::emulator_get_msr_with_filter;
    emulator_set_msr_with_filter(vcpu: InRunLoop<'_>, index: u32, data: u64) -> Emulation
        = ops::emulator::emulator_set_msr_with_filter;
    emulator_get_msr(vcpu: &Vcpu, index: u32, data: &mut u64) -> AccessResult
        = ops::emulator::emulator_get_msr;

    msr_allowed(vcpu: &Vcpu, index: u32, kind: u32) -> bool = ops::msr_filter::msr_allowed;
    emulate_msr_read(vcpu: &Vcpu, index: u32, data: &mut u64) -> AccessResult
        = ops::access::emulate_msr_read;
    emulate_msr_write(vcpu: &Vcpu, index: u32, data: u64) -> AccessResult
        = ops::access::emulate_msr_write;
    emulate_msr_read_unfiltered(vcpu: &Vcpu, index: u32, data: &mut u64) -> AccessResult
        = ops::access::emulate_msr_read_unfiltered;
    emulate_msr_write_unfiltered(vcpu: &Vcpu, index: u32, data: u64) -> AccessResult
        = ops::access::emulate_msr_write_unfiltered;
    msr_read(vcpu: &Vcpu, index: u32, data: &mut u64) -> AccessResult = ops::access::msr_read;
    msr_write(vcpu: &Vcpu, index: u32, data: u64) -> AccessResult = ops::access::msr_write;
    get_msr_common(vcpu: &Vcpu, msr: &mut MsrData) -> AccessResult = ops::access::get_msr_common;
    set_msr_common(vcpu: &Vcpu, msr: &mut MsrData) -> AccessResult = ops::access::set_msr_common;
    valid_efer(vcpu: &Vcpu, efer: u64) -> bool = ops::access::valid_efer;
}

#[pin_data(PinnedDrop)]
struct KvmMsr {
    #[pin]
    _device: MiscDeviceRegistration<DeviceFile>,
    _registration: kvm::Registration,
}

impl kernel::InPlaceModule for KvmMsr {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _device <- ops::device::register(),
            // Nothing may fail after this, as VMs can attach from here on.
            _registration: register()?,
        })
    }
}

fn register() -> Result<kvm::Registration> {
    let registration = kvm::Registration::new(OPS).inspect_err(|error| {
        if *error == EBUSY {
            pr_err!("another MSR engine is loaded, unload that first\n");
        }
    })?;

    pr_info!("serving the MSRs of new VMs from Rust (set enable=N to leave new VMs to C)\n");
    Ok(registration)
}

#[pinned_drop]
impl PinnedDrop for KvmMsr {
    fn drop(self: Pin<&mut Self>) {
        pr_info!("unloading, C serves the MSRs of new VMs from now on\n");
    }
}
