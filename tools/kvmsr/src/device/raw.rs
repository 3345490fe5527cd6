// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The ioctls with C's structures.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use vmm_sys_util::ioctl::ioctl_with_mut_ref;

use super::uapi::*;

/// The size of a structure, for its first member.
const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// The number of elements, for a member of a structure.
fn count<T>(elements: &[T]) -> io::Result<u32> {
    u32::try_from(elements.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// An ioctl.
///
/// # Safety
///
/// The module must read and write only the structure, and memory to which the structure points and
/// that no one else accesses meanwhile.
unsafe fn call<T>(file: &File, request: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: By the function's contract.
    match unsafe { ioctl_with_mut_ref(file, request.into(), argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `KMSR_INFO`
pub fn info(file: &File) -> io::Result<kmsr_info> {
    let mut info = kmsr_info {
        size: size::<kmsr_info>(),
        ..Default::default()
    };

    // SAFETY: The module writes at most `size` bytes, and the structure has no pointers.
    unsafe { call(file, KMSR_IOCTL_INFO, &mut info)? };
    Ok(info)
}

/// `KMSR_ATTACH`
pub fn attach(file: &File, vm: BorrowedFd<'_>, rights: u64) -> io::Result<()> {
    let mut attach = kmsr_attach {
        size: size::<kmsr_attach>(),
        vm_fd: vm.as_raw_fd(),
        rights,
    };

    // SAFETY: The module reads at most `size` bytes, and the structure has no pointers.
    unsafe { call(file, KMSR_IOCTL_ATTACH, &mut attach) }
}

/// `KMSR_SET_POLICY`. An error comes with `KMSR_RULE_*` and the number of the wrong rule.
pub fn set_policy(
    file: &File,
    flags: u32,
    rules: &[kmsr_rule],
) -> Result<(), (io::Error, u32, u32)> {
    let mut policy = kmsr_policy {
        size: size::<kmsr_policy>(),
        flags,
        nr_rules: count(rules).map_err(|error| (error, 0, 0))?,
        rules: rules.as_ptr() as u64,
        ..Default::default()
    };

    // SAFETY: The module reads `nr_rules` rules at `rules`, which is their number, and writes only
    // the structure.
    unsafe { call(file, KMSR_IOCTL_SET_POLICY, &mut policy) }
        .map_err(|error| (error, policy.error, policy.error_rule))
}

/// `KMSR_GET_POLICY`. Returns how many rules there are.
pub fn get_policy(file: &File, rules: &mut [kmsr_rule]) -> io::Result<u32> {
    let mut policy = kmsr_policy {
        size: size::<kmsr_policy>(),
        nr_rules: count(rules)?,
        rules: rules.as_mut_ptr() as u64,
        ..Default::default()
    };

    // SAFETY: The module writes at most `nr_rules` rules at `rules`, which has room for them, and
    // any bytes are a valid rule. The slice is borrowed exclusively.
    unsafe { call(file, KMSR_IOCTL_GET_POLICY, &mut policy)? };
    Ok(policy.nr_rules)
}

/// `KMSR_LEARN`; the records are for `KMSR_OP_READ`.
pub fn learn(file: &File, op: u32, records: &mut [kmsr_learned]) -> io::Result<kmsr_learn> {
    let mut learn = kmsr_learn {
        size: size::<kmsr_learn>(),
        op,
        nr_records: count(records)?,
        records: if records.is_empty() {
            0
        } else {
            records.as_mut_ptr() as u64
        },
        ..Default::default()
    };

    // SAFETY: The module writes at most `nr_records` records at `records`, which has room for
    // them, and any bytes are a valid record. The slice is borrowed exclusively.
    unsafe { call(file, KMSR_IOCTL_LEARN, &mut learn)? };
    Ok(learn)
}

/// `KMSR_STATS`; the records are for `KMSR_OP_READ`.
pub fn stats(file: &File, op: u32, records: &mut [kmsr_stat]) -> io::Result<kmsr_stats> {
    let mut stats = kmsr_stats {
        size: size::<kmsr_stats>(),
        op,
        nr_records: count(records)?,
        records: if records.is_empty() {
            0
        } else {
            records.as_mut_ptr() as u64
        },
        ..Default::default()
    };

    // SAFETY: The module writes at most `nr_records` records at `records`, which has room for
    // them, and any bytes are a valid record. The slice is borrowed exclusively.
    unsafe { call(file, KMSR_IOCTL_STATS, &mut stats)? };
    Ok(stats)
}

/// `KMSR_BATCH`. Returns how many entries have a status, also if it fails.
pub fn batch(
    file: &File,
    op: u32,
    vcpu_id: u32,
    timeout_ms: u32,
    entries: &mut [kmsr_entry],
) -> Result<u32, (io::Error, u32)> {
    let mut batch = kmsr_batch {
        size: size::<kmsr_batch>(),
        op,
        vcpu_id,
        timeout_ms,
        nr_entries: count(entries).map_err(|error| (error, 0))?,
        nr_done: 0,
        entries: entries.as_mut_ptr() as u64,
    };

    // SAFETY: The module reads and writes `nr_entries` entries at `entries`, which is their
    // number, and any bytes are a valid entry. The slice is borrowed exclusively.
    match unsafe { call(file, KMSR_IOCTL_BATCH, &mut batch) } {
        Ok(()) => Ok(batch.nr_done),
        Err(error) => Err((error, batch.nr_done)),
    }
}

/// `KMSR_SAVE_LIST`. Returns how many entries there are.
pub fn save_list(
    file: &File,
    vcpu_id: u32,
    timeout_ms: u32,
    entries: &mut [kmsr_save_entry],
) -> io::Result<u32> {
    let mut list = kmsr_save_list {
        size: size::<kmsr_save_list>(),
        vcpu_id,
        nr_entries: count(entries)?,
        timeout_ms,
        entries: entries.as_mut_ptr() as u64,
    };

    // SAFETY: The module writes at most `nr_entries` entries at `entries`, which has room for
    // them, and any bytes are a valid entry. The slice is borrowed exclusively.
    unsafe { call(file, KMSR_IOCTL_SAVE_LIST, &mut list)? };
    Ok(list.nr_entries)
}
