// SPDX-License-Identifier: GPL-2.0

//! Indices that stay in bounds when the CPU mispredicts their check.

use core::arch::asm;

/// Returns an index that is below `size`, and 0 for others: what `array_index_nospec()` does.
#[inline]
pub(crate) fn index_nospec(index: usize, size: usize) -> usize {
    let mask: usize;

    // SAFETY: It changes a register and the flags, and nothing else.
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
