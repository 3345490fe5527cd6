// SPDX-License-Identifier: GPL-2.0

//! A cache of properties of the CPU and the vendor module whose detection takes a fault or a
//! search.
//!
//! It is valid until a vendor module is loaded. KVM calls [`forget`] then.

use crate::engine::registers::{
    Register,
    NR_LISTED, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// A cached answer, or none yet.
pub(crate) struct Answer(Atomic<u32>);

impl Answer {
    const UNKNOWN: u32 = 0;
    const NO: u32 = 1;
    const YES: u32 = 2;

    const fn unknown() -> Self {
        Self(Atomic::new(Self::UNKNOWN))
    }

    /// Returns the cached answer. Calls `ask` first if there is none.
    #[inline]
    pub(crate) fn get(&self, ask: impl FnOnce() -> bool) -> bool {
        match self.0.load(Relaxed) {
            Self::YES => true,
            Self::NO => false,
            // If several tasks call `ask` at the same time, all get the same answer.
            _ => {
                let yes = ask();

                self.0
                    .store(if yes { Self::YES } else { Self::NO }, Relaxed);
                yes
            }
        }
    }

    fn forget(&self) {
        self.0.store(Self::UNKNOWN, Relaxed);
    }
}

/// For each MSR that may be in a list, whether the CPU has it, in the order of the table. The
/// length is a power of two, so that a remainder is a mask, which keeps the index in bounds even if
/// the CPU mispredicts a branch.
static MSRS: [Answer; NR_LISTED.next_power_of_two()] =
    [const { Answer::unknown() }; NR_LISTED.next_power_of_two()];

/// Whether the vendor module switches `IA32_TSC_AUX`.
pub(crate) static TSC_AUX: Answer = Answer::unknown();

/// Returns whether the CPU has an MSR. `try_read` reads the MSR, and returns whether the read
/// succeeded.
#[inline]
pub(crate) fn has_msr(register: &Register, index: u32, try_read: impl FnOnce() -> bool) -> bool {
    let Some(position) = register.list_position else {
        return try_read();
    };
    let place = usize::from(position).wrapping_add(index.wrapping_sub(register.first) as usize);

    MSRS[place % MSRS.len()].get(try_read)
}

/// Forgets all answers. It must be called after a vendor module was loaded and before `/dev/kvm`
/// can be opened. Later, vCPUs of the same VM could get different answers.
pub(crate) fn forget() {
    MSRS.iter().for_each(Answer::forget);
    TSC_AUX.forget();
}
