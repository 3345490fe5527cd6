// SPDX-License-Identifier: GPL-2.0

//! `KMSR_INFO`

use crate::{
    bindings,
    kvm::user::Sized, //
};
use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

/// Says what the module offers.
///
/// # Errors
///
/// Those of [`Sized::read`] and [`Sized::write`].
pub(super) fn info(argp: UserPtr) -> Result {
    let mut arg = Sized::<bindings::kmsr_info>::read(argp)?;

    arg.value = bindings::kmsr_info {
        size: arg.value.size,
        version: bindings::KMSR_VERSION,
        features: u64::from(
            bindings::KMSR_FEATURE_POLICY
                | bindings::KMSR_FEATURE_LEARN
                | bindings::KMSR_FEATURE_STATS
                | bindings::KMSR_FEATURE_BATCH
                | bindings::KMSR_FEATURE_SAVE_LIST,
        ),
        actions: [
            bindings::KMSR_ACTION_ALLOW,
            bindings::KMSR_ACTION_GP,
            bindings::KMSR_ACTION_EXIT,
            bindings::KMSR_ACTION_IGNORE,
            bindings::KMSR_ACTION_CONSTANT,
            bindings::KMSR_ACTION_MASK,
            bindings::KMSR_ACTION_MATCH,
        ]
        .iter()
        .fold(0, |actions, action| actions | 1 << action),
        max_rules: bindings::KMSR_MAX_RULES,
        max_learned: bindings::KMSR_MAX_LEARNED,
        nr_buckets: bindings::KMSR_NR_BUCKETS,
        reserved: 0,
    };
    arg.write()
}
