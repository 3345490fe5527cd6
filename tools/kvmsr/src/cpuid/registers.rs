// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The four registers of a leaf.

use std::fmt;

use super::Leaf;
use super::Register;

impl Register {
    /// All of them, in order.
    pub const ALL: [Register; 4] = [Register::Eax, Register::Ebx, Register::Ecx, Register::Edx];
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Register::Eax => "eax",
            Register::Ebx => "ebx",
            Register::Ecx => "ecx",
            Register::Edx => "edx",
        })
    }
}

impl Leaf {
    /// The leaf's value of a register.
    pub fn get(&self, register: Register) -> u32 {
        match register {
            Register::Eax => self.eax,
            Register::Ebx => self.ebx,
            Register::Ecx => self.ecx,
            Register::Edx => self.edx,
        }
        .0
    }

    /// Sets the leaf's value of a register.
    pub fn set(&mut self, register: Register, value: u32) {
        match register {
            Register::Eax => self.eax.0 = value,
            Register::Ebx => self.ebx.0 = value,
            Register::Ecx => self.ecx.0 = value,
            Register::Edx => self.edx.0 = value,
        }
    }
}
