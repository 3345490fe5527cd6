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
//! // What KVM took, and changed.
//! for change in state::changed(&fresh, &saved.entries, &restored)? {
//!     eprintln!("{change}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # When
//!
//! On the target, [`restore`] comes after
//!
//! - guest memory: `KVM_ASYNC_PF_EN`, `KVM_PV_EOI_EN`, `HV_X64_HYPERCALL` and
//!   `HV_X64_VP_ASSIST_PAGE` are refused where there is none, and KVM writes to the pages of some;
//! - `KVM_SET_CPUID2`, which many MSRs hang on;
//! - `KVM_X86_SETUP_MCE` ([`ioctl::setup_mce`](crate::ioctl::setup_mce)) with the source's
//!   IA32_MCG_CAP, which sets the machine check banks back;
//! - `KVM_CAP_HYPERV_SYNIC2` for each vCPU, if the source had it;
//! - `KVM_SET_SREGS`, which brings EFER, IA32_APIC_BASE and the segments' bases;
//! - `KVM_SET_LAPIC`: in another mode than TSC-deadline, KVM drops IA32_TSC_DEADLINE;
//!
//! and before
//!
//! - the first `KVM_RUN`: it fixes the feature MSRs;
//! - `KVM_SET_NESTED_STATE`: a vCPU in VMX operation takes no VMX capabilities, and
//!   IA32_FEATURE_CONTROL of 0 ends it.
//!
//! # What is not here
//!
//! - x2APIC registers belong to `KVM_GET_LAPIC`: [`Apic`] has these and the mode.
//! - EFER, IA32_APIC_BASE, FS_BASE and GS_BASE belong to `KVM_GET_SREGS`; [`List::with_sregs`]
//!   has them too. EFER.LMA follows CR0.PG, so no write of EFER brings it back.
//! - IA32_PRED_CMD, IA32_FLUSH_CMD, HV_X64_EOM, EOI and ICR are commands, and IA32_MCG_CAP takes
//!   no writes.
//! - The shadow stack pointer SSP is no MSR: `KVM_GET_ONE_REG` has it, see
//!   [`ioctl::one_reg_list`](crate::ioctl::one_reg_list).
//! - Guests compare the TSCs of their vCPUs. `KVM_SET_MSRS` of IA32_TSC lets KVM guess what is
//!   meant; `KVM_VCPU_TSC_OFFSET` with `KVM_SET_CLOCK` is exact. Whoever uses these saves
//!   [`List::without`] it (0x10).

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
    /// What KVM refused to read: it lists MSRs that the vCPU lacks, and those of the other vendor
    /// that [`List`] asks for are not there.
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

/// Restores MSRs in the order given. It is that of [`save`]; others may need [`in_order`].
///
/// # Errors
///
/// As [`write()`].
pub fn restore(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<Outcome> {
    write(vcpu, entries)
}

/// An MSR that has another value than the one that KVM took.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// The position of the entry.
    pub position: usize,
    /// The MSR.
    pub index: u32,
    /// What was written.
    pub wrote: u64,
    /// What it reads; none if KVM refuses to read it.
    pub reads: Option<u64>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MSR {:#x} was given {:#x}", self.index, self.wrote)?;
        match self.reads {
            Some(reads) => write!(f, " and has {reads:#x}"),
            None => write!(f, " and can't be read"),
        }
    }
}

/// Reads back what [`restore`] wrote: what KVM took, and changed. Of several entries of one MSR
/// the last counts. Clocks and counters are left out: what [`catalogue::moves`] names, and what
/// reads differently the next time.
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
    // Of neighbours that are alike, dedup_by_key() keeps the first.
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

/// Whether it is a register of Hyper-V's synthetic interrupt controller or of its timers, of
/// which KVM takes nothing but 0 without `KVM_CAP_HYPERV_SYNIC2`.
pub(crate) fn is_synic(index: u32) -> bool {
    matches!(
        index,
        0x4000_0080..=0x4000_0083 | 0x4000_0090..=0x4000_009f | 0x4000_00b0..=0x4000_00b7
    )
}

/// What such a register has if nobody has written to it, and `HV_X64_SCONTROL` is 0, as it is
/// without `KVM_CAP_HYPERV_SYNIC2`: the version is 1, and the SINTn are masked.
fn idle_synic(index: u32) -> u64 {
    match index {
        0x4000_0081 => 1,
        0x4000_0090..=0x4000_009f => 1 << 16,
        _ => 0,
    }
}

/// Without `KVM_CAP_HYPERV_SYNIC2`, KVM refuses to take what it gives for the SynIC. No ioctl
/// tells whether it is enabled. But if all of the SynIC is idle, what is not 0 of it need not be
/// restored either way.
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
