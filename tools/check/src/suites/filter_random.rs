// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Compares random filters, on both engines and with a linear scan in this program, by RDMSR and
//! WRMSR in the guest.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Access;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Random;
use kvm_msr_guest::Range;
use kvm_msr_guest::filter::MAX_MSRS;
use kvm_msr_guest::filter::MAX_RANGES;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::filter::WRITE;

use super::filter_guest::NOBODY;
use super::filter_guest::deflecting_guest;
use super::msrs_values;
use crate::Arguments;
use crate::report::Report;
use crate::side;
use crate::side::Side;

/// Number of accesses per filter that are not at the ends of its ranges.
const ANYWHERE: usize = 8;

/// Runs the random filters, if the arguments select them.
pub fn run(arguments: &Arguments, report: &mut Report) {
    let name = "filter: random".to_owned();

    if !name.contains(&arguments.test) {
        return;
    }
    report.test(name, || {
        side::compare(arguments.pair.engines(), false, &|side: &mut Side| {
            compare_filters(side, arguments.seed, arguments.filters)
        })
        .with_context(|| format!("--seed {:#x}", arguments.seed))
    });
}

fn compare_filters(side: &mut Side, seed: u64, filters: u32) -> Result<()> {
    let mut random = Random::new(seed);
    let mut guest = deflecting_guest(side)?;

    for number in 0..filters {
        let filter = random_filter(&mut random);
        let abi = Abi::ALL[random.below(2) as usize];

        filter
            .set_with(abi, guest.vm())
            .with_context(|| format!("{abi} set filter {number}"))?;
        side.note("filter", number);
        for index in probes(&mut random, &filter) {
            for access in [Access::Read, Access::Write] {
                probe(side, &mut guest, &filter, access, index)
                    .with_context(|| format!("filter {number} is {filter:x?}"))?;
            }
        }
    }
    Ok(())
}

fn probe(
    side: &mut Side,
    guest: &mut Guest,
    filter: &Filter,
    access: Access,
    index: u32,
) -> Result<()> {
    let outcome = guest.access(access, false, index, 0)?;
    let allowed = outcome
        .user_space()
        .is_none_or(|exit| exit.reason != KVM_MSR_EXIT_REASON_FILTER);

    ensure!(
        allowed == filter.allows(access, index),
        "{access} {index:#x} gave {outcome}, allowed is {} by the linear scan",
        filter.allows(access, index)
    );
    let step = format!("{access} {index:#x}");
    if allowed && msrs_values::changes_by_itself(index) {
        side.note(step, "allowed");
    } else {
        side.note(step, outcome);
    }
    Ok(())
}

fn random_filter(random: &mut Random) -> Filter {
    let mut filter = if random.below(2) == 0 {
        Filter::allow_by_default()
    } else {
        Filter::deny_by_default()
    };
    // Close to each other, so that ranges overlap and are adjacent.
    let home = random_base(random);

    for _ in 0..=random.below(MAX_RANGES as u32) {
        if filter.ranges().len() == MAX_RANGES {
            break;
        }
        let base = match random.below(4) {
            0 => random_base(random),
            _ => home.wrapping_add(random.below(256)),
        };
        let nmsrs = match random.below(8) {
            0 => 1,
            1 => 1 + random.below(MAX_MSRS),
            2 => MAX_MSRS,
            _ => 1 + random.below(200),
        };
        let flags = [READ, WRITE, READ | WRITE][random.below(3) as usize];
        let bitmap: Vec<u8> = match random.below(4) {
            0 => vec![0; nmsrs as usize],
            1 => vec![0xff; nmsrs as usize],
            _ => (0..nmsrs).map(|_| random.next() as u8).collect(),
        };
        filter = filter.with(Range::from_bitmap(flags, base, nmsrs, &bitmap));
    }
    filter
}

/// A base near MSRs that KVM has, or near the ends of the index space.
fn random_base(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => random.below(0x2000),
        1 => 0xc000_0000 + random.below(0x2000),
        2 => 0xc001_0000 + random.below(0x2000),
        3 => 0x700 + random.below(0x200),
        4 => u32::MAX - random.below(0x200),
        5 => random.next() as u32,
        _ => NOBODY + random.below(0x1000),
    }
}

fn probes(random: &mut Random, filter: &Filter) -> Vec<u32> {
    let mut probes = vec![0, 0x7ff, 0x800, 0x8ff, 0x900, u32::MAX];

    for range in filter.ranges() {
        let end = range.base().wrapping_add(range.nmsrs());

        probes.push(range.base().wrapping_sub(1));
        probes.push(range.base());
        probes.push(range.base().wrapping_add(random.below(range.nmsrs())));
        probes.push(end.wrapping_sub(1));
        probes.push(end);
    }
    for _ in 0..ANYWHERE {
        probes.push(random_base(random));
    }
    probes.sort_unstable();
    probes.dedup();
    probes
}
