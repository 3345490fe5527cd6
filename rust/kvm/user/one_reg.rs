// SPDX-License-Identifier: GPL-2.0

//! `struct kvm_one_reg`: `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG`.

use super::{
    put_u64,
    read_slice,
    UserPtr, //
};
use kernel::prelude::*;

/// `struct kvm_one_reg` in user memory: an ID, and the address of the value.
pub(crate) struct OneReg(pub(in crate::kvm) UserPtr);

/// The value of a register in user memory.
pub(crate) struct UserValue(UserPtr);

impl OneReg {
    /// Reads the ID and the address.
    pub(crate) fn read(self) -> Result<(u64, UserValue)> {
        let mut one_reg = [0; 2];

        read_slice(self.0, &mut one_reg)?;
        let [id, address] = one_reg;
        Ok((id, UserValue(UserPtr::from_addr(address as usize))))
    }
}

impl UserValue {
    /// Reads the value.
    pub(crate) fn read(self) -> Result<u64> {
        let mut value = [0];

        read_slice(self.0, &mut value)?;
        Ok(value[0])
    }

    /// Writes the value.
    pub(crate) fn write(self, value: u64) -> Result {
        put_u64(self.0, value)
    }
}
