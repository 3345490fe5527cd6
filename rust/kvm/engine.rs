// SPDX-License-Identifier: GPL-2.0

//! What an MSR engine implements, and how it is registered with KVM.
//!
//! C header: `arch/x86/kvm/msr_engine.h`.

use super::{
    debugfs,
    host,
    user::{
        MsrFilter,
        MsrList,
        NestedState,
        OneReg,
        UserList, //
    },
    Denial,
    Emulation,
    Fastpath,
    Files,
    Run,
    Section,
    Vcpu,
    Vm, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    module::{
        this_module,
        ModuleMetadata, //
    },
    prelude::*,
};

/// An engine that serves the MSRs of VMs in place of `arch/x86/kvm/msrs.c`.
///
/// Each method has the contract of the op of the same name, and of the function in `msrs.h` that
/// it stands for.
pub(crate) trait MsrEngine: Sized + 'static {
    /// The module that implements it.
    type OwnerModule: ModuleMetadata;

    /// What the engine keeps for a VM, once it has any, under `kvm->srcu`.
    type Protected: Send + Sync;

    /// What the engine shows of a VM in its debugfs folder.
    const FILES: &'static Files<Self::Protected>;

    /// `KVM_X86_SET_MSR_FILTER`.
    fn set_msr_filter(vm: &Vm<Self::Protected>, filter: MsrFilter) -> Result;

    /// `KVM_ENABLE_CAP` of `KVM_CAP_X86_USER_SPACE_MSR`.
    fn enable_user_space_msr(vm: &Vm<Self::Protected>, mask: u64) -> Result;

    /// `KVM_GET_MSRS` on a vCPU. Returns the number of MSRs that were read.
    fn get_msrs(vcpu: &Vcpu<Self::Protected>, list: MsrList) -> Result<usize>;

    /// `KVM_SET_MSRS`. Returns the number of MSRs that were written.
    fn set_msrs(vcpu: &Vcpu<Self::Protected>, list: MsrList) -> Result<usize>;

    /// `KVM_GET_MSR_INDEX_LIST`.
    fn get_msr_index_list(list: UserList<u32>) -> Result;

    /// `KVM_GET_MSR_FEATURE_INDEX_LIST`.
    fn get_feature_msr_index_list(list: UserList<u32>) -> Result;

    /// `KVM_GET_MSRS` on the device. Returns the number of MSRs that were read.
    fn get_feature_msrs(list: MsrList) -> Result<usize>;

    /// `KVM_GET_ONE_REG`.
    fn get_one_reg(vcpu: &Vcpu<Self::Protected>, one_reg: OneReg) -> Result;

    /// `KVM_SET_ONE_REG`.
    fn set_one_reg(vcpu: &Vcpu<Self::Protected>, one_reg: OneReg) -> Result;

    /// `KVM_GET_REG_LIST`.
    fn get_reg_list(vcpu: &Vcpu<Self::Protected>, list: UserList<u64>) -> Result;

    /// `KVM_GET_NESTED_STATE`.
    fn get_nested_state(vcpu: &Vcpu<Self::Protected>, state: NestedState) -> Result;

    /// `KVM_SET_NESTED_STATE`. Returns what the ioctl does.
    fn set_nested_state(vcpu: &Vcpu<Self::Protected>, state: NestedState) -> Result<c_int>;

    /// WRMSR, while interrupts are off.
    fn fastpath_wrmsr(vcpu: &Vcpu<Self::Protected>) -> Fastpath;

    /// WRMSR with the index in the instruction, while interrupts are off.
    fn fastpath_wrmsr_imm(vcpu: &Vcpu<Self::Protected>, index: u32, reg: c_int) -> Fastpath;

    /// RDMSR.
    fn emulate_rdmsr(vcpu: &Vcpu<Self::Protected>, section: &Section<'_, Self::Protected>) -> Run;

    /// RDMSR with the index in the instruction.
    fn emulate_rdmsr_imm(
        vcpu: &Vcpu<Self::Protected>,
        section: &Section<'_, Self::Protected>,
        index: u32,
        reg: c_int,
    ) -> Run;

    /// WRMSR.
    fn emulate_wrmsr(vcpu: &Vcpu<Self::Protected>, section: &Section<'_, Self::Protected>) -> Run;

    /// WRMSR with the index in the instruction.
    fn emulate_wrmsr_imm(
        vcpu: &Vcpu<Self::Protected>,
        section: &Section<'_, Self::Protected>,
        index: u32,
        reg: c_int,
    ) -> Run;

    /// RDMSR in the emulator. Also returns the value, which is 0 if there is none.
    fn emulator_get_msr(
        vcpu: &Vcpu<Self::Protected>,
        section: &Section<'_, Self::Protected>,
        index: u32,
    ) -> (Emulation, u64);

    /// WRMSR in the emulator.
    fn emulator_set_msr(
        vcpu: &Vcpu<Self::Protected>,
        section: &Section<'_, Self::Protected>,
        index: u32,
        data: u64,
    ) -> Emulation;

    /// Whether the filter allows a kind of access, `KVM_MSR_FILTER_READ` or
    /// `KVM_MSR_FILTER_WRITE`.
    fn msr_allowed(section: &Section<'_, Self::Protected>, index: u32, kind: u32) -> bool;

    /// A guest read on the way of something else, as nested VM-exit is.
    fn emulate_msr_read(
        vcpu: &Vcpu<Self::Protected>,
        section: &Section<'_, Self::Protected>,
        index: u32,
    ) -> Result<u64, Denial>;

    /// A guest write on the way of something else, as nested VM-entry is.
    fn emulate_msr_write(
        vcpu: &Vcpu<Self::Protected>,
        section: &Section<'_, Self::Protected>,
        index: u32,
        data: u64,
    ) -> Result<(), Denial>;

    /// A guest read that no filter has a say in.
    fn emulate_msr_read_unfiltered(vcpu: &Vcpu<Self::Protected>, index: u32)
        -> Result<u64, Denial>;

    /// A guest write that no filter has a say in.
    fn emulate_msr_write_unfiltered(
        vcpu: &Vcpu<Self::Protected>,
        index: u32,
        data: u64,
    ) -> Result<(), Denial>;

    /// A read of the emulator's own, that is not RDMSR.
    fn emulator_get_msr_unfiltered(vcpu: &Vcpu<Self::Protected>, index: u32)
        -> Result<u64, Denial>;

    /// A read of KVM's own, as user space would.
    fn msr_read(vcpu: &Vcpu<Self::Protected>, index: u32) -> Result<u64, Denial>;

    /// A write of KVM's own, as user space would.
    fn msr_write(vcpu: &Vcpu<Self::Protected>, index: u32, data: u64) -> Result<(), Denial>;

    /// A read that the vendor module does not serve itself, for user space if `host`.
    fn get_msr_common(vcpu: &Vcpu<Self::Protected>, index: u32, host: bool) -> Result<u64, Denial>;

    /// A write that the vendor module does not serve itself, for user space if `host`.
    fn set_msr_common(
        vcpu: &Vcpu<Self::Protected>,
        index: u32,
        data: u64,
        host: bool,
    ) -> Result<(), Denial>;

    /// Whether a value of EFER is one that the vCPU may have.
    fn valid_efer(vcpu: &Vcpu<Self::Protected>, efer: u64) -> bool;
}

/// The registration of an engine. VMs that are created while it exists are the engine's, if the
/// parameter `enable` is on.
///
/// # Invariants
///
/// `ops` is registered. As each attached VM references the module, no VM is attached when the
/// module, and thus this, goes.
pub(crate) struct Registration<T: MsrEngine> {
    ops: &'static bindings::kvm_msr_engine_ops,
    _engine: PhantomData<T>,
}

// SAFETY: The ops are constant, whatever they point to.
unsafe impl<T: MsrEngine> Send for Registration<T> {}
// SAFETY: As above.
unsafe impl<T: MsrEngine> Sync for Registration<T> {}

impl<T: MsrEngine> Registration<T> {
    /// Registers the engine.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is another.
    pub(crate) fn new() -> Result<Self> {
        host::find_vendor();
        // KVM compares addresses, and a constant may have several.
        let ops = VTable::<T>::OPS;

        // SAFETY: The ops are static.
        to_result(unsafe { bindings::kvm_msr_engine_register(ops) })?;
        // INVARIANT: They were registered just now.
        Ok(Self {
            ops,
            _engine: PhantomData,
        })
    }
}

impl<T: MsrEngine> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_engine_unregister(self.ops) };
    }
}

