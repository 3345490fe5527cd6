// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Filters that KVM may refuse: the library has to predict it.

use anyhow::ensure;
use kvm_msr_guest::Access;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Random;
use kvmsr::filter::Bitmap;
use kvmsr::filter::Filter;
use kvmsr::filter::Flags;
use kvmsr::filter::Range;
use kvmsr::filter::Verdict;
use kvmsr::number::Hex;

use super::proof;

const FILTERS: usize = 300;
/// Unknown MSRs.
const NOBODY: u32 = 0x5000_0000;

/// Sets random filters, most of them malformed, with a plain ioctl.
pub fn refused() -> anyhow::Result<String> {
    let mut random = Random::new(super::SEED);
    let mut guest = proof::guest()?;
    let mut refused = 0;

    for number in 0..FILTERS {
        let filter = random_filter(&mut random);
        let set = raw(&filter).set(guest.vm());

        ensure!(
            matches!(
                (filter.check(), &set),
                (Ok(()), Ok(())) | (Err(_), Err(Errno::EINVAL))
            ),
            "filter {number}, {filter:x?}: KVM returns {set:?}, but the library {:?}",
            filter.check()
        );
        if set.is_err() {
            refused += 1;
            continue;
        }
        // A range that reaches the last index contains no MSR.
        for access in [Access::Read, Access::Write] {
            for index in [NOBODY, u32::MAX - 1, u32::MAX] {
                let outcome = guest.access(access, false, index, 0)?;

                ensure!(
                    proof::is_allowed(&outcome)? == super::walk::allows(&filter, access, index),
                    "filter {number}, {filter:x?}: {access} {index:#x} gave {outcome}"
                );
            }
        }
    }
    ensure!(refused > FILTERS / 4, "only {refused} were refused");
    Ok(format!("{refused} of {FILTERS} refused"))
}

/// The filter for the plain guest's crate, which checks nothing.
fn raw(filter: &Filter) -> kvm_msr_guest::Filter {
    let raw = match filter.default {
        Verdict::Allow => kvm_msr_guest::Filter::allow_by_default(),
        Verdict::Deny => kvm_msr_guest::Filter::deny_by_default(),
    };

    filter.ranges.iter().fold(raw, |raw, range| {
        raw.with(kvm_msr_guest::Range::from_bitmap(
            range.flags.0,
            range.base.0,
            range.nmsrs,
            &range.bitmap.0,
        ))
    })
}

fn random_filter(random: &mut Random) -> Filter {
    let mut ranges = Vec::new();

    for _ in 0..random.below(3) {
        let nmsrs = *random.pick(&[0, 1, 2, 64, 0x2fff, 0x3000, 0x3001]);
        // Errors are rare, because otherwise almost no filter would be accepted.
        let flags = match random.below(8) {
            0 => 0,
            1 => 4,
            other => 1 + other % 3,
        };

        ranges.push(Range {
            flags: Flags(flags),
            base: Hex(*random.pick(&[NOBODY, u32::MAX - 1, u32::MAX, 0xffff_d000])),
            nmsrs,
            // The raw filter has room for the longest bitmap that KVM accepts.
            bitmap: Bitmap::filled(nmsrs, random.below(2) == 0),
        });
    }
    Filter {
        default: *random.pick(&[Verdict::Allow, Verdict::Deny]),
        ranges,
    }
}
