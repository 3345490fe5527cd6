// SPDX-License-Identifier: GPL-2.0

//! The structures of `/dev/kvm-msr`, and what the engine repeats of its header.

use crate::{
    bindings,
    engine::{
        access::Access,
        learn::{
            self,
            Learned, //
        },
        policy::{
            self,
            RuleError,
            When, //
        },
        save_list,
    },
};
use kernel::transmute::{
    AsBytes,
    FromBytes, //
};

macro_rules! structures {
    ($($name:ty,)*) => {$(
        // SAFETY: All bit patterns are valid for integers, and there is no padding.
        unsafe impl FromBytes for $name {}
        // SAFETY: Integers without padding have no uninitialized bytes.
        unsafe impl AsBytes for $name {}
    )*};
}

structures! {
    bindings::kmsr_info,
    bindings::kmsr_attach,
    bindings::kmsr_rule,
    bindings::kmsr_policy,
    bindings::kmsr_learn,
    bindings::kmsr_stat,
    bindings::kmsr_stats,
    bindings::kmsr_entry,
    bindings::kmsr_batch,
    bindings::kmsr_save_list,
    Learned,
    save_list::Entry,
}

macro_rules! equal {
    ($($engine:expr => $header:ident,)*) => {
        const _: () = {
            $(assert!($engine as u64 == bindings::$header as u64);)*
        };
    };
}

equal! {
    policy::READ => KMSR_ACCESS_READ,
    policy::WRITE => KMSR_ACCESS_WRITE,
    When::Always => KMSR_WHEN_ALWAYS,
    When::Unsupported => KMSR_WHEN_UNSUPPORTED,
    policy::ACTION_ALLOW => KMSR_ACTION_ALLOW,
    policy::ACTION_GP => KMSR_ACTION_GP,
    policy::ACTION_EXIT => KMSR_ACTION_EXIT,
    policy::ACTION_IGNORE => KMSR_ACTION_IGNORE,
    policy::ACTION_CONSTANT => KMSR_ACTION_CONSTANT,
    policy::ACTION_MASK => KMSR_ACTION_MASK,
    policy::ACTION_MATCH => KMSR_ACTION_MATCH,
    RuleError::Order => KMSR_RULE_ORDER,
    RuleError::Access => KMSR_RULE_ACCESS,
    RuleError::When => KMSR_RULE_WHEN,
    RuleError::Action => KMSR_RULE_ACTION,
    RuleError::Value => KMSR_RULE_VALUE,
    RuleError::Reserved => KMSR_RULE_RESERVED,
    RuleError::X2apic => KMSR_RULE_X2APIC,
    RuleError::Overlap => KMSR_RULE_OVERLAP,
    policy::MAX_RULES => KMSR_MAX_RULES,
    learn::FLAG_UNSUPPORTED => KMSR_LEARNED_UNSUPPORTED,
    learn::FLAG_DENIED => KMSR_LEARNED_DENIED,
    learn::FLAG_VALUE => KMSR_LEARNED_VALUE,
    learn::Path::Exit => KMSR_PATH_EXIT,
    learn::Path::Immediate => KMSR_PATH_IMMEDIATE,
    learn::Path::Emulator => KMSR_PATH_EMULATOR,
    learn::Path::Nested => KMSR_PATH_NESTED,
}

const _: () = {
    assert!(Access::Read as usize == 0 && Access::Write as usize == 1);
    assert!(size_of::<Learned>() == size_of::<bindings::kmsr_learned>());
    assert!(size_of::<save_list::Entry>() == size_of::<bindings::kmsr_save_entry>());
};
