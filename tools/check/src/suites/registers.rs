// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The lists of MSRs and registers, and KVM_GET_ONE_REG and KVM_SET_ONE_REG: lists that are too short,
//! and inaccessible memory.

use anyhow::Result;
use kvm_msr_guest::Cpuid;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Mapping;
use kvm_msr_guest::UserPtr;
use kvm_msr_guest::engine;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::ioctl::IndexList;
use kvm_msr_guest::memory::PAGE;
use kvm_msr_guest::memory::Protection;

use super::Named;
use crate::arena::changes;
use crate::side::Side;
use crate::side::show;

/// KVM_X86_REG_MSR of IA32_PAT, and KVM_X86_REG_KVM(KVM_REG_GUEST_SSP).
const PAT: u64 = 0x2030_0002_0000_0277;
const GUEST_SSP: u64 = 0x2030_0003_0000_0000;

const CANARY: u8 = 0xc5;

/// The tests of this file.
pub const SCENARIOS: &[Named] = &[
    ("too short and inaccessible lists", lists),
    ("list of registers", registers),
    ("inaccessible register", faults),
];

/// Makes a call with a number in front of `room` accessible bytes, and notes the result and what was
/// written.
fn call(
    side: &mut Side,
    step: &str,
    number: &[u8],
    room: usize,
    call: impl Fn(UserPtr<'_>) -> ioctl::Result,
) -> Result<()> {
    let mut memory = Mapping::new(PAGE)?;
    let start = PAGE - room;

    memory.write(0, &[CANARY; PAGE]);
    memory.write(start, &number[..number.len().min(room)]);
    let before = memory.read(0, PAGE);
    let result = call(memory.at(start));

    side.note(step, show(result));
    side.note(
        format!("{step}, written"),
        changes(&before[start..], &memory.read(start, room)),
    );
    Ok(())
}

/// KVM_GET_MSR_INDEX_LIST and KVM_GET_MSR_FEATURE_INDEX_LIST.
fn lists(side: &mut Side) -> Result<()> {
    let enabled = engine::loaded() && engine::enabled();

    if engine::loaded() {
        engine::set_enabled(side.engine == Engine::Rust)?;
    }
    let done = short_lists(side);
    if engine::loaded() {
        engine::set_enabled(enabled)?;
    }
    done
}

fn short_lists(side: &mut Side) -> Result<()> {
    for (which, name) in [
        (IndexList::Saved, "list"),
        (IndexList::Features, "feature list"),
    ] {
        let kvm = kvm_ioctls::Kvm::new()?;
        let get = |list: UserPtr<'_>| ioctl::get_msr_index_list(&kvm, which, list);

        for number in [0u32, 1, 4, 1000, u32::MAX] {
            // The list ends within the number, or within the indices.
            for room in [0, 2, 4, 8, 9, 80, 244, 248, 252, 2048] {
                let step = format!("{name} of {number}, {room} bytes");
                call(side, &step, &number.to_le_bytes(), room, get)?;
            }
        }
        for pointer in [UserPtr::null(), UserPtr::non_canonical(), UserPtr::kernel()] {
            side.ioctl(
                format!("{name}, pointer {:#x}", pointer.address()),
                get(pointer),
                Err(Errno::EFAULT),
            )?;
        }
        // The number is readable, and not writable.
        let mut memory = Mapping::new(PAGE)?;
        memory.write(0, &u32::MAX.to_le_bytes());
        memory.protect(0..1, Protection::Read)?;
        side.ioctl(
            format!("{name}, read-only"),
            get(memory.at(0)),
            Err(Errno::EFAULT),
        )?;
    }
    Ok(())
}

/// KVM_GET_REG_LIST.
fn registers(side: &mut Side) -> Result<()> {
    for cpuid in [Cpuid::Full, Cpuid::Empty, Cpuid::OtherVendor] {
        let guest = side.guest_with(|options| options.cpuid = cpuid)?;
        let get = |list: UserPtr<'_>| ioctl::get_reg_list(guest.vcpu(), list);

        for number in [0u64, 1, 2, u64::MAX] {
            // The list ends within the number, or within an ID, of which no part must be written.
            for room in [0, 7, 8, 9, 12, 15, 16, 32] {
                let step = format!("{cpuid:?}, list of {number}, {room} bytes");
                call(side, &step, &number.to_le_bytes(), room, get)?;
            }
        }
        let mut memory = Mapping::new(PAGE)?;
        memory.write(0, &1u64.to_le_bytes());
        memory.protect(0..1, Protection::Read)?;
        side.ioctl(
            format!("{cpuid:?}, read-only list"),
            get(memory.at(0)),
            Err(Errno::EFAULT),
        )?;
    }
    Ok(())
}

/// KVM_GET_ONE_REG and KVM_SET_ONE_REG.
fn faults(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;
    let vcpu = guest.vcpu();

    for id in [PAT, GUEST_SSP, 0] {
        for pointer in [UserPtr::null(), UserPtr::non_canonical(), UserPtr::kernel()] {
            let at = pointer.address();
            side.note(
                format!("get {id:#x} into {at:#x}"),
                show(ioctl::get_one_reg_into(vcpu, id, pointer)),
            );
            side.note(
                format!("set {id:#x} from {at:#x}"),
                show(ioctl::set_one_reg_from(vcpu, id, pointer)),
            );
        }
        for room in [0, 1, 7, 8] {
            let step = format!("get {id:#x} into {room} bytes");
            call(side, &step, &[], room, |value| {
                ioctl::get_one_reg_into(vcpu, id, value)
            })?;
            let step = format!("set {id:#x} from {room} bytes");
            let pat = 0x0007_0406_0007_0406u64;
            call(side, &step, &pat.to_le_bytes(), room, |value| {
                ioctl::set_one_reg_from(vcpu, id, value)
            })?;
        }
    }
    for room in [0, 1, 8, 15] {
        let step = format!("{room} bytes of the structure");
        call(side, &step, &PAT.to_le_bytes(), room, |reg| {
            ioctl::set_one_reg_at(vcpu, reg)
        })?;
    }
    Ok(())
}
