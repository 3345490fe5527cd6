// SPDX-License-Identifier: GPL-2.0

//! The positions of the engine's features in the kernel's and KVM's words of CPUID bits.
//!
//! C headers: `arch/x86/include/asm/cpufeatures.h`, `arch/x86/kvm/reverse_cpuid.h`.

use crate::{
    bindings,
    engine::registers::{
        with_features,
        Feature, //
    },
};

/// The number of words of CPUID bits that KVM keeps, both for a guest and for the features that it
/// offers to guests.
const NR_WORDS: usize = bindings::kvm_only_cpuid_leafs_NR_KVM_CPU_CAPS as usize;

/// KVM's words of CPUID bits.
pub(super) type Words = [u32; NR_WORDS];

const NR_FEATURES: usize = Feature::ALL.len();

macro_rules! numbers {
    ($($feature:ident = $constant:ident,)*) => {
        [$(bindings::$constant,)*]
    };
}

/// The bits' numbers in the kernel: 32 times the word, plus the bit in that word.
static NUMBERS: [u32; NR_FEATURES] = with_features!(numbers);

/// The bits' numbers in KVM, each below `32 * NR_WORDS`.
static NUMBERS_IN_KVM: [u16; 256] = {
    let mut numbers = [0; 256];
    let mut i = 0;

    while i < NR_FEATURES {
        let number = number_in_kvm(NUMBERS[i]);

        assert!((number as usize) < NR_WORDS * u32::BITS as usize);
        numbers[i] = number as u16;
        i += 1;
    }
    numbers
};

/// Converts a bit's number in the kernel to its number in KVM, as `__feature_translate()` does. The
/// kernel collects some bits in words of its own (`CPUID_LNX_*`); KVM has words with CPUID's layout
/// for these.
const fn number_in_kvm(number: u32) -> u32 {
    let number = match number {
        bindings::X86_FEATURE_PERFMON_V2 => bindings::KVM_MSR_FEATURE_PERFMON_V2,
        number => number,
    };

    assert!(
        !matches!(
            number / u32::BITS,
            bindings::cpuid_leafs_CPUID_LNX_1
                | bindings::cpuid_leafs_CPUID_LNX_2
                | bindings::cpuid_leafs_CPUID_LNX_3
                | bindings::cpuid_leafs_CPUID_LNX_4
                | bindings::cpuid_leafs_CPUID_LNX_5
                | bindings::cpuid_leafs_CPUID_LNX_6
        ),
        "KVM has this feature in another word: add its KVM_X86_FEATURE_* above"
    );
    number
}

/// The number of a feature's bit in the kernel, `X86_FEATURE_*`.
#[inline]
pub(super) fn number(feature: Feature) -> u32 {
    NUMBERS[feature as usize]
}

/// Whether KVM's words have a feature.
///
/// # Safety
///
/// `words` must be valid for reads, and nobody may write them concurrently.
#[inline]
pub(super) unsafe fn is_set(words: *const Words, feature: Feature) -> bool {
    let number = usize::from(NUMBERS_IN_KVM[feature as usize]);
    let bits = u32::BITS as usize;

    // SAFETY: All of `words` can be read, and all numbers are below `32 * NR_WORDS`, as was
    // asserted when the table was compiled.
    let word = unsafe { words.cast::<u32>().add(number / bits).read() };

    word >> (number % bits) & 1 != 0
}
