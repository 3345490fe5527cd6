// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The interface of `rust/uapi/kvm-msr.h`, where all of this is described.

use std::os::fd::RawFd;

use super::Array;
use crate::memory::UserPtr;

/// `KMSR_VERSION`
pub const VERSION: u32 = 1;
/// The type of the ioctl numbers.
pub const TYPE: u32 = 0xeb;

const fn request(number: u32) -> u32 {
    TYPE << 8 | number
}

/// `KMSR_INFO`
pub const INFO: u32 = request(0);
/// `KMSR_ATTACH`
pub const ATTACH: u32 = request(1);
/// `KMSR_SET_POLICY`
pub const SET_POLICY: u32 = request(2);
/// `KMSR_GET_POLICY`
pub const GET_POLICY: u32 = request(3);
/// `KMSR_LEARN`
pub const LEARN: u32 = request(4);
/// `KMSR_STATS`
pub const STATS: u32 = request(5);
/// `KMSR_BATCH`
pub const BATCH: u32 = request(6);

/// `KMSR_FEATURE_*`
pub const FEATURE_POLICY: u64 = 1 << 0;
/// Learning.
pub const FEATURE_LEARN: u64 = 1 << 1;
/// Batches.
pub const FEATURE_BATCH: u64 = 1 << 3;

/// `KMSR_RIGHT_OBSERVE`
pub const RIGHT_OBSERVE: u64 = 1 << 0;
/// `KMSR_RIGHT_POLICY`
pub const RIGHT_POLICY: u64 = 1 << 1;
/// `KMSR_RIGHT_STATE`
pub const RIGHT_STATE: u64 = 1 << 2;
/// All rights.
pub const RIGHTS: u64 = RIGHT_OBSERVE | RIGHT_POLICY | RIGHT_STATE;

/// `KMSR_ACCESS_READ`
pub const READ: u8 = 1 << 0;
/// `KMSR_ACCESS_WRITE`
pub const WRITE: u8 = 1 << 1;

/// `KMSR_WHEN_ALWAYS`
pub const ALWAYS: u8 = 0;
/// `KMSR_WHEN_UNSUPPORTED`
pub const UNSUPPORTED: u8 = 1;

/// `KMSR_ACTION_ALLOW`
pub const ALLOW: u8 = 0;
/// `KMSR_ACTION_GP`
pub const GP: u8 = 1;
/// `KMSR_ACTION_EXIT`
pub const EXIT: u8 = 2;
/// `KMSR_ACTION_IGNORE`
pub const IGNORE: u8 = 3;
/// `KMSR_ACTION_CONSTANT`
pub const CONSTANT: u8 = 4;
/// `KMSR_ACTION_MASK`
pub const MASK: u8 = 5;
/// `KMSR_ACTION_MATCH`
pub const MATCH: u8 = 6;

/// `KMSR_MAX_RULES`
pub const MAX_RULES: u32 = 4096;
/// `KMSR_POLICY_UNTIL_CLOSE`
pub const UNTIL_CLOSE: u32 = 1 << 0;

/// `KMSR_RULE_ORDER`
pub const RULE_ORDER: u32 = 1;
/// `KMSR_RULE_ACCESS`
pub const RULE_ACCESS: u32 = 2;
/// `KMSR_RULE_WHEN`
pub const RULE_WHEN: u32 = 3;
/// `KMSR_RULE_ACTION`
pub const RULE_ACTION: u32 = 4;
/// `KMSR_RULE_VALUE`
pub const RULE_VALUE: u32 = 5;
/// `KMSR_RULE_RESERVED`
pub const RULE_RESERVED: u32 = 6;
/// `KMSR_RULE_X2APIC`
pub const RULE_X2APIC: u32 = 7;
/// `KMSR_RULE_OVERLAP`
pub const RULE_OVERLAP: u32 = 8;

/// `KMSR_OP_START`
pub const START: u32 = 0;
/// `KMSR_OP_STOP`
pub const STOP: u32 = 1;
/// `KMSR_OP_READ`
pub const OP_READ: u32 = 2;

/// `KMSR_LEARNED_UNSUPPORTED`
pub const LEARNED_UNSUPPORTED: u32 = 1 << 0;
/// `KMSR_LEARNED_DENIED`
pub const LEARNED_DENIED: u32 = 1 << 1;
/// `KMSR_LEARNED_VALUE`
pub const LEARNED_VALUE: u32 = 1 << 2;

/// `KMSR_PATH_EXIT`
pub const PATH_EXIT: u32 = 1 << 0;
/// `KMSR_PATH_IMMEDIATE`
pub const PATH_IMMEDIATE: u32 = 1 << 1;
/// `KMSR_PATH_EMULATOR`
pub const PATH_EMULATOR: u32 = 1 << 2;
/// `KMSR_PATH_NESTED`
pub const PATH_NESTED: u32 = 1 << 3;

/// `KMSR_MAX_LEARNED`
pub const MAX_LEARNED: u32 = 4096;

