// SPDX-License-Identifier: GPL-2.0

//! `KVM_GET_MSR_INDEX_LIST`, `KVM_GET_MSR_FEATURE_INDEX_LIST` and `KVM_GET_MSRS` on `/dev/kvm`, and
//! `KVM_GET_REG_LIST` on a vCPU.

use crate::{
    engine::{
        cpu::Cpuid,
        lists,
        one_reg,
        registers::Feature, //
    },
    kvm::{
        user::{
            MsrList,
            UserList, //
        },
        DeviceIoctl,
        Vcpu, //
    },
};
use kernel::prelude::*;

/// Lists the MSRs that user space saves and restores with a vCPU.
///
/// # Errors
///
/// `E2BIG` if the list does not fit, after writing its length; `EFAULT` if user memory can't be
/// read or written; `ENOMEM`.
pub(crate) fn get_msr_index_list(ioctl: DeviceIoctl<'_, UserList<u32>>) -> Result {
    give(ioctl.user, lists::indices(&ioctl.host))
}

/// Lists the feature MSRs, which describe features as CPUID does.
///
/// # Errors
///
/// As [`get_msr_index_list`].
pub(crate) fn get_feature_msr_index_list(ioctl: DeviceIoctl<'_, UserList<u32>>) -> Result {
    give(ioctl.user, lists::feature_indices(&ioctl.host))
}

fn give(list: UserList<u32>, indices: impl Iterator<Item = u32>) -> Result {
    let room = list.read_count()?;
    let mut elements = KVec::new();

    for index in indices {
        elements.push(index, GFP_KERNEL)?;
    }
    // The number fits: there are a few hundred MSRs.
    let count = elements.len() as u32;

    list.write_count(count)?;
    if room < count {
        return Err(E2BIG);
    }
    list.write_elements(&elements)
}

/// Reads the values of feature MSRs that KVM offers to guests. Stops at the first unknown MSR, and
/// returns the number of MSRs that were read.
///
/// # Errors
///
/// As [`get_msrs`](super::msrs::get_msrs).
pub(crate) fn get_feature_msrs(ioctl: DeviceIoctl<'_, MsrList>) -> Result<usize> {
    let (mut entries, user) = ioctl.user.read()?;
    let mut nr = 0;

    for entry in &mut *entries {
        let read = lists::read_feature(&ioctl.host, entry.index);

        entry.data = read.unwrap_or(0);
        if read.is_err() {
            break;
        }
        nr += 1;
    }
    user.write_values(&entries)?;
    Ok(nr)
}

/// Lists the registers that user space can't access as MSRs.
///
/// # Errors
///
/// `E2BIG` if the list does not fit, after writing its length; `EFAULT` if user memory can't be
/// read or written.
pub(crate) fn get_reg_list(vcpu: &Vcpu, list: UserList<u64>) -> Result {
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
    list.put_elements(ids)
}
