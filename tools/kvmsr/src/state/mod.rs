// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Saves and restores a vCPU's MSRs.
//!
//! ```no_run
//! use kvmsr::state;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let kvm = kvm_ioctls::Kvm::new()?;
//! # let vcpu = kvm.create_vm()?.create_vcpu(0)?;
//! # let fresh = kvm.create_vm()?.create_vcpu(0)?;
//!
//! // On the source, with the vCPU stopped.
//! let list = state::List::new(&kvm, &vcpu)?;
//! let saved = state::save(&vcpu, &list)?;
//!
//! // On the target, before the vCPU runs.
//! let restored = state::restore(&fresh, &saved.entries)?;
//! for position in restored.refused() {
//!     let entry = saved.entries[position];
//!
//!     eprintln!("KVM refuses {:#x} for MSR {:#x}", entry.data, entry.index);
//! }
//! // What KVM accepted, but changed.
//! for change in state::changed(&fresh, &saved.entries, &restored)? {
//!     eprintln!("{change}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # When to restore
//!
//! On the target, call [`restore`] after
//!
//! - guest memory was added: without it, KVM refuses `KVM_ASYNC_PF_EN`, `KVM_PV_EOI_EN`,
//!   `HV_X64_HYPERCALL` and `HV_X64_VP_ASSIST_PAGE`, and it writes to some of the pages;
//! - `KVM_SET_CPUID2`, on which many MSRs depend;
//! - `KVM_X86_SETUP_MCE` ([`ioctl::setup_mce`](crate::ioctl::setup_mce)) with the source's
//!   IA32_MCG_CAP, which resets the machine-check banks;
//! - `KVM_CAP_HYPERV_SYNIC2` for each vCPU, if the source had it;
//! - `KVM_SET_SREGS`, which restores EFER, IA32_APIC_BASE and the segments' bases;
//! - `KVM_SET_LAPIC`: unless it is in TSC-deadline mode, KVM drops IA32_TSC_DEADLINE;
//!
//! and before
//!
//! - the first `KVM_RUN`, after which feature MSRs can't change;
//! - `KVM_SET_NESTED_STATE`: in VMX operation, KVM refuses VMX capabilities, and
//!   IA32_FEATURE_CONTROL of 0 ends VMX operation.
//!
//! # What is not restored
//!
//! - x2APIC registers: `KVM_GET_LAPIC` has them, see [`Apic`].
//! - EFER, IA32_APIC_BASE, FS_BASE and GS_BASE: `KVM_GET_SREGS` has them, and
//!   [`List::with_sregs`] adds them. EFER.LMA follows CR0.PG, so writing EFER does not restore it.
//! - IA32_PRED_CMD, IA32_FLUSH_CMD, HV_X64_EOM, EOI and ICR are commands, and IA32_MCG_CAP is
//!   read-only.
//! - The shadow stack pointer SSP is not an MSR: `KVM_GET_ONE_REG` has it, see
//!   [`ioctl::one_reg_list`](crate::ioctl::one_reg_list).
//! - Guests compare the TSCs of their vCPUs. `KVM_SET_MSRS` of IA32_TSC lets KVM guess whether
//!   to synchronise them; `KVM_VCPU_TSC_OFFSET` with `KVM_SET_CLOCK` is exact. If you use these,
//!   save [`List::without`] IA32_TSC (0x10).

mod apic;
mod list;
mod order;
mod transfer;

use std::fmt;

use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::VcpuFd;

use crate::catalogue;
use crate::error::Result;

pub use self::apic::Apic;
pub use self::list::List;
pub(crate) use self::list::feature_list;
pub use self::order::in_order;
pub use self::transfer::Outcome;
pub use self::transfer::Status;
pub use self::transfer::entry;
pub use self::transfer::read;
pub use self::transfer::read_features;
pub use self::transfer::write;

/// A vCPU's MSRs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// In the order in which they can be restored.
    pub entries: Vec<kvm_msr_entry>,
    /// MSRs that KVM refused to read: it lists some that the vCPU lacks, and [`List`] adds some
    /// that only one vendor has.
    pub unreadable: Vec<u32>,
}

/// Saves a vCPU's MSRs. The vCPU must not run meanwhile.
///
/// # Errors
///
/// As [`read`].
pub fn save(vcpu: &VcpuFd, list: &List) -> Result<Saved> {
    let values = read(vcpu, list.indices())?;
    let mut saved = Saved::default();

    for (&index, value) in list.indices().iter().zip(values) {
        match value {
            Some(value) => saved.entries.push(entry(index, value)),
            None => saved.unreadable.push(index),
        }
    }
    remove_idle_synic(&mut saved.entries);
    Ok(saved)
}

