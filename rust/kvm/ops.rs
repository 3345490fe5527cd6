// SPDX-License-Identifier: GPL-2.0

//! The ops that KVM calls, built from a list of the functions that implement them.
//!
//! C header: `arch/x86/kvm/msr_engine.h`.

use super::{
    exit::return_code,
    host::VendorLoaded,
    user::{
        MsrList,
        NestedState,
        OneReg,
        UserList, //
    },
    Emulation,
    Fastpath,
    Overlay,
    Run,
    Section,
    Vcpu,
    Vm, //
};
use crate::{
    bindings,
    engine::exit::Denial, //
};
use core::ops::Deref;
use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

/// The ops of an MSR engine, built by [`msr_engine_ops!`].
pub(crate) struct Ops(pub(super) &'static bindings::kvm_msr_engine_ops);

impl Ops {
    /// # Safety
    ///
    /// Each op must behave as `struct kvm_msr_engine_ops` documents it.
    pub(crate) const unsafe fn new(ops: &'static bindings::kvm_msr_engine_ops) -> Self {
        Self(ops)
    }
}

/// Builds the ops table of an engine from a list of its ops. Each entry has the member of `struct
/// kvm_msr_engine_ops`, its parameters, its return type, and the function that implements it. Each
/// parameter's type must be a [`Parameter`], and the return type a [`Returned`].
macro_rules! msr_engine_ops {
    (
        $(#[$attribute:meta])*
        const $ops:ident: $owner:ty;

        $($op:ident($($name:ident: $type:ty),*) -> $returned:ty = $($function:ident)::+;)*
    ) => {
        $(#[$attribute])*
        const $ops: $crate::kvm::Ops = {
            $(
                /// # Safety
                ///
                /// Only KVM may call this, with arguments as `struct kvm_msr_engine_ops` documents
                /// them.
                unsafe extern "C" fn $op(
                    $($name: <$type as $crate::kvm::Parameter>::Raw,)*
                ) -> <$returned as $crate::kvm::Returned>::Raw {
                    // SAFETY: KVM passes attached VMs and loaded vCPUs, and calls ops that take an
                    // `InRunLoop` in the run loop. The other pointers are valid and nobody else
                    // uses them during the call.
                    $(let $name = unsafe { <$type as $crate::kvm::Parameter>::from_raw($name) };)*

                    $crate::kvm::Returned::into_raw($($function)::+($($name),*))
                }
            )*

            // SAFETY: Each function above implements the op of the same name, and the compiler
            // checks that it has the op's type.
            unsafe {
                $crate::kvm::Ops::new(&$crate::bindings::kvm_msr_engine_ops {
                    owner: ::kernel::module::this_module::<$owner>().as_ptr().cast(),
                    $($op: Some($op),)*
                })
            }
        };
    };
}
pub(crate) use msr_engine_ops;

/// A parameter of an op.
pub(crate) trait Parameter {
    /// What KVM passes.
    type Raw;

    /// # Safety
    ///
    /// `raw` must be the argument that KVM passed to an op with a parameter of this type, and the
    /// result must not outlive the call.
    unsafe fn from_raw(raw: Self::Raw) -> Self;
}

impl Parameter for &Vm {
    type Raw = *mut bindings::kvm;

    #[inline]
    unsafe fn from_raw(raw: *mut bindings::kvm) -> Self {
        // SAFETY: KVM passes attached VMs.
        unsafe { Vm::from_raw(raw) }
    }
}

/// A VM that is being created. Nobody else uses it yet.
pub(crate) struct NewVm(pub(super) *mut bindings::kvm);

/// A VM that is being destroyed. Nobody else uses it anymore.
pub(crate) struct DyingVm(pub(super) *mut bindings::kvm);

impl Parameter for &Vcpu {
    type Raw = *mut bindings::kvm_vcpu;

    #[inline]
    unsafe fn from_raw(raw: *mut bindings::kvm_vcpu) -> Self {
        // SAFETY: KVM passes loaded vCPUs of attached VMs.
        unsafe { Vcpu::from_raw(raw) }
    }
}

/// A vCPU in the run loop, which handles a VM-exit or emulates an instruction.
///
/// The run loop is in a read-side section of `kvm->srcu`. It leaves the section only to run the
/// guest, to block, and to handle requests.
#[derive(Clone, Copy)]
pub(crate) struct InRunLoop<'a>(&'a Vcpu);

impl<'a> InRunLoop<'a> {
    /// The section that the run loop is in.
    #[inline]
    pub(crate) fn section(&self) -> Section<'a> {
        // SAFETY: The run loop stays in its section during the op, i.e. for all of `'a`.
        unsafe { Section::enclosing(self.0.vm()) }
    }
}

impl Deref for InRunLoop<'_> {
    type Target = Vcpu;

    #[inline]
    fn deref(&self) -> &Vcpu {
        self.0
    }
}

impl Parameter for InRunLoop<'_> {
    type Raw = *mut bindings::kvm_vcpu;

    #[inline]
    unsafe fn from_raw(raw: *mut bindings::kvm_vcpu) -> Self {
        // SAFETY: KVM passes loaded vCPUs of attached VMs.
        Self(unsafe { Vcpu::from_raw(raw) })
    }
}

