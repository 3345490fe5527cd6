// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSRs that have a guest-physical address at which KVM writes, and what they may point to.

use std::ops::Range;

use kvm_msr_guest::Random;
use kvm_msr_guest::nested::layout::MEMORY;

/// Guest memory for what depends on time: clocks, stolen time, messages.
const TIME: Range<usize> = 0x8_0000..0x8_8000;
/// Guest memory for what is always the same: hypercall pages.
const STEADY: Range<usize> = 0x8_8000..0x9_0000;

/// The memory that is compared: tables, code, stacks and L1's structures; SMRAM's save area; and what KVM
/// writes, except for the time.
pub const COMPARED: [Range<usize>; 4] =
    [0..0x1_4000, 0x2_0000..0x2_8000, 0x3_f000..0x4_0000, STEADY];

/// Pages that nothing else uses. They are filled with [`TRAP`]: a vCPU that got lost, e.g. in real mode,
/// stops at the next one, and does not run for seconds.
pub const TRAPS: [usize; 20] = [
    0x0_0000, 0x0_7000, 0x0_d000, 0x1_4000, 0x1_8000, 0x1_f000, 0x2_8000, 0x3_0000, 0x3_9000,
    0x4_8000, 0x5_8000, 0x6_8000, 0x7_8000, 0x7_f000, 0x9_0000, 0xa_0000, 0xb_0000, 0xc_0000,
    0xd_0000, 0xf_f000,
];
/// `out 0xe6, al`, in any mode, at any address.
pub const TRAP: u8 = 0xe6;

/// What an MSR points to.
#[derive(Clone, Copy)]
enum Content {
    Time,
    Steady,
}

const POINTERS: &[(u32, Content)] = &[
    (0x11, Content::Time),          // KVM_WALL_CLOCK
    (0x12, Content::Time),          // KVM_SYSTEM_TIME
    (0x4b56_4d00, Content::Time),   // KVM_WALL_CLOCK_NEW
    (0x4b56_4d01, Content::Time),   // KVM_SYSTEM_TIME_NEW
    (0x4b56_4d02, Content::Time),   // KVM_ASYNC_PF_EN
    (0x4b56_4d03, Content::Time),   // KVM_STEAL_TIME
    (0x4b56_4d04, Content::Time),   // KVM_PV_EOI_EN
    (0x4000_0001, Content::Steady), // HV_HYPERCALL
    (0x4000_0021, Content::Time),   // HV_REFERENCE_TSC
    (0x4000_0073, Content::Time),   // HV_VP_ASSIST_PAGE
    (0x4000_0082, Content::Time),   // HV_SIEFP
    (0x4000_0083, Content::Time),   // HV_SIMP
    (0x4000_0200, Content::Steady), // Xen's hypercall page
];

/// IA32_SMBASE. Elsewhere there is no SMI handler.
const SMBASE: (u32, u64) = (0x9e, 0x3_0000);

/// A value for an MSR that has an address; none for others.
pub fn value(random: &mut Random, index: u32) -> Option<u64> {
    if index == SMBASE.0 {
        return Some(SMBASE.1);
    }
    let &(_, content) = POINTERS.iter().find(|&&(pointer, _)| pointer == index)?;
    let area = match content {
        Content::Time => TIME,
        Content::Steady => STEADY,
    };
    let flags = random.next() & 0xf;

    Some(match random.below(8) {
        0 => 0,
        // There is no memory.
        1 => (MEMORY as u64 + u64::from(random.below(16)) * 0x1000) | flags,
        2 => random.next() | 1 << 51,
        3 => (area.start as u64 + u64::from(random.below(area.len() as u32 / 64)) * 64) | flags,
        _ => (area.start as u64 + u64::from(random.below(8)) * 0x1000) | flags,
    })
}

/// Whether an MSR has an address.
pub fn has_address(index: u32) -> bool {
    index == SMBASE.0 || POINTERS.iter().any(|&(pointer, _)| pointer == index)
}
