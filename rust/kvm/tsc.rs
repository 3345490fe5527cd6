// SPDX-License-Identifier: GPL-2.0

//! The TSC of the host.

use crate::bindings;
use core::arch::asm;

/// A point in time: the low half of the TSC.
///
/// The difference of two halves is right for durations of less than 2^32 cycles, which is about a
/// second. An access to an MSR takes longer only if the host does not run the vCPU meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Tsc(u32);

impl Tsc {
    /// Reads the TSC. RDTSC does not wait for the instructions before it, so a duration is wrong by
    /// some cycles. RDTSCP and LFENCE wait, but make each access slower.
    #[inline(always)]
    pub(crate) fn now() -> Self {
        let low: u32;

        // SAFETY: The kernel can always execute RDTSC, which changes only EDX:EAX.
        unsafe {
            asm!("rdtsc", out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags))
        };
        Self(low)
    }

    /// The cycles since then.
    #[inline(always)]
    pub(crate) fn elapsed(self) -> u32 {
        Self::now().0.wrapping_sub(self.0)
    }
}

/// The frequency of the TSC in kHz.
pub(crate) fn tsc_khz() -> u32 {
    // SAFETY: The kernel has found out the frequency before modules are loaded. It may be refined
    // concurrently, so the load is volatile.
    unsafe { (&raw const bindings::tsc_khz).read_volatile() }
}
