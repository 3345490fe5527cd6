// SPDX-License-Identifier: GPL-2.0

//! Memory type range registers.

use super::Vcpu;
use crate::{
    bindings,
    engine::{
        access::Result,
        cpu::Mtrrs, //
    },
    kvm::return_code::{
        read_with,
        to_result, //
    },
};

impl Mtrrs for Vcpu {
    fn read_mtrr(&self, index: u32) -> Result<u64> {
        // SAFETY: `self` is a valid vCPU that this task has loaded, and `data` is valid. The
        // function refuses an index that is not one of an MTRR.
        read_with(|data| unsafe { bindings::kvm_mtrr_get_msr(self.as_raw(), index, data) })
    }

    fn write_mtrr(&self, index: u32, data: u64) -> Result {
        // SAFETY: `self` is a valid vCPU that this task has loaded. The function refuses an index
        // that is not one of an MTRR.
        to_result(unsafe { bindings::kvm_mtrr_set_msr(self.as_raw(), index, data) })
    }
}
