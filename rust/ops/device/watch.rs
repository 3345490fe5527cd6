// SPDX-License-Identifier: GPL-2.0

//! What `KMSR_LEARN` and `KMSR_STATS` have in common: one file of a VM starts to watch the guest's
//! accesses, stops, and reads the records.

use super::Attached;
use crate::kvm::{
    Claims,
    Vm,
    Watch, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What the guest's accesses are recorded in.
pub(super) trait Records: Sized {
    /// The claim to such records.
    fn watch(claims: &mut Claims) -> &mut Option<Watch<Arc<Self>>>;
}

/// Starts with new records. On failure, the old ones are kept.
///
/// # Errors
///
/// `EBUSY` if another file has started, `ENOMEM`.
pub(super) fn start<R: Records>(attached: &Attached, vm: &Vm, records: Arc<R>) -> Result {
    let file = attached.file;

    attached.state.change_claims(vm, |claims| {
        let watch = R::watch(claims);

        if watch.as_ref().is_some_and(|watch| watch.file != file) {
            return Err(EBUSY);
        }
        *watch = Some(Watch {
            file,
            records,
            is_on: true,
        });
        Ok(())
    })
}

/// Stops, and keeps the records.
///
/// # Errors
///
/// `EINVAL` if the file has not started, `ENODEV` if the VM has ended, `ENOMEM`.
pub(super) fn stop<R: Records>(attached: &Attached) -> Result {
    let vm = attached.vm()?;

    // Stopped already: `is_on` changes only after the overlay has. To rebuild it would mean to wait for
    // readers, and could fail.
    if !watch_of::<R>(attached, &mut attached.state.claims.lock())?.is_on {
        return Ok(());
    }
    attached.state.change_claims(&vm, |claims| {
        watch_of::<R>(attached, claims)?.is_on = false;
        Ok(())
    })
}

/// Returns the records.
///
/// # Errors
///
/// `EINVAL` if the file has not started; `ENODEV` if the VM has ended, though the records still
/// exist.
pub(super) fn records<R: Records>(attached: &Attached) -> Result<Arc<R>> {
    let _vm = attached.vm()?;
    let mut claims = attached.state.claims.lock();

    Ok(watch_of::<R>(attached, &mut claims)?.records.clone())
}

/// Stops, and drops the records, as the file is being closed.
pub(super) fn close<R: Records>(attached: &Attached) {
    // If the VM has ended, its overlay is gone. If there is no memory for a new overlay, the old one
    // stays, and nobody reads what it records.
    let _ = stop::<R>(attached);

    R::watch(&mut attached.state.claims.lock()).take_if(|watch| watch.file == attached.file);
}

/// The file's own claim.
fn watch_of<'a, R: Records>(
    attached: &Attached,
    claims: &'a mut Claims,
) -> Result<&'a mut Watch<Arc<R>>> {
    R::watch(claims)
        .as_mut()
        .filter(|watch| watch.file == attached.file)
        .ok_or(EINVAL)
}