/// `KMSR_NR_BUCKETS`
pub const NR_BUCKETS: usize = 32;

/// `KMSR_MAX_STATS`
pub const MAX_STATS: u32 = 508;

/// `KMSR_BATCH_GET`
pub const BATCH_GET: u32 = 0;
/// `KMSR_BATCH_SET`
pub const BATCH_SET: u32 = 1;

/// `KMSR_ENTRY_MSR`
pub const ENTRY_MSR: u32 = 0;
/// `KMSR_ENTRY_FEATURE`
pub const ENTRY_FEATURE: u32 = 1;
/// `KMSR_ENTRY_REG`
pub const ENTRY_REG: u32 = 2;

/// A member of a structure.
trait Member {
    const SIZE: usize;
    fn put(&self, to: &mut Vec<u8>);
    /// Takes the new value from the first bytes.
    fn update(&mut self, from: &[u8]);
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Member for $type {
            const SIZE: usize = size_of::<$type>();

            fn put(&self, to: &mut Vec<u8>) {
                to.extend(self.to_le_bytes());
            }

            fn update(&mut self, from: &[u8]) {
                let bytes = from[..Self::SIZE].try_into().expect("as many bytes");

                *self = <$type>::from_le_bytes(bytes);
            }
        }
    )*};
}

integers! { u8 u32 i32 u64 }

impl<const N: usize> Member for [u64; N] {
    const SIZE: usize = N * u64::SIZE;

    fn put(&self, to: &mut Vec<u8>) {
        self.iter().for_each(|element| element.put(to));
    }

    fn update(&mut self, from: &[u8]) {
        for (element, bytes) in self.iter_mut().zip(from.chunks(u64::SIZE)) {
            element.update(bytes);
        }
    }
}

impl Member for UserPtr<'_> {
    const SIZE: usize = size_of::<u64>();

    fn put(&self, to: &mut Vec<u8>) {
        to.extend(self.address().to_le_bytes());
    }

    // The ioctls do not change addresses.
    fn update(&mut self, _: &[u8]) {}
}

/// A structure as bytes.
pub trait Members {
    /// The size of `struct kmsr_*` in bytes.
    const SIZE: usize;
    /// All bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// Takes the values of all members, except addresses.
    fn update(&mut self, bytes: &[u8]);
}

/// The argument of an ioctl.
pub trait Structure: Members {
    /// The ioctl's number.
    const REQUEST: u32;
}

