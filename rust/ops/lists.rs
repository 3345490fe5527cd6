// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_MSR_INDEX_LIST`, `KVM_GET_MSR_FEATURE_INDEX_LIST` and `KVM_GET_MSRS` on the device, and
//! `KVM_GET_REG_LIST` on a vCPU.

use super::{
    cpu::Host,
    msrs,
    Vcpu, //
};
use crate::{
    engine::{
        access::Cpu,
        lists,
        one_reg,
        registers::Feature, //
    },
    kvm::user::{
        MsrEntries,
        MsrList,
        UserList, //
    },
};
use kernel::prelude::*;

/// The MSRs to be saved with a vCPU.
///
/// # Errors
///
/// `E2BIG` if there is no room for the list, whose length is written then; `EFAULT` if user memory
/// can't be read or written, `ENOMEM`.
pub(crate) fn get_indices(list: UserList<u32>) -> Result {
    give(list, lists::indices(&Host))
}

/// The MSRs that describe features, as CPUID does.
///
/// # Errors
///
/// As [`get_indices`].
pub(crate) fn get_model_indices(list: UserList<u32>) -> Result {
    give(list, lists::model_indices(&Host))
}

fn give(list: UserList<u32>, indices: impl Iterator<Item = u32>) -> Result {
    let room = list.read_count()?;
    let mut elements = KVec::new();

    for index in indices {
        elements.push(index, GFP_KERNEL)?;
    }
    // There are some hundred.
    let count = elements.len() as u32;

    list.write_count(count)?;
    if room < count {
        return Err(E2BIG);
    }
    list.write_elements(&elements)
}

/// Reads what guests can have of features, until one is not known, and returns how many are.
///
/// # Errors
///
/// As [`msrs::get`].
pub(crate) fn get_models(list: MsrList) -> Result<usize> {
    let mut entries = MsrEntries::new();
    let mut nr = 0;

    msrs::read_entries(list, &mut entries)?;

    for entry in &mut *entries {
        let read = lists::read_model_excused(&Host, entry.index());

        *entry.data_mut() = read.unwrap_or(0);
        if read.is_err() {
            break;
        }
        nr += 1;
    }
    list.write_values(&entries)?;
    Ok(nr)
}

/// The registers that are not MSRs to anybody but KVM.
///
/// # Errors
///
/// `E2BIG` if there is no room for the list, whose length is written then; `EFAULT` if user memory
/// can't be read or written.
pub(crate) fn get_registers(vcpu: &Vcpu, list: UserList<u64>) -> Result {
    let ids: &[u64] = if vcpu.has(Feature::ShadowStack) {
        &[one_reg::GUEST_SSP_ID]
    } else {
        &[]
    };
    let room = list.read_count()?;

    list.put_count(ids.len() as u64)?;
    if room < ids.len() as u64 {
        return Err(E2BIG);
    }
    list.write_elements(ids)
}
