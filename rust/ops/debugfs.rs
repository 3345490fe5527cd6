// SPDX-License-Identifier: GPL-2.0

//! The engine's files in a VM's debugfs folder.

use crate::{
    engine::{
        access::Access,
        filter::{
            Segment,
            Words, //
        },
        policy::{
            RawRule,
            ACTION_ALLOW,
            ACTION_CONSTANT,
            ACTION_EXIT,
            ACTION_GP,
            ACTION_IGNORE,
            ACTION_MASK,
            ACTION_MATCH,
            READ,
            WRITE, //
        },
        stats::{
            Event,
            Row, //
        },
    },
    kvm::{
        Counter,
        File,
        Stats,
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
    vm.create_file::<MsrPolicy>();
    vm.create_file::<MsrStats>();
}

/// The engine that serves the VM.
struct MsrEngine;

/// The compiled filter.
struct MsrFilter;

/// The engine's counters, summed over all vCPUs.
struct MsrCounters;

/// The policy, as `kvmsr policy` reads it.
struct MsrPolicy;

/// The statistics that a file of `/dev/kvm-msr` counts now.
struct MsrStats;

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
        let Some(filter) = section.filter() else {
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

// The files below take no lock: KVM waits for their readers when it destroys a VM.

impl File for MsrPolicy {
    const NAME: &'static CStr = c"msr_policy";

    fn show(vm: &Vm, to: &SeqFile) {
        let section = vm.read_section();
        let Some(policy) = section
            .overlay()
            .and_then(|overlay| overlay.policy.as_ref())
        else {
            seq_print!(to, "# no policy\n");
            return;
        };

        for rule in policy.rules() {
            show_rule(&rule.raw(), to);
        }
    }
}

fn show_rule(rule: &RawRule, to: &SeqFile) {
    let (action, has_value) = match rule.action {
        ACTION_ALLOW => ("allow", false),
        ACTION_GP => ("gp", false),
        ACTION_EXIT => ("exit", false),
        ACTION_IGNORE => ("ignore", false),
        ACTION_CONSTANT => ("constant", true),
        ACTION_MASK => ("mask", true),
        ACTION_MATCH => ("match", true),
        _ => return,
    };
    let access = match rule.access {
        READ => "read",
        WRITE => "write",
        _ => "rw",
    };
    let when = match rule.when {
        0 => "always",
        _ => "unsupported",
    };

    seq_print!(to, "{action}");
    if has_value {
        seq_print!(to, "={:#x}", rule.value);
    }
    seq_print!(
        to,
        " {access} when {when} {:#010x}-{:#010x}\n",
        rule.first,
        rule.last
    );
}

impl File for MsrStats {
    const NAME: &'static CStr = c"msr_stats";

    fn show(vm: &Vm, to: &SeqFile) {
        let section = vm.read_section();
        let Some(stats) = section
            .overlay()
            .and_then(|overlay| overlay.counting.stats())
        else {
            seq_print!(to, "no statistics\n");
            return;
        };

        seq_print!(
            to,
            "msr access count denied unsupported user_exits gp bucket:count\n"
        );
        for (row, index) in stats.rows() {
            show_counts(stats, row, format_args!("{index:#010x}"), to);
        }
        show_counts(stats, Row::LOST, format_args!("lost"), to);
    }
}

/// Shows a line for each kind of access that there was.
fn show_counts(stats: &Stats, row: Row, name: core::fmt::Arguments<'_>, to: &SeqFile) {
    for (access, kind) in [(Access::Read, "read"), (Access::Write, "write")] {
        let totals = stats.totals(row, access);

        if totals.count() == 0 {
            continue;
        }
        seq_print!(to, "{name} {kind} {}", totals.count());
        for event in [
            Event::Denied,
            Event::Unsupported,
            Event::UserSpaceExit,
            Event::GeneralProtection,
        ] {
            seq_print!(to, " {}", totals.events[event as usize]);
        }
        for (bucket, count) in totals.buckets.iter().enumerate() {
            if *count != 0 {
                seq_print!(to, " {bucket}:{count}");
            }
        }
        seq_print!(to, "\n");
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