macro_rules! structure {
    ($(#[$doc:meta])* $name:ident $(<$lt:lifetime>)?, $size:literal {
        $($(#[$member_doc:meta])* $member:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name $(<$lt>)? {
            $($(#[$member_doc])* pub $member: $type,)*
        }

        impl $(<$lt>)? Members for $name $(<$lt>)? {
            const SIZE: usize = $size;

            fn to_bytes(&self) -> Vec<u8> {
                const { assert!(0 $(+ <$type as Member>::SIZE)* == $size) };
                let mut bytes = Vec::with_capacity($size);

                $(self.$member.put(&mut bytes);)*
                bytes
            }

            fn update(&mut self, mut bytes: &[u8]) {
                $(
                    self.$member.update(bytes);
                    bytes = &bytes[<$type as Member>::SIZE..];
                )*
                let _ = bytes;
            }
        }

    };
}

structure! {
    /// `struct kmsr_info`
    #[derive(Default)]
    #[allow(missing_docs)]
    Info, 40 {
        size: u32,
        version: u32,
        features: u64,
        actions: u64,
        max_rules: u32,
        max_learned: u32,
        nr_buckets: u32,
        reserved: u32,
    }
}

impl Structure for Info {
    const REQUEST: u32 = INFO;
}

impl Info {
    /// The argument.
    pub fn new() -> Self {
        Info {
            size: Self::SIZE as u32,
            ..Default::default()
        }
    }
}

structure! {
    /// `struct kmsr_attach`
    #[allow(missing_docs)]
    Attach, 16 {
        size: u32,
        vm_fd: i32,
        rights: u64,
    }
}

impl Structure for Attach {
    const REQUEST: u32 = ATTACH;
}

impl Attach {
    /// The argument.
    pub fn new(vm_fd: RawFd, rights: u64) -> Self {
        Attach {
            size: Self::SIZE as u32,
            vm_fd,
            rights,
        }
    }
}

structure! {
    /// `struct kmsr_rule`
    #[derive(Default, Eq, PartialEq)]
    #[allow(missing_docs)]
    Rule, 24 {
        first: u32,
        last: u32,
        access: u8,
        when: u8,
        action: u8,
        reserved: u8,
        reserved2: u32,
        value: u64,
    }
}

impl Rule {
    /// A rule for MSRs `first` to `last`.
    pub fn new(first: u32, last: u32, access: u8, when: u8, action: u8, value: u64) -> Self {
        Rule {
            first,
            last,
            access,
            when,
            action,
            value,
            ..Default::default()
        }
    }
}

macro_rules! policy {
    ($(#[$doc:meta])* $name:ident, $request:ident) => {
        structure! {
            $(#[$doc])*
            #[allow(missing_docs)]
            $name<'a>, 32 {
                size: u32,
                flags: u32,
                nr_rules: u32,
                error: u32,
                error_rule: u32,
                reserved: u32,
                rules: UserPtr<'a>,
            }
        }

        impl Structure for $name<'_> {
            const REQUEST: u32 = $request;
        }

        impl<'a> $name<'a> {
            /// The argument, with an array of this length.
            pub fn new(rules: &'a Array<Rule>, nr_rules: usize) -> Self {
                $name {
                    size: Self::SIZE as u32,
                    flags: 0,
                    nr_rules: nr_rules as u32,
                    error: 0,
                    error_rule: 0,
                    reserved: 0,
                    rules: rules.at(),
                }
            }
        }
    };
}

policy! {
    /// `struct kmsr_policy` for `KMSR_SET_POLICY`.
    SetPolicy, SET_POLICY
}

policy! {
    /// `struct kmsr_policy` for `KMSR_GET_POLICY`.
    GetPolicy, GET_POLICY
}

structure! {
    /// `struct kmsr_learned`
    #[derive(Default, Eq, PartialEq)]
    #[allow(missing_docs)]
    Learned, 56 {
        index: u32,
        flags: u32,
        paths: u32,
        reserved: u32,
        reads: u64,
        writes: u64,
        changed: u64,
        first: u64,
        last: u64,
    }
}

structure! {
    /// `struct kmsr_learn`
    #[allow(missing_docs)]
    Learn<'a>, 32 {
        size: u32,
        op: u32,
        nr_records: u32,
        reserved: u32,
        records: UserPtr<'a>,
        lost: u64,
    }
}

impl Structure for Learn<'_> {
    const REQUEST: u32 = LEARN;
}

impl Learn<'static> {
    /// The argument of [`START`] and [`STOP`].
    pub fn new(op: u32) -> Self {
        Learn {
            size: Self::SIZE as u32,
            op,
            nr_records: 0,
            reserved: 0,
            records: UserPtr::null(),
            lost: 0,
        }
    }
}

impl<'a> Learn<'a> {
    /// The argument of [`OP_READ`], with an array of this length.
    pub fn read(records: &'a Array<Learned>, nr_records: usize) -> Self {
        Learn {
            nr_records: nr_records as u32,
            records: records.at(),
            ..Learn::new(OP_READ)
        }
    }
}

structure! {
    /// `struct kmsr_stat`
    #[derive(Default, Eq, PartialEq)]
    #[allow(missing_docs)]
    Stat, 304 {
        index: u32,
        access: u32,
        count: u64,
        denied: u64,
        unsupported: u64,
        user_exits: u64,
        gp: u64,
        buckets: [u64; NR_BUCKETS],
    }
}

structure! {
    /// `struct kmsr_stats`
    #[allow(missing_docs)]
    Stats<'a>, 32 {
        size: u32,
        op: u32,
        nr_records: u32,
        tsc_khz: u32,
        records: UserPtr<'a>,
        lost: u64,
    }
}

impl Structure for Stats<'_> {
    const REQUEST: u32 = STATS;
}

impl Stats<'static> {
    /// The argument of [`START`] and [`STOP`].
    pub fn new(op: u32) -> Self {
        Stats {
            size: Self::SIZE as u32,
            op,
            nr_records: 0,
            tsc_khz: 0,
            records: UserPtr::null(),
            lost: 0,
        }
    }
}

impl<'a> Stats<'a> {
    /// The argument of [`OP_READ`], with an array of this length.
    pub fn read(records: &'a Array<Stat>, nr_records: usize) -> Self {
        Stats {
            nr_records: nr_records as u32,
            records: records.at(),
            ..Stats::new(OP_READ)
        }
    }
}

structure! {
    /// `struct kmsr_entry`
    #[derive(Default, Eq, PartialEq)]
    #[allow(missing_docs)]
    Entry, 24 {
        kind: u32,
        status: i32,
        id: u64,
        data: u64,
    }
}

structure! {
    /// `struct kmsr_batch`
    #[allow(missing_docs)]
    Batch<'a>, 32 {
        size: u32,
        op: u32,
        vcpu_id: u32,
        timeout_ms: u32,
        nr_entries: u32,
        nr_done: u32,
        entries: UserPtr<'a>,
    }
}

impl Structure for Batch<'_> {
    const REQUEST: u32 = BATCH;
}

impl<'a> Batch<'a> {
    /// The argument for vCPU 0, with an array of this length, and a timeout of 0.
    pub fn new(op: u32, entries: &'a Array<Entry>, nr_entries: usize) -> Self {
        Batch {
            size: Self::SIZE as u32,
            op,
            vcpu_id: 0,
            timeout_ms: 0,
            nr_entries: nr_entries as u32,
            nr_done: 0,
            entries: entries.at(),
        }
    }
}
