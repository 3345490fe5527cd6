// SPDX-License-Identifier: GPL-2.0

//! The engine's files in a VM's debugfs folder.

use crate::{
    engine::{
        access::Access,
        filter::{
            Segment,
            Words, //
        },
    },
    kvm::{
        Counter,
        File,
        Vm, //
    },
};
use kernel::{
    prelude::*,
    seq_file::SeqFile,
    seq_print, //
};

/// The maximum number of runs of a segment that are shown.
const MAX_RUNS: u32 = 16;

/// Creates the files of a new VM.
pub(crate) fn vm_debugfs(vm: &Vm) {
    vm.create_file::<MsrEngine>();
    vm.create_file::<MsrFilter>();
    vm.create_file::<MsrCounters>();
}

/// The engine that serves the VM.
struct MsrEngine;

/// The compiled filter.
struct MsrFilter;

/// The engine's counters, summed over all vCPUs.
struct MsrCounters;

impl File for MsrEngine {
    const NAME: &'static CStr = c"msr_engine";

    fn show(_: &Vm, to: &SeqFile) {
        seq_print!(to, "kvm-msr (Rust)\n");
    }
}

impl File for MsrFilter {
    const NAME: &'static CStr = c"msr_filter";

    fn show(vm: &Vm, to: &SeqFile) {
        let section = vm.read_section();
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
}

impl File for MsrCounters {
    const NAME: &'static CStr = c"msr_counters";

    fn show(vm: &Vm, to: &SeqFile) {
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
}

/// Shows the runs of a segment, or only the number of allowed indices if there are more than
/// [`MAX_RUNS`]: a bitmap can have thousands of runs.
fn show<W: Words>(name: &str, segment: &Segment<'_, W>, to: &SeqFile) {
    let (first, last) = (segment.first, segment.last);
    let decider = if segment.is_of_range() {
        "range"
    } else {
        "default"
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
            "{name} {first:#010x}-{last:#010x} {allowed} of {size} allowed ({decider})\n"
        );
        return;
    }
    segment.for_each_run(|first, last, allow| {
        let verdict = if allow { "allow" } else { "deny" };

        seq_print!(
            to,
            "{name} {first:#010x}-{last:#010x} {verdict:<5} ({decider})\n"
        );
    });
}
