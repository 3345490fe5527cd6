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

/// Whether the engine serves new VMs: the module parameter `enable`.
pub(crate) fn is_enabled() -> bool {
    // SAFETY: The parameter is a plain `bool`, which root may write at any time.
    unsafe { (&raw const bindings::kvm_msr_glue_enable).read_volatile() }
}

/// The registration of an engine. It serves the VMs that are created while this exists and the
/// parameter `enable` is on.
///
/// # Invariants
///
/// `ops` is registered. Each attached VM references the module, so no VM is attached when the
/// module is unloaded, which drops this.
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
    /// `EBUSY` if another engine is registered.
    pub(crate) fn new(ops: Ops) -> Result<Self> {
        host::find_vendor();

        // SAFETY: The ops table is static.
        to_result(unsafe { bindings::kvm_msr_engine_register(ops.0) })?;
        // INVARIANT: `ops` was just registered.
        Ok(Self { ops })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: `new()` registered the ops, and no VM is attached, as each references the module
        // that is being unloaded.
        unsafe { bindings::kvm_msr_engine_unregister(self.ops.0) };
    }
}
