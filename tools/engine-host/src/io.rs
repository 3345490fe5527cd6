// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_MSRS` and `KVM_SET_MSRS`: the list, and what each MSR needs.

use crate::engine::{registers::lookup, request::*};

#[test]
fn takes_up_to_255_entries() {
    for count in 0..256 {
        assert_eq!(check_count(count), Ok(()), "{count}");
    }
    for count in [256, 257, 0xffff, 0x1000_0000, u32::MAX] {
        assert_eq!(check_count(count), Err(Error::TooBig), "{count}");
    }
}

#[test]
fn immutable_are_all_feature_msrs_but_the_microcode_revision() {
    let mut features: Vec<u32> = (0x480..=0x491).collect();
    features.extend([0xce, 0x10a, 0x345, 0xc001_1029]);

    for index in (0..0x2000)
        .chain(0xc000_0000..0xc000_2000)
        .chain(0xc001_0000..0xc001_2000)
    {
        assert_eq!(
            lookup(index).is_immutable(),
            features.contains(&index),
            "{index:#x}",
        );
    }
}

/// XSAVES does not manage S_CET (0x6a2) and the interrupt shadow stack table (0x6a8).
#[test]
fn xstate_has_the_user_cet_msrs() {
    for index in 0..0x2000 {
        let managed = matches!(index, 0x6a0 | 0x6a4..=0x6a7);

        assert_eq!(lookup(index).is_xstate, managed, "{index:#x}");
    }
}
