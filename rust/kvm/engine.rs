// SPDX-License-Identifier: GPL-2.0

//! The registration of an MSR engine with KVM.
//!
//! C header: `arch/x86/kvm/msr_engine.h`.

use super::{
    host,
    Ops, //
};
use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Whether new VMs are to be served, i.e. the module parameter `enable`.
pub(crate) fn is_enabled() -> bool {
    // SAFETY: The parameter is a plain `bool`, which root may write at any time.
    unsafe { (&raw const bindings::kvm_msr_glue_enable).read_volatile() }
}

/// The registration of an engine. VMs that are created while it exists are the engine's, if the
/// parameter `enable` is on.
///
/// # Invariants
///
/// `ops` is registered. An attached VM references the module, so there is none when the module is
/// unloaded, and this is dropped.
pub(crate) struct Registration {
    ops: Ops,
}

// SAFETY: The ops table is immutable.
unsafe impl Send for Registration {}
// SAFETY: The ops table is immutable.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers the engine.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is another.
    pub(crate) fn new(ops: Ops) -> Result<Self> {
        host::find_vendor();

        // SAFETY: The ops table is static.
        to_result(unsafe { bindings::kvm_msr_engine_register(ops.0) })?;
        // INVARIANT: It was just registered.
        Ok(Self { ops })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the ops are registered and no VM is attached.
        unsafe { bindings::kvm_msr_engine_unregister(self.ops.0) };
    }
}
