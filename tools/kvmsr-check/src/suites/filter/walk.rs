// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM's decision of an access by a filter, written independently from section
//! KVM_X86_SET_MSR_FILTER of api.rst.

use std::collections::BTreeSet;

use anyhow::Context;
use anyhow::ensure;
use kvm_msr_guest::Access;
use kvmsr::filter::Filter;
use kvmsr::filter::FilterFile;
use kvmsr::filter::Verdict;
use serde_json::Value;

use super::lists::List;

/// Whether KVM allows an access.
pub fn allows(filter: &Filter, access: Access, index: u32) -> bool {
    if (0x800..0x900).contains(&index) {
        return true;
    }
    for range in &filter.ranges {
        let begin = range.base.0;
        let end = begin.wrapping_add(range.nmsrs);

        if begin <= index && index < end && range.flags.0 & access.flag() != 0 {
            let bit = (index - begin) as usize;

            return range.bitmap.0[bit / 8] >> (bit % 8) & 1 == 1;
        }
    }
    filter.default == Verdict::Allow
}

/// Whether a filter allows exactly the accesses of a list, among all 2^32 MSRs.
pub fn compare(filter: &Filter, list: &List) -> anyhow::Result<()> {
    let mut indices: BTreeSet<u32> = list.indices().into_iter().collect();

    ensure!(filter.default == Verdict::Deny, "it allows by default");
    // MSRs without a bit of 1 in any range are denied, which is right unless the list has them:
    // all of the list is checked.
    for (number, range) in filter.ranges.iter().enumerate() {
        let (bits, bytes) = (range.nmsrs as usize, &range.bitmap.0);

        ensure!(
            (1..=0x3000).contains(&bits) && bits <= 8 * bytes.len(),
            "range {number} has {bits} MSRs and {} bytes",
            bytes.len()
        );
        ensure!(
            (1..=3).contains(&range.flags.0) && range.base.0.checked_add(range.nmsrs).is_some(),
            "range {number} is {range:x?}"
        );
        // By words, as most are 0.
        for (at, word) in bytes.chunks(8).enumerate() {
            if word.iter().any(|&byte| byte != 0) {
                indices.extend(
                    (64 * at..bits.min(64 * at + 64))
                        .filter(|bit| bytes[bit / 8] >> (bit % 8) & 1 == 1)
                        .map(|bit| range.base.0 + bit as u32),
                );
            }
        }
    }
    for index in indices {
        for access in [Access::Read, Access::Write] {
            ensure!(
                allows(filter, access, index) == list.allows(access, index),
                "{access} {index:#x} must be allowed: {}",
                list.allows(access, index)
            );
        }
    }
    Ok(())
}

/// The filter in a file.
pub fn filter(file: &Value) -> anyhow::Result<Filter> {
    let file: FilterFile = serde_json::from_value(file.clone()).context("parse it")?;

    Ok(file.into())
}
