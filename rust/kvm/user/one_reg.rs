// SPDX-License-Identifier: GPL-2.0

//! `struct kvm_one_reg`: `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG`.

use super::{
    put_u64,
    read_value,
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
        let [id, address]: [u64; 2] = read_value(self.0)?;

        Ok((id, UserValue(UserPtr::from_addr(address as usize))))
    }
}

impl UserValue {
    /// Reads the value.
    pub(crate) fn read(self) -> Result<u64> {
        read_value(self.0)
    }

    /// Writes the value.
    pub(crate) fn write(self, value: u64) -> Result {
        put_u64(self.0, value)
    }
}
