// SPDX-License-Identifier: GPL-2.0

//! `KMSR_SAVE_LIST`: what has to be saved and restored with a vCPU.

use super::Attached;
use crate::{
    bindings,
    engine::save_list::{
        self,
        Entry,
        Owner, //
    },
    kvm::{
        user::{
            Sized,
            UserArray, //
        },
        Vcpu, //
    },
};
use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

// The engine has no access to the header.
const _: () = {
    assert!(Owner::Msrs as u32 == bindings::KMSR_OWNER_MSRS);
    assert!(Owner::Sregs as u32 == bindings::KMSR_OWNER_SREGS);
    assert!(Owner::Lapic as u32 == bindings::KMSR_OWNER_LAPIC);
    assert!(save_list::VOLATILE == bindings::KMSR_SAVE_VOLATILE);
    assert!(save_list::WRITE_ONLY == bindings::KMSR_SAVE_WRITE_ONLY);
    assert!(save_list::FIXED == bindings::KMSR_SAVE_FIXED);
    assert!(save_list::SIDE_EFFECT == bindings::KMSR_SAVE_SIDE_EFFECT);
    assert!(save_list::GUEST_MEMORY == bindings::KMSR_SAVE_GUEST_MEMORY);
    assert!(save_list::LISTED == bindings::KMSR_SAVE_LISTED);
    assert!(save_list::IGNORED == bindings::KMSR_SAVE_IGNORED);
};

/// Lists the MSRs that a vCPU has, in the order in which to restore them.
///
/// # Errors
///
/// `E2BIG` if the entries do not fit, after writing their number; `ENODEV` if the VM has ended;
/// `EFAULT` if the entries can't be written; `ENOMEM`; and those of
/// [`VmRef::with_vcpu`](crate::kvm::VmRef::with_vcpu), [`Sized::read`] and [`Sized::write`].
pub(super) fn save_list(attached: &Attached, argp: UserPtr) -> Result {
    let mut arg = Sized::<bindings::kmsr_save_list>::read(argp)?;
    let vm = attached.vm()?;
    let room = arg.value.nr_entries as usize;
    let entries = vm.with_vcpu(arg.value.vcpu_id, arg.value.timeout_ms, entries)??;

    // The number fits: a vCPU has a few hundred MSRs.
    arg.value.nr_entries = entries.len() as u32;
    arg.write()?;
    if room < entries.len() {
        return Err(E2BIG);
    }
    let mut sorted = KVVec::with_capacity(entries.len(), GFP_KERNEL)?;

    for entry in save_list::in_order(&entries) {
        // This does not allocate: there are as many entries as the vector has room for.
        sorted.push_within_capacity(entry).map_err(|_| ENOMEM)?;
    }
    UserArray::new(arg.value.entries).write(&sorted)
}

fn entries(vcpu: &Vcpu) -> Result<KVVec<Entry>> {
    let _section = vcpu.vm().read_section();
    let mut entries = KVVec::new();

    for entry in save_list::entries(vcpu) {
        entries.push(entry, GFP_KERNEL)?;
    }
    Ok(entries)
}
