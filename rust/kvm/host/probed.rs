// SPDX-License-Identifier: GPL-2.0

//! What was found out about the CPU and the vendor module by trying, which costs a fault or a
//! search.
//!
//! It holds until another vendor module is loaded, before which KVM calls [`forget`].

use crate::engine::registers::{
    Register,
    NR_LISTED, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// The answer to a question, once it is known.
struct Answer(Atomic<u32>);

impl Answer {
    const UNKNOWN: u32 = 0;
    const NO: u32 = 1;
    const YES: u32 = 2;

    const fn unknown() -> Self {
        Self(Atomic::new(Self::UNKNOWN))
    }

    /// The answer, for which `ask` is called if it is not known yet.
    #[inline]
    fn get(&self, ask: impl FnOnce() -> bool) -> bool {
        match self.0.load(Relaxed) {
            Self::YES => true,
            Self::NO => false,
            // If several tasks ask at the same time, they get the same answer.
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

/// Whether the CPU has each of the MSRs that may be in a list, in the order of the table. The
/// number of places is a power of two, so that no remainder is out of bounds, even if a CPU that
/// mispredicts takes it of an MSR that is in no list.
static MSRS: [Answer; NR_LISTED.next_power_of_two()] =
    [const { Answer::unknown() }; NR_LISTED.next_power_of_two()];

/// Whether the vendor module switches `IA32_TSC_AUX`.
static TSC_AUX: Answer = Answer::unknown();

/// Whether the CPU has an MSR. `try_read` reads it, and returns whether that worked.
#[inline]
pub(crate) fn has_msr(register: &Register, index: u32, try_read: impl FnOnce() -> bool) -> bool {
    let Some(position) = register.list_position else {
        return try_read();
    };
    let place = usize::from(position).wrapping_add(index.wrapping_sub(register.first) as usize);

    MSRS[place % MSRS.len()].get(try_read)
}

/// Whether the vendor module switches `IA32_TSC_AUX`. `search` looks for it among the MSRs that it
/// does switch.
#[inline]
pub(crate) fn can_switch_tsc_aux(search: impl FnOnce() -> bool) -> bool {
    TSC_AUX.get(search)
}

/// Forgets all answers. It is to be called when a vendor module was loaded and before anybody can
/// open `/dev/kvm`: later, vCPUs of the same VM could be told different things.
pub(crate) fn forget() {
    MSRS.iter().for_each(Answer::forget);
    TSC_AUX.forget();
}