/// A vCPU that handles a VM-exit on the fast path.
///
/// `vcpu->mode` is `IN_GUEST_MODE` then, and interrupts are disabled. So whoever waits until the
/// vCPU has left guest mode waits for the fast path.
#[derive(Clone, Copy)]
pub(crate) struct InFastpath<'a>(&'a Vcpu);

impl InFastpath<'_> {
    /// What `/dev/kvm-msr` has set up for the VM, if anything.
    #[inline]
    pub(crate) fn overlay(&self) -> Option<&Overlay> {
        let overlay = self.0.vm().state().overlay.load_raw();

        // SAFETY: The pointer is null, or to an overlay that `VmState::replace_overlay()` frees only
        // after all vCPUs have left guest mode, which this one does after the fast path.
        unsafe { overlay.as_ref() }
    }
}

impl Deref for InFastpath<'_> {
    type Target = Vcpu;

    #[inline]
    fn deref(&self) -> &Vcpu {
        self.0
    }
}

impl Parameter for InFastpath<'_> {
    type Raw = *mut bindings::kvm_vcpu;

    #[inline]
    unsafe fn from_raw(raw: *mut bindings::kvm_vcpu) -> Self {
        // SAFETY: KVM passes loaded vCPUs of attached VMs.
        Self(unsafe { Vcpu::from_raw(raw) })
    }
}

/// The parameter of an ioctl on `/dev/kvm`.
pub(crate) struct DeviceIoctl<'a, T> {
    /// Proof that the vendor module is loaded: the open `/dev/kvm` references it.
    pub(crate) host: VendorLoaded<'a>,
    /// The ioctl's structure in user memory.
    pub(crate) user: T,
}

impl<T: Parameter> Parameter for DeviceIoctl<'_, T> {
    type Raw = T::Raw;

    unsafe fn from_raw(raw: T::Raw) -> Self {
        // SAFETY: `/dev/kvm` is open during the ioctl and references the vendor module. The caller
        // passes KVM's argument as `raw`.
        unsafe {
            Self {
                host: VendorLoaded::assume(),
                user: T::from_raw(raw),
            }
        }
    }
}

/// A variable of KVM, e.g. the one to which it wants a value stored.
impl<T> Parameter for &mut T {
    type Raw = *mut T;

    #[inline]
    unsafe fn from_raw(raw: *mut T) -> Self {
        // SAFETY: KVM passes a pointer to its caller's variable, which nobody else uses during the
        // call.
        unsafe { &mut *raw }
    }
}

/// Parameters that only wrap what KVM passes: integers, VMs that nobody uses yet or anymore, and
/// addresses in user memory, which are checked when they are used.
macro_rules! plain_parameters {
    ($($type:ty: $raw:ident as $raw_type:ty => $value:expr;)*) => {$(
        impl Parameter for $type {
            type Raw = $raw_type;

            #[inline]
            unsafe fn from_raw($raw: $raw_type) -> Self {
                $value
            }
        }
    )*};
}

plain_parameters! {
    u32: value as u32 => value;
    u64: value as u64 => value;
    c_int: value as c_int => value;
    bool: value as bool => value;
    NewVm: vm as *mut bindings::kvm => NewVm(vm);
    DyingVm: vm as *mut bindings::kvm => DyingVm(vm);
    UserPtr: address as *mut c_void => UserPtr::from_ptr(address);
    OneReg: reg as *mut c_void => OneReg(UserPtr::from_ptr(reg));
    MsrList: list as *mut bindings::kvm_msrs => MsrList(UserPtr::from_ptr(list.cast()));
    UserList<u32>: list as *mut bindings::kvm_msr_list
        => UserList::new(UserPtr::from_ptr(list.cast()));
    UserList<u64>: list as *mut bindings::kvm_reg_list
        => UserList::new(UserPtr::from_ptr(list.cast()));
    NestedState: state as *mut bindings::kvm_nested_state
        => NestedState(UserPtr::from_ptr(state.cast()));
}

/// What an op returns.
pub(crate) trait Returned {
    /// What KVM gets.
    type Raw;

    /// The value for KVM.
    fn into_raw(self) -> Self::Raw;
}

macro_rules! returned {
    ($($type:ty: $returned:ident -> $raw:ty => $value:expr;)*) => {$(
        impl Returned for $type {
            type Raw = $raw;

            #[inline]
            fn into_raw(self) -> $raw {
                let $returned = self;

                $value
            }
        }
    )*};
}

returned! {
    (): _nothing -> () => ();
    bool: value -> bool => value;
    Run: run -> c_int => run.0;
    Emulation: emulation -> c_int => emulation as c_int;
    Fastpath: fastpath -> bindings::fastpath_t => fastpath as bindings::fastpath_t;
    Result: result -> c_int => result.map_or_else(Error::to_errno, |()| 0);
    Result<c_int>: result -> c_int => result.unwrap_or_else(Error::to_errno);
    // A number of MSRs fits, as it is below 256.
    Result<usize>: result -> c_int => result.map_or_else(Error::to_errno, |nr| nr as c_int);
    core::result::Result<(), Denial>: access -> c_int => access.map_or_else(return_code, |()| 0);
}
