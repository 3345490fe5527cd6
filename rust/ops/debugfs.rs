// SPDX-License-Identifier: GPL-2.0

//! What the engine shows of a VM in its debugfs folder.

use super::{
    Data,
    Section,
    Vm, //
};
use crate::{
    engine::filter::{
        Access,
        Rule, //
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

/// The files.
pub(crate) const FILES: Files<Data> = Files {
    engine,
    filter,
    counters,
};

fn engine(_: &Vm, to: &SeqFile) {
    seq_print!(to, "kvm-msr (Rust)\n");
}

fn filter(section: &Section<'_>, to: &SeqFile) {
    let Some(filter) = section.read(|data| &data.filter) else {
        seq_print!(to, "no filter\n");
        return;
    };

    for (access, name) in [(Access::Read, "read "), (Access::Write, "write")] {
        for segment in filter.describe(access) {
            let origin = match segment.rule {
                Rule::Allow | Rule::Deny => "default",
                Rule::Bitmap(_) => "range",
            };

            segment.for_each_run(|first, last, allowed| {
                let verdict = if allowed { "allow" } else { "deny " };

                seq_print!(
                    to,
                    "{name} {first:#010x}-{last:#010x} {verdict} ({origin})\n"
                );
            });
        }
    }
    seq_print!(to, "x2APIC MSRs, 0x800-0x8ff, are never filtered\n");
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
