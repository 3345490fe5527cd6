// SPDX-License-Identifier: GPL-2.0

//! `KMSR_LEARN`: which MSRs the guest accesses.

use super::{
    watch::{
        self,
        Records, //
    },
    Attached, //
};
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
        Claims,
        Learning,
        Watch, //
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
        bindings::KMSR_OP_STOP => watch::stop::<Learning>(attached),
        bindings::KMSR_OP_READ => read(attached, &mut arg),
        _ => Err(EINVAL),
    }
}

impl Records for Learning {
    fn watch(claims: &mut Claims) -> &mut Option<Watch<Arc<Self>>> {
        &mut claims.learning
    }
}

/// Starts with no records.
fn start(attached: &Attached) -> Result {
    let vm = attached.vm()?;
    let mut slots = KVVec::new();

    slots.resize(
        slots_for(bindings::KMSR_MAX_LEARNED as usize),
        Learned::default(),
        GFP_KERNEL_ACCOUNT,
    )?;
    let learning = Arc::pin_init(Learning::new(Table::new(slots)), GFP_KERNEL_ACCOUNT)?;

    watch::start(attached, &vm, learning)
}

fn read(attached: &Attached, arg: &mut Sized<bindings::kmsr_learn>) -> Result {
    let learning = watch::records::<Learning>(attached)?;
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
