// SPDX-License-Identifier: GPL-2.0

//! `KMSR_LEARN`: which MSRs the guest accesses.

use super::Attached;
use crate::{
    bindings,
    engine::learn::{
        slots_for,
        Learned,
        Table, //
    },
    kvm::{
        user::{
            Sized,
            UserArray, //
        },
        Learning,
        Parts, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};

/// Starts or stops learning, or reads what was learned.
///
/// # Errors
///
/// `EINVAL` if the operation is undefined, a reserved member is not 0, or there is nothing to stop
/// or to read; `EBUSY` if another file learns; `E2BIG` if the records do not fit, after writing
/// their number; `ENODEV` if the VM has ended; `ENOMEM`; and those of [`Sized::read`] and
/// [`Sized::write`].
pub(super) fn learn(attached: &Attached, argp: UserPtr) -> Result {
    let mut arg = Sized::<bindings::kmsr_learn>::read(argp)?;

    if arg.value.reserved != 0 {
        return Err(EINVAL);
    }
    match arg.value.op {
        bindings::KMSR_OP_START => start(attached),
        bindings::KMSR_OP_STOP => stop(attached),
        bindings::KMSR_OP_READ => read(attached, &mut arg),
        _ => Err(EINVAL),
    }
}

/// Starts with no records. On failure, what was learned before is kept.
fn start(attached: &Attached) -> Result {
    let vm = attached.vm()?;
    let mut slots = KVVec::new();

    slots.resize(
        slots_for(bindings::KMSR_MAX_LEARNED as usize),
        Learned::default(),
        GFP_KERNEL_ACCOUNT,
    )?;
    let learning = Arc::pin_init(Learning::new(Table::new(slots)), GFP_KERNEL_ACCOUNT)?;
    let mut claims = attached.state.claims.lock();

    if claims.learner.is_some_and(|file| file != attached.file) {
        return Err(EBUSY);
    }
    let overlay = Parts {
        learning: Some(learning.clone()),
        ..claims.parts()
    }
    .overlay()?;

    claims.learner = Some(attached.file);
    claims.learning = Some(learning);
    claims.is_learning = true;
    attached.state.replace_overlay(&vm, overlay);
    Ok(())
}

/// Stops, and keeps the records.
fn stop(attached: &Attached) -> Result {
    let vm = attached.vm()?;
    let mut claims = attached.state.claims.lock();

    if claims.learner != Some(attached.file) {
        return Err(EINVAL);
    }
    if claims.is_learning {
        let overlay = Parts {
            learning: None,
            ..claims.parts()
        }
        .overlay()?;

        claims.is_learning = false;
        attached.state.replace_overlay(&vm, overlay);
    }
    Ok(())
}

fn read(attached: &Attached, arg: &mut Sized<bindings::kmsr_learn>) -> Result {
    // It is an error to read the records of a VM that has ended, though they still exist.
    let _vm = attached.vm()?;
    let learning = {
        let claims = attached.state.claims.lock();

        if claims.learner != Some(attached.file) {
            return Err(EINVAL);
        }
        claims.learning.clone().ok_or(EINVAL)?
    };
    let mut records = KVVec::with_capacity(bindings::KMSR_MAX_LEARNED as usize, GFP_KERNEL)?;
    let room = arg.value.nr_records as usize;

    {
        let table = learning.table.lock();

        for record in table.records() {
            // This does not allocate: the table has no more records than the vector has room for.
            records.push_within_capacity(*record).map_err(|_| ENOMEM)?;
        }
        arg.value.lost = table.lost();
    }
    // It fits: there are at most KMSR_MAX_LEARNED records.
    arg.value.nr_records = records.len() as u32;
    arg.write()?;
    if room < records.len() {
        return Err(E2BIG);
    }
    UserArray::new(arg.value.records).write(&records)
}

/// Ends the learning of a file that is being closed.
pub(super) fn close(attached: &Attached) {
    let vm = attached.vm();
    let mut claims = attached.state.claims.lock();

    if claims.learner != Some(attached.file) {
        return;
    }
    claims.learner = None;
    let learning = claims.learning.take();

    if core::mem::take(&mut claims.is_learning) {
        // If the VM has ended, its overlay is gone. If there is no memory for a new overlay, the
        // old one stays, and nobody reads what it records.
        if let (Ok(vm), Ok(overlay)) = (&vm, claims.parts().overlay()) {
            attached.state.replace_overlay(vm, overlay);
        }
    }
    drop(learning);
}
