// SPDX-License-Identifier: GPL-2.0

//! The MSRs that have to be saved and restored with a vCPU, for `KMSR_SAVE_LIST`.
//!
//! The list has each MSR that the vCPU has and that user space or the guest can write. It derives
//! from the table: [`Write`] and [`Read`] say who keeps the value and what a write does.
//! [`special`] has what they don't say.

mod attributes;
mod presence;
mod special;
mod stage;

pub(crate) use self::stage::Stage;

use self::special::Special;
use super::{
    cpu::Cpu,
    registers::{
        lookup,
        PreCheck,
        Register,
        Write,
        REGISTERS, //
    },
};
use core::ptr;

/// What saves and restores an MSR, by its number in the interface.
///
/// In Linux 7.3 no MSR belongs to `KVM_GET_XSAVE2`, `KVM_GET_NESTED_STATE` or
/// `KVM_GET_VCPU_EVENTS`. The XSAVE ioctls transfer only user components, so the MSRs of supervisor
/// components, e.g. `IA32_U_CET`, are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Owner {
    /// `KVM_GET_MSRS` and `KVM_SET_MSRS`
    Msrs = 0,
    /// `KVM_GET_SREGS2` and `KVM_SET_SREGS2`
    Sregs = 1,
    /// `KVM_GET_LAPIC` and `KVM_SET_LAPIC`
    Lapic = 2,
}

/// The value can change while the vCPU does not run.
pub(crate) const VOLATILE: u32 = 1 << 0;
/// There is no value to save: reads fail or return 0.
pub(crate) const WRITE_ONLY: u32 = 1 << 1;
/// The value can't change once the vCPU has run.
pub(crate) const FIXED: u32 = 1 << 2;
/// A write does more than to set the value.
pub(crate) const SIDE_EFFECT: u32 = 1 << 3;
/// A write accesses guest memory, or maps or unmaps a part of it.
pub(crate) const GUEST_MEMORY: u32 = 1 << 4;
/// `KVM_GET_MSR_INDEX_LIST` has the MSR.
pub(crate) const LISTED: u32 = 1 << 5;
/// Writes have no effect.
pub(crate) const IGNORED: u32 = 1 << 6;

/// An MSR of the list, in the layout of `struct kmsr_save_entry`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Entry {
    /// The MSR's index.
    pub(crate) index: u32,
    /// An [`Owner`].
    pub(crate) owner: u16,
    /// A [`Stage`].
    pub(crate) order: u16,
    /// The attributes above.
    pub(crate) attributes: u32,
    reserved: u32,
}

/// Returns the MSRs that the vCPU has, without order.
///
/// This reads MSRs as user space does, and changes nothing.
pub(crate) fn entries<C: Cpu>(cpu: &C) -> impl Iterator<Item = Entry> + '_ {
    let declared = REGISTERS
        .iter()
        .filter(|register| !register.is_undeclared())
        .flat_map(|register| (register.first..=register.last).map(move |index| (register, index)))
        // Another declaration may override this index of a range.
        .filter(|&(register, index)| ptr::eq(register, lookup(index)));
    let undeclared = special::UNDECLARED
        .iter()
        .flat_map(|&(first, last)| first..=last)
        .map(|index| (lookup(index), index));

    declared
        .chain(undeclared)
        .filter(|&(register, index)| presence::has(cpu, register, index))
        .map(|(register, index)| entry(cpu, register, index))
}

/// Returns the same entries in the order in which to restore them.
pub(crate) fn in_order(entries: &[Entry]) -> impl Iterator<Item = Entry> + '_ {
    Stage::ALL.iter().flat_map(|&stage| {
        entries
            .iter()
            .copied()
            .filter(move |entry| entry.order == stage as u16)
    })
}

fn entry<C: Cpu>(cpu: &C, register: &Register, index: u32) -> Entry {
    let special = Special::of(index);

    Entry {
        index,
        owner: special.owner.unwrap_or_else(|| owner(register)) as u16,
        order: special.stage.unwrap_or_else(|| Stage::of(register)) as u16,
        attributes: special.attributes | attributes::of(cpu, register, index),
        reserved: 0,
    }
}

fn owner(register: &Register) -> Owner {
    match register.write {
        // KVM_SET_MSRS writes these, too, but can't change EFER.LMA, and fails if the mode of the
        // APIC and other registers don't fit.
        Write::Efer | Write::ApicBase => Owner::Sregs,
        Write::X2apic => Owner::Lapic,
        _ => Owner::Msrs,
    }
}

/// Whether only KVM itself accesses the register as an MSR. User space has `KVM_GET_ONE_REG` for
/// it.
fn is_internal(register: &Register) -> bool {
    register.pre_check == PreCheck::GuestShadowStackPointer
}
