// SPDX-License-Identifier: GPL-2.0

//! What the engine shows of a VM in its debugfs folder.

use super::{
    Protected,
    Section,
    Vm, //
};
use crate::{
    engine::filter::{
        Access,
        Rule,
        Segment, //
    },
    kvm::{
        Counter,
        Files, //
    },
};
use kernel::{
    seq_file::SeqFile,
    seq_print, //
};

/// How many runs of a segment are shown at the most.
const MAX_RUNS: u32 = 16;

/// The files.
pub(crate) const FILES: Files<Protected> = Files {
    engine,
    filter,
    counters,
};

fn engine(_: &Vm, to: &SeqFile) {
    seq_print!(to, "kvm-msr (Rust)\n");
}

fn filter(section: &Section<'_>, to: &SeqFile) {
    let Some(filter) = section.read() else {
        seq_print!(to, "no filter\n");
        return;
    };

    for (access, name) in [(Access::Read, "read "), (Access::Write, "write")] {
        for segment in filter.describe(access) {
            show(name, &segment, to);
        }
    }
    seq_print!(to, "x2APIC MSRs, 0x800-0x8ff, are never filtered\n");
}

/// Shows a segment run by run, or in sum if there are too many: userspace chose the bitmap, and
/// it can have thousands.
fn show(name: &str, segment: &Segment<'_>, to: &SeqFile) {
    let (first, last) = (segment.first, segment.last);
    let by = match segment.rule {
        Rule::Allow | Rule::Deny => "default",
        Rule::Bitmap(_) => "range",
    };
    let mut runs = 0u32;
    let mut allowed = 0u32;

    segment.for_each_run(|first, last, allow| {
        runs = runs.wrapping_add(1);
        if allow {
            allowed = allowed.wrapping_add((last - first).wrapping_add(1));
        }
    });
    if runs > MAX_RUNS {
        let size = (last - first).wrapping_add(1);

        seq_print!(
            to,
            "{name} {first:#010x}-{last:#010x} {allowed} of {size} allowed ({by})\n"
        );
        return;
    }
    segment.for_each_run(|first, last, allow| {
        let verdict = if allow { "allow" } else { "deny" };

        seq_print!(
            to,
            "{name} {first:#010x}-{last:#010x} {verdict:<5} ({by})\n"
        );
    });
}

fn counters(vm: &Vm, to: &SeqFile) {
    for (name, counter) in [
        ("reads", Counter::Reads),
        ("writes", Counter::Writes),
        ("filtered", Counter::Filtered),
        ("user_space", Counter::UserSpace),
        ("gp", Counter::GeneralProtection),
        ("host_reads", Counter::HostReads),
        ("host_writes", Counter::HostWrites),
    ] {
        seq_print!(to, "{name} {}\n", vm.count_of(counter));
    }
}
