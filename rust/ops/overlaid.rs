// SPDX-License-Identifier: GPL-2.0

//! Guest accesses in a VM for which a file of `/dev/kvm-msr` has set a policy, learns, or counts.

use super::{
    msr_filter,
    AccessResult, //
};
use crate::{
    engine::{
        access::{
            self,
            judged,
            Access,
            Initiator, //
        },
        exit::FILTERED,
        learn::{
            Observed,
            Path, //
        },
        registers::{
            lookup,
            Register, //
        },
        stats::Event,
    },
    kvm::{
        Counter,
        Overlay,
        Section,
        Tsc,
        Vcpu, //
    },
};
use core::cell::Cell;

/// Reads an MSR. The filter decides first: a policy never allows what it denies.
pub(super) fn read(
    vcpu: &Vcpu,
    section: &Section<'_>,
    overlay: &Overlay,
    index: u32,
    path: Path,
) -> AccessResult<u64> {
    let start = Tsc::now();
    let unsupported = Cell::new(false);
    let note = |event| {
        unsupported.set(unsupported.get() || event == Event::Unsupported);
        overlay.note(index, Access::Read, event);
    };
    let read = if msr_filter::allows(section, index, Access::Read) {
        judged::read_judged(vcpu, overlay.policy.as_deref(), lookup(index), index, note)
    } else {
        vcpu.count(Counter::Filtered, 1);
        note(Event::Denied);
        Err(FILTERED)
    };

    count(vcpu, overlay, index, Access::Read, start);
    if let Some(learning) = &overlay.learning {
        learning.table.lock().record(&Observed {
            index,
            access: Access::Read,
            path,
            value: read.ok(),
            changed: 0,
            denied: read.is_err(),
            unsupported: unsupported.get(),
        });
    }
    read
}

/// Writes an MSR, as [`read`] reads it.
pub(super) fn write(
    vcpu: &Vcpu,
    section: &Section<'_>,
    overlay: &Overlay,
    index: u32,
    data: u64,
    path: Path,
) -> AccessResult {
    let current = || access::read_existing(vcpu, index, Initiator::Host).ok();
    let before = overlay.learning.as_ref().and_then(|_| current());
    let start = Tsc::now();
    let unsupported = Cell::new(false);
    let note = |event| {
        unsupported.set(unsupported.get() || event == Event::Unsupported);
        overlay.note(index, Access::Write, event);
    };
    let write = if msr_filter::allows(section, index, Access::Write) {
        let policy = overlay.policy.as_deref();

        judged::write_judged(vcpu, policy, lookup(index), index, data, note)
    } else {
        vcpu.count(Counter::Filtered, 1);
        note(Event::Denied);
        Err(FILTERED)
    };

    count(vcpu, overlay, index, Access::Write, start);
    if let Some(learning) = &overlay.learning {
        // KVM or a rule may have dropped the write, or some of its bits.
        let changed = before.zip(current()).map_or(0, |(old, new)| old ^ new);

        learning.table.lock().record(&Observed {
            index,
            access: Access::Write,
            path,
            value: Some(data),
            changed,
            denied: write.is_err(),
            unsupported: unsupported.get(),
        });
    }
    write
}

/// Counts an access, if there are statistics.
fn count(vcpu: &Vcpu, overlay: &Overlay, index: u32, access: Access, start: Tsc) {
    if overlay.counting.stats().is_some() {
        let plain = overlay.is_plain(index, access);

        overlay
            .counting
            .add(vcpu, index, access, plain, start.elapsed());
    }
}

/// Decides a read of an MSR that KVM does not have.
#[cold]
#[inline(never)]
pub(super) fn read_unsupported(
    vcpu: &Vcpu,
    overlay: &Overlay,
    register: &Register,
    index: u32,
) -> AccessResult<u64> {
    judged::read_unsupported(vcpu, overlay.policy.as_deref(), register, index, |event| {
        overlay.note(index, Access::Read, event);
    })
}

/// Decides a write to an MSR that KVM does not have.
#[cold]
#[inline(never)]
pub(super) fn write_unsupported(
    vcpu: &Vcpu,
    overlay: &Overlay,
    register: &Register,
    index: u32,
    data: u64,
) -> AccessResult {
    let policy = overlay.policy.as_deref();

    judged::write_unsupported(vcpu, policy, register, index, data, |event| {
        overlay.note(index, Access::Write, event);
    })
}