/// The ops of an engine.
///
/// KVM calls them with VMs and vCPUs that meet the invariants of [`Vm`] and [`Vcpu`]: it asks an
/// engine about attached ones only, and ioctls and exits have the vCPU loaded. It handles exits,
/// and runs the emulator, in the read-side section of the run loop: what that leaves it for are
/// the guest itself, blocking, and requests, none of which happen while an exit is handled.
struct VTable<T>(PhantomData<T>);

impl<T: MsrEngine> VTable<T> {
    const OPS: &'static bindings::kvm_msr_engine_ops = &bindings::kvm_msr_engine_ops {
        owner: this_module::<T::OwnerModule>().as_ptr().cast(),
        enabled: Some(Self::enabled),
        vm_init: Some(Self::vm_init),
        vm_destroy: Some(Self::vm_destroy),
        vm_debugfs: Some(Self::vm_debugfs),
        vendor_loaded: None,
        get_msr_index_list: Some(Self::get_msr_index_list),
        get_feature_msr_index_list: Some(Self::get_feature_msr_index_list),
        get_feature_msrs: Some(Self::get_feature_msrs),
        get_set_one_reg: Some(Self::get_set_one_reg),
        get_reg_list: Some(Self::get_reg_list),
        get_nested_state: Some(Self::get_nested_state),
        set_nested_state: Some(Self::set_nested_state),
        fastpath_wrmsr: Some(Self::fastpath_wrmsr),
        fastpath_wrmsr_imm: Some(Self::fastpath_wrmsr_imm),
        set_msr_filter: Some(Self::set_msr_filter),
        enable_user_space_msr: Some(Self::enable_user_space_msr),
        get_msrs: Some(Self::get_msrs),
        set_msrs: Some(Self::set_msrs),
        emulate_rdmsr: Some(Self::emulate_rdmsr),
        emulate_rdmsr_imm: Some(Self::emulate_rdmsr_imm),
        emulate_wrmsr: Some(Self::emulate_wrmsr),
        emulate_wrmsr_imm: Some(Self::emulate_wrmsr_imm),
        emulator_get_msr_with_filter: Some(Self::emulator_get_msr_with_filter),
        emulator_set_msr_with_filter: Some(Self::emulator_set_msr_with_filter),
        msr_allowed: Some(Self::msr_allowed),
        emulate_msr_read: Some(Self::emulate_msr_read),
        emulate_msr_write: Some(Self::emulate_msr_write),
        emulate_msr_read_unfiltered: Some(Self::emulate_msr_read_unfiltered),
        emulate_msr_write_unfiltered: Some(Self::emulate_msr_write_unfiltered),
        emulator_get_msr: Some(Self::emulator_get_msr),
        msr_read: Some(Self::msr_read),
        msr_write: Some(Self::msr_write),
        get_msr_common: Some(Self::get_msr_common),
        set_msr_common: Some(Self::set_msr_common),
        valid_efer: Some(Self::valid_efer),
    };

    /// # Safety
    ///
    /// None, but it is for KVM to call.
    unsafe extern "C" fn enabled() -> bool {
        // SAFETY: The module parameter is a plain `bool`, which its owner may write any time.
        unsafe { (&raw const bindings::kvm_msr_glue_enable).read_volatile() }
    }

    /// # Safety
    ///
    /// `kvm` must be a new VM that nobody else uses yet.
    unsafe extern "C" fn vm_init(kvm: *mut bindings::kvm) -> c_int {
        // SAFETY: By the caller's promise.
        from_result(|| unsafe { Vm::<T::Protected>::attach(kvm) }.map(|()| 0))
    }

    /// # Safety
    ///
    /// `kvm` must be a VM that [`Self::vm_init`] attached, and that nobody uses anymore.
    unsafe extern "C" fn vm_destroy(kvm: *mut bindings::kvm) {
        // SAFETY: By the caller's promise.
        unsafe { Vm::<T::Protected>::detach(kvm) };
    }

    /// # Safety
    ///
    /// `kvm` must meet the invariants of [`Vm`].
    unsafe extern "C" fn vm_debugfs(kvm: *mut bindings::kvm) {
        // SAFETY: By the caller's promise.
        debugfs::create::<T>(unsafe { Vm::from_raw(kvm) });
    }

    /// # Safety
    ///
    /// `kvm` must meet the invariants of [`Vm`].
    unsafe extern "C" fn set_msr_filter(
        kvm: *mut bindings::kvm,
        argp: *mut c_void,
        compat: bool,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let vm = unsafe { Vm::from_raw(kvm) };

        from_result(|| T::set_msr_filter(vm, MsrFilter::new(argp, compat)).map(|()| 0))
    }

    /// # Safety
    ///
    /// `kvm` must meet the invariants of [`Vm`].
    unsafe extern "C" fn enable_user_space_msr(kvm: *mut bindings::kvm, mask: u64) -> c_int {
        // SAFETY: By the caller's promise.
        let vm = unsafe { Vm::from_raw(kvm) };

        from_result(|| T::enable_user_space_msr(vm, mask).map(|()| 0))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn get_msrs(
        vcpu: *mut bindings::kvm_vcpu,
        list: *mut bindings::kvm_msrs,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };

        // There are fewer than 256.
        from_result(|| T::get_msrs(vcpu, MsrList::new(list)).map(|nr| nr as c_int))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn set_msrs(
        vcpu: *mut bindings::kvm_vcpu,
        list: *mut bindings::kvm_msrs,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };

        // There are fewer than 256.
        from_result(|| T::set_msrs(vcpu, MsrList::new(list)).map(|nr| nr as c_int))
    }

    /// # Safety
    ///
    /// The vendor module must be loaded, as it is while the device is open.
    unsafe extern "C" fn get_msr_index_list(list: *mut bindings::kvm_msr_list) -> c_int {
        from_result(|| T::get_msr_index_list(UserList::new(list.cast())).map(|()| 0))
    }

    /// # Safety
    ///
    /// The vendor module must be loaded, as it is while the device is open.
    unsafe extern "C" fn get_feature_msr_index_list(list: *mut bindings::kvm_msr_list) -> c_int {
        from_result(|| T::get_feature_msr_index_list(UserList::new(list.cast())).map(|()| 0))
    }

    /// # Safety
    ///
    /// The vendor module must be loaded, as it is while the device is open.
    unsafe extern "C" fn get_feature_msrs(list: *mut bindings::kvm_msrs) -> c_int {
        // There are fewer than 256.
        from_result(|| T::get_feature_msrs(MsrList::new(list)).map(|nr| nr as c_int))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn get_set_one_reg(
        vcpu: *mut bindings::kvm_vcpu,
        ioctl: c_uint,
        argp: *mut c_void,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };
        let one_reg = OneReg::new(argp);

        from_result(|| {
            if ioctl == bindings::KVM_MSR_GET_ONE_REG {
                T::get_one_reg(vcpu, one_reg)
            } else {
                T::set_one_reg(vcpu, one_reg)
            }
            .map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn get_reg_list(
        vcpu: *mut bindings::kvm_vcpu,
        list: *mut bindings::kvm_reg_list,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };

        from_result(|| T::get_reg_list(vcpu, UserList::new(list.cast())).map(|()| 0))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn get_nested_state(
        vcpu: *mut bindings::kvm_vcpu,
        state: *mut bindings::kvm_nested_state,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };

        from_result(|| T::get_nested_state(vcpu, NestedState::new(state)).map(|()| 0))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn set_nested_state(
        vcpu: *mut bindings::kvm_vcpu,
        state: *mut bindings::kvm_nested_state,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };

        from_result(|| T::set_nested_state(vcpu, NestedState::new(state)))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn fastpath_wrmsr(vcpu: *mut bindings::kvm_vcpu) -> bindings::fastpath_t {
        // SAFETY: By the caller's promise.
        T::fastpath_wrmsr(unsafe { Vcpu::from_raw(vcpu) }).into_raw()
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn fastpath_wrmsr_imm(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        reg: c_int,
    ) -> bindings::fastpath_t {
        // SAFETY: By the caller's promise.
        T::fastpath_wrmsr_imm(unsafe { Vcpu::from_raw(vcpu) }, index, reg).into_raw()
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`], and be in the run loop, in its section.
    unsafe extern "C" fn emulate_rdmsr(vcpu: *mut bindings::kvm_vcpu) -> c_int {
        // SAFETY: By the caller's promise.
        let (vcpu, section) = unsafe { Self::in_run_loop(vcpu) };

        T::emulate_rdmsr(vcpu, &section).into_raw()
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`], and be in the run loop, in its section.
    unsafe extern "C" fn emulate_rdmsr_imm(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        reg: c_int,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let (vcpu, section) = unsafe { Self::in_run_loop(vcpu) };

        T::emulate_rdmsr_imm(vcpu, &section, index, reg).into_raw()
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`], and be in the run loop, in its section.
    unsafe extern "C" fn emulate_wrmsr(vcpu: *mut bindings::kvm_vcpu) -> c_int {
        // SAFETY: By the caller's promise.
        let (vcpu, section) = unsafe { Self::in_run_loop(vcpu) };

        T::emulate_wrmsr(vcpu, &section).into_raw()
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`], and be in the run loop, in its section.
    unsafe extern "C" fn emulate_wrmsr_imm(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        reg: c_int,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let (vcpu, section) = unsafe { Self::in_run_loop(vcpu) };

        T::emulate_wrmsr_imm(vcpu, &section, index, reg).into_raw()
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`], and be in the run loop, in its section. `data` must be
    /// valid for writes, and nobody else's.
    unsafe extern "C" fn emulator_get_msr_with_filter(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        data: *mut u64,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let (vcpu, section) = unsafe { Self::in_run_loop(vcpu) };
        let (emulation, value) = T::emulator_get_msr(vcpu, &section, index);

        // SAFETY: By the caller's promise.
        unsafe { data.write(value) };
        emulation.into_raw()
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`], and be in the run loop, in its section.
    unsafe extern "C" fn emulator_set_msr_with_filter(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        data: u64,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let (vcpu, section) = unsafe { Self::in_run_loop(vcpu) };

        T::emulator_set_msr(vcpu, &section, index, data).into_raw()
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn msr_allowed(vcpu: *mut bindings::kvm_vcpu, index: u32, kind: u32) -> bool {
        // Vendor code recomputes intercepts mostly from the run loop, but also on behalf of vCPU
        // creation and of ioctls, where there need not be a section.
        // SAFETY: By the caller's promise.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };

        T::msr_allowed(&vcpu.vm().read_section(), index, kind)
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`]. `data` must be valid for writes, and nobody
    /// else's.
    unsafe extern "C" fn emulate_msr_read(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        data: *mut u64,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let vcpu: &Vcpu<T::Protected> = unsafe { Vcpu::from_raw(vcpu) };

        // Vendor code may ask from wherever.
        let read = T::emulate_msr_read(vcpu, &vcpu.vm().read_section(), index);

        // SAFETY: By the caller's promise.
        unsafe { store(read, data) }
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn emulate_msr_write(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        data: u64,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let vcpu: &Vcpu<T::Protected> = unsafe { Vcpu::from_raw(vcpu) };

        // Vendor code may ask from wherever.
        code_of(T::emulate_msr_write(
            vcpu,
            &vcpu.vm().read_section(),
            index,
            data,
        ))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`]. `data` must be valid for writes, and nobody
    /// else's.
    unsafe extern "C" fn emulate_msr_read_unfiltered(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        data: *mut u64,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let read = T::emulate_msr_read_unfiltered(unsafe { Vcpu::from_raw(vcpu) }, index);

        // SAFETY: By the caller's promise.
        unsafe { store(read, data) }
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn emulate_msr_write_unfiltered(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        data: u64,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };

        code_of(T::emulate_msr_write_unfiltered(vcpu, index, data))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`]. `data` must be valid for writes, and nobody
    /// else's.
    unsafe extern "C" fn emulator_get_msr(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        data: *mut u64,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let read = T::emulator_get_msr_unfiltered(unsafe { Vcpu::from_raw(vcpu) }, index);

        // SAFETY: By the caller's promise.
        unsafe { store(read, data) }
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`]. `data` must be valid for writes, and nobody
    /// else's.
    unsafe extern "C" fn msr_read(
        vcpu: *mut bindings::kvm_vcpu,
        index: u32,
        data: *mut u64,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let read = T::msr_read(unsafe { Vcpu::from_raw(vcpu) }, index);

        if let Ok(value) = read {
            // SAFETY: By the caller's promise.
            unsafe { data.write(value) };
        }
        code_of(read.map(|_| ()))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn msr_write(vcpu: *mut bindings::kvm_vcpu, index: u32, data: u64) -> c_int {
        // SAFETY: By the caller's promise.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };

        code_of(T::msr_write(vcpu, index, data))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`]. `msr` must be valid, and nobody else's.
    unsafe extern "C" fn get_msr_common(
        vcpu: *mut bindings::kvm_vcpu,
        msr: *mut bindings::msr_data,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let (vcpu, msr) = unsafe { (Vcpu::from_raw(vcpu), &mut *msr) };

        match T::get_msr_common(vcpu, msr.index, msr.host_initiated) {
            Ok(value) => {
                msr.data = value;
                0
            }
            Err(denial) => denial.get(),
        }
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`]. `msr` must be valid, and nobody else's.
    unsafe extern "C" fn set_msr_common(
        vcpu: *mut bindings::kvm_vcpu,
        msr: *mut bindings::msr_data,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        let (vcpu, msr) = unsafe { (Vcpu::from_raw(vcpu), &*msr) };

        code_of(T::set_msr_common(
            vcpu,
            msr.index,
            msr.data,
            msr.host_initiated,
        ))
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`].
    unsafe extern "C" fn valid_efer(vcpu: *mut bindings::kvm_vcpu, efer: u64) -> bool {
        // SAFETY: By the caller's promise.
        T::valid_efer(unsafe { Vcpu::from_raw(vcpu) }, efer)
    }

    /// # Safety
    ///
    /// `vcpu` must meet the invariants of [`Vcpu`], and the current task must be in a read-side
    /// section of its VM's `kvm->srcu`, for all of `'a`.
    #[inline]
    unsafe fn in_run_loop<'a>(
        vcpu: *mut bindings::kvm_vcpu,
    ) -> (&'a Vcpu<T::Protected>, Section<'a, T::Protected>) {
        // SAFETY: By the caller's promise.
        let vcpu = unsafe { Vcpu::from_raw(vcpu) };

        // SAFETY: By the caller's promise.
        (vcpu, unsafe { Section::enclosing(vcpu.vm()) })
    }
}

#[inline]
fn code_of(access: Result<(), Denial>) -> c_int {
    access.map_or_else(Denial::get, |()| 0)
}

/// Stores what was read, or 0: the caller may not look at the code.
///
/// # Safety
///
/// `data` must be valid for writes, and nobody else's.
#[inline]
unsafe fn store(read: Result<u64, Denial>, data: *mut u64) -> c_int {
    // SAFETY: By the caller's promise.
    unsafe { data.write(read.unwrap_or(0)) };
    code_of(read.map(|_| ()))
}