/// Restores MSRs in the given order. [`save`] returns a valid order; for others use [`in_order`].
///
/// # Errors
///
/// As [`write()`].
pub fn restore(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<Outcome> {
    write(vcpu, entries)
}

/// An MSR whose value differs from the one that KVM accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// The position of the entry.
    pub position: usize,
    /// The MSR.
    pub index: u32,
    /// The value that was written.
    pub wrote: u64,
    /// The value that it reads; none if it can't be read.
    pub reads: Option<u64>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MSR {:#x} was set to {:#x}", self.index, self.wrote)?;
        match self.reads {
            Some(reads) => write!(f, ", but reads {reads:#x}"),
            None => write!(f, ", but can't be read"),
        }
    }
}

/// Reads back what [`restore`] wrote, and returns the values that KVM accepted but changed. If an
/// MSR has several entries, the last one applies. Clocks and counters are left out: those of
/// [`catalogue::moves`], and MSRs whose next read differs.
///
/// # Errors
///
/// As [`read`].
pub fn changed(
    vcpu: &VcpuFd,
    entries: &[kvm_msr_entry],
    restored: &Outcome,
) -> Result<Vec<Change>> {
    let mut written: Vec<_> = entries
        .iter()
        .zip(&restored.statuses)
        .enumerate()
        .filter(|(_, (entry, status))| **status == Status::Done && !catalogue::moves(entry.index))
        .map(|(position, (entry, _))| (entry.index, position, entry.data))
        .collect();

    written.sort_unstable();
    // dedup_by_key() keeps the first of equal neighbours.
    written.reverse();
    written.dedup_by_key(|(index, ..)| *index);
    written.sort_unstable_by_key(|&(_, position, _)| position);

    let indices: Vec<_> = written.iter().map(|&(index, ..)| index).collect();
    let values = read(vcpu, &indices)?;
    let mut changes: Vec<_> = written
        .into_iter()
        .zip(values)
        .filter(|((_, _, wrote), reads)| *reads != Some(*wrote))
        .map(|((index, position, wrote), reads)| Change {
            position,
            index,
            wrote,
            reads,
        })
        .collect();
    let indices: Vec<_> = changes.iter().map(|change| change.index).collect();
    let mut again = read(vcpu, &indices)?.into_iter();

    changes.retain(|change| again.next() == Some(change.reads));
    Ok(changes)
}

/// Whether it is a register of Hyper-V's synthetic interrupt controller (SynIC) or its timers, for
/// which KVM accepts only 0 without `KVM_CAP_HYPERV_SYNIC2`.
pub(crate) fn is_synic(index: u32) -> bool {
    matches!(
        index,
        0x4000_0080..=0x4000_0083 | 0x4000_0090..=0x4000_009f | 0x4000_00b0..=0x4000_00b7
    )
}

/// The reset value of such a register: the version is 1, and the SINTn are masked.
/// `HV_X64_SCONTROL` is 0 without `KVM_CAP_HYPERV_SYNIC2`.
fn idle_synic(index: u32) -> u64 {
    match index {
        0x4000_0081 => 1,
        0x4000_0090..=0x4000_009f => 1 << 16,
        _ => 0,
    }
}

/// Without `KVM_CAP_HYPERV_SYNIC2`, KVM refuses SynIC values that it has returned itself. No ioctl
/// tells whether it is enabled. But if the SynIC is idle, values other than 0 need not be
/// restored.
fn remove_idle_synic(entries: &mut Vec<kvm_msr_entry>) {
    let is_idle = entries
        .iter()
        .filter(|entry| is_synic(entry.index))
        .all(|entry| entry.data == 0 || entry.data == idle_synic(entry.index));

    if is_idle {
        entries.retain(|entry| !is_synic(entry.index) || entry.data == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_synic_is_left_out() {
        let idle = [
            entry(0x10, 5),
            entry(0x4000_0080, 0),
            entry(0x4000_0081, 1),
            entry(0x4000_0090, 0x10000),
        ];
        let mut entries = idle.to_vec();

        remove_idle_synic(&mut entries);
        assert_eq!(entries, idle[..2]);

        let mut entries = idle.to_vec();

        entries.push(entry(0x4000_00b0, 1));
        remove_idle_synic(&mut entries);
        assert_eq!(entries.len(), 5);
    }
}
