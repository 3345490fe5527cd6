// SPDX-License-Identifier: GPL-2.0

//! Indices that stay in bounds even if the CPU mispredicts the bounds check (Spectre variant 1).

use core::arch::asm;

/// Returns `index` if it is below `size`, and 0 otherwise, as `array_index_nospec()` does in C.
#[inline]
pub(crate) fn index_nospec(index: usize, size: usize) -> usize {
    let mask: usize;

    // SAFETY: The instructions change only a register and the flags.
    unsafe {
        asm!(
            "cmp {index}, {size}",
            "sbb {mask}, {mask}",
            index = in(reg) index,
            size = in(reg) size,
            mask = lateout(reg) mask,
            options(pure, nomem, nostack),
        );
    }
    index & mask
}
