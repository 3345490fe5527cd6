// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Each copy of each ioctl fails in turn: the errno, and what the ioctl has changed until then in
//! user memory and in the VM.

use std::cell::RefCell;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Mapping;
use kvm_msr_guest::Range;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::ioctl::IndexList;
use kvm_msr_guest::msrs;
use kvm_msr_guest::msrs::Entry;
use kvm_msr_guest::nested;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Stop;
use kvm_msr_guest::nested::Vendor;

use super::injector::failing_copy;
use crate::side::Side;
use crate::side::show;
use crate::suites::Named;
use crate::suites::filter_guest::NOBODY;
use crate::suites::filter_guest::deflecting_guest;

/// The tests of this file.
pub const SCENARIOS: &[Named] = &[
    ("copies of KVM_GET_MSRS and KVM_SET_MSRS", msr_lists),
    ("copies of the lists of /dev/kvm", index_lists),
    ("copies of single registers", one_reg),
    ("copies of KVM_X86_SET_MSR_FILTER", filters),
    ("copies of KVM_ENABLE_CAP", enable_cap),
    ("copies of KVM_GET_NESTED_STATE", get_nested),
    ("copies of KVM_SET_NESTED_STATE", set_nested),
];

const PAT: u32 = 0x277;
const PAT_REG: u64 = 0x2030_0002_0000_0000 | PAT as u64;
const SYSENTER_CS: u32 = 0x174;
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
const PAT_OTHER: u64 = 0x0606_0606_0606_0606;

/// What memory holds before a call.
const CANARY: u8 = 0xc5;

/// Room for any list or state.
const ROOM: usize = 0x4000;

/// More than the number of copies of any ioctl.
const MOST: u32 = 100;

/// Makes the ioctl's first copy fail, then the second, and so on. Each time it has to fail with
/// `EFAULT`. Notes what `state` finds afterwards, and the result if no copy fails.
///
/// C reads some single words with get_user(), in which no fault is injected. So the numbers of
/// copies may differ, and what follows from two faults in a row is noted only once if it is equal.
fn each_copy(
    side: &mut Side,
    name: &str,
    reset: impl Fn() -> Result<()>,
    call: impl Fn() -> ioctl::Result,
    state: impl Fn() -> Result<String>,
) -> Result<()> {
    let mut last = None;

    for nth in 1..=MOST {
        reset()?;
        let (result, failed) = failing_copy(nth, &call)?;
        let state = state()?;

        if !failed {
            ensure!(nth > 1, "{name}: no copy can fail");
            side.note(name, format_args!("{}, {state}", show(result)));
            return Ok(());
        }
        ensure!(
            result == Err(Errno::EFAULT),
            "{name}: copy {nth} failed, and the ioctl: {}",
            show(result)
        );
        if last.as_ref() != Some(&state) {
            side.note(format_args!("{name}, a copy fails"), &state);
        }
        last = Some(state);
    }
    bail!("{name}: more than {MOST} copies")
}

/// User memory for an ioctl, which is filled before each call.
pub struct Memory {
    mapping: RefCell<Mapping>,
    content: Vec<u8>,
}

impl Memory {
    fn new(bytes: &[u8]) -> Result<Self> {
        let mut content = vec![CANARY; ROOM];

        content[..bytes.len()].copy_from_slice(bytes);
        Ok(Memory {
            mapping: RefCell::new(Mapping::new(ROOM)?),
            content,
        })
    }

    fn reset(&self) -> Result<()> {
        self.mapping.borrow_mut().write(0, &self.content);
        Ok(())
    }

    /// Makes this the guest's nested state.
    pub fn set(&self, guest: &Nested) -> ioctl::Result {
        ioctl::set_nested_state(guest.vcpu(), self.mapping.borrow().at(0))
    }

    /// Which blocks of 64 bytes have changed. (The values of some registers differ between two VMs.)
    fn changes(&self) -> Result<String> {
        const BLOCK: usize = 64;
        let now = self.mapping.borrow().read(0, ROOM);
        let changed: Vec<usize> = (0..ROOM / BLOCK)
            .filter(|block| {
                let bytes = block * BLOCK..(block + 1) * BLOCK;
                now[bytes.clone()] != self.content[bytes]
            })
            .collect();

        Ok(match (changed.first(), changed.last()) {
            (Some(first), Some(last)) => {
                format!("written: {} blocks of {first} to {last}", changed.len())
            }
            _ => "nothing written".to_owned(),
        })
    }
}

fn msr_lists(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    for count in [1, 16, 200] {
        let mut entries = vec![Entry::new(SYSENTER_CS, 5); count];
        entries[0] = Entry::new(PAT, PAT_OTHER);
        let memory = Memory::new(&msrs::to_bytes(count as u32, &entries))?;
        let value = || Ok(format!("PAT {:x?}", msrs::get(guest.vcpu(), PAT)?));

        each_copy(
            side,
            &format!("get {count}"),
            || memory.reset(),
            || ioctl::get_msrs(Abi::Native, guest.vcpu(), memory.mapping.borrow().at(0)),
            || memory.changes(),
        )?;
        each_copy(
            side,
            &format!("set {count}"),
            || {
                memory.reset()?;
                ensure!(msrs::set(guest.vcpu(), PAT, PAT_RESET)?, "PAT is refused");
                Ok(())
            },
            || ioctl::set_msrs(Abi::Native, guest.vcpu(), memory.mapping.borrow().at(0)),
            value,
        )?;
    }
    Ok(())
}

fn index_lists(side: &mut Side) -> Result<()> {
    let kvm = Kvm::new().context("open /dev/kvm")?;

    for which in [IndexList::Saved, IndexList::Features] {
        for room in [0u32, 1000] {
            let memory = Memory::new(&room.to_le_bytes())?;

            each_copy(
                side,
                &format!("{which:?} with room for {room}"),
                || memory.reset(),
                || ioctl::get_msr_index_list(&kvm, which, memory.mapping.borrow().at(0)),
                // C copies the list in two parts, and the engine in one.
                || Ok(format!("{} MSRs", memory.mapping.borrow().read_u32(0))),
            )?;
        }
    }
    let list = kvm.get_msr_feature_index_list()?;
    let entries: Vec<_> = list
        .as_slice()
        .iter()
        .map(|&index| Entry::new(index, 0x55))
        .collect();
    let memory = Memory::new(&msrs::to_bytes(entries.len() as u32, &entries))?;

    each_copy(
        side,
        "feature MSRs",
        || memory.reset(),
        || ioctl::get_msrs(Abi::Native, &kvm, memory.mapping.borrow().at(0)),
        || memory.changes(),
    )
}

fn one_reg(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;
    let value = RefCell::new(0);
    let reset = || {
        ensure!(msrs::set(guest.vcpu(), PAT, PAT_RESET)?, "PAT is refused");
        *value.borrow_mut() = 0;
        Ok(())
    };

    each_copy(
        side,
        "KVM_GET_ONE_REG",
        reset,
        || {
            *value.borrow_mut() = ioctl::get_one_reg(guest.vcpu(), PAT_REG)?;
            Ok(0)
        },
        || Ok(format!("read {:#x}", *value.borrow())),
    )?;
    each_copy(
        side,
        "KVM_SET_ONE_REG",
        reset,
        || ioctl::set_one_reg(guest.vcpu(), PAT_REG, PAT_OTHER).map(|()| 0),
        || Ok(format!("PAT {:x?}", msrs::get(guest.vcpu(), PAT)?)),
    )
    // In KVM_GET_REG_LIST, C has no copy that can fail.
}

/// What the guest gets for an MSR that is denied first, and for two that are allowed first.
fn verdicts(guest: &RefCell<Guest>) -> Result<String> {
    let mut guest = guest.borrow_mut();
    let mut verdicts = Vec::new();

    for index in [NOBODY, NOBODY + 1, NOBODY + 0x4000] {
        verdicts.push(guest.rdmsr(index)?.to_string());
        guest.answer(0, 0);
    }
    Ok(verdicts.join(", "))
}

fn filters(side: &mut Side) -> Result<()> {
    let guest = deflecting_guest(side)?;
    let vm = guest.vm_fd()?;
    let guest = RefCell::new(guest);
    let old = Filter::allow_by_default()
        .with(Range::deny(READ, NOBODY, 1))
        .prepare(Abi::Native)?;
    let mut new = Filter::allow_by_default().with(Range::deny(READ, NOBODY + 1, 8));
    for i in 1..4 {
        new = new.with(Range::deny(READ, NOBODY + 0x4000 * i, 0x3000));
    }

    for abi in Abi::ALL {
        let new = new.prepare(abi)?;

        each_copy(
            side,
            &format!("{abi}"),
            || Ok(old.set(&vm)?),
            || new.set(&vm).map(|()| 0),
            || verdicts(&guest),
        )?;
    }
    Ok(())
}

fn enable_cap(side: &mut Side) -> Result<()> {
    let guest = RefCell::new(side.guest()?);
    let vm = guest.borrow().vm_fd()?;
    let enable =
        |reasons: u32| ioctl::enable_cap(&vm, KVM_CAP_X86_USER_SPACE_MSR, 0, reasons.into());

    each_copy(
        side,
        "KVM_ENABLE_CAP",
        || {
            enable(0)?;
            Ok(())
        },
        || enable(KVM_MSR_EXIT_REASON_UNKNOWN),
        || verdicts(&guest),
    )
}

/// A guest that runs L2. Its state can be saved.
fn guest_in_l2(side: &Side) -> Result<Nested> {
    let mut guest = Nested::new(side.kvm(), nested::Options::new(side.engine))?;

    guest.run_to(Stop::L2)?;
    guest.complete()?;
    Ok(guest)
}

/// The guest's nested state, in the ioctl's layout.
pub fn saved(guest: &Nested) -> Result<Memory> {
    let memory = Memory::new(&header(ROOM as u32))?;

    memory.reset()?;
    ioctl::get_nested_state(guest.vcpu(), memory.mapping.borrow().at(0))
        .context("KVM_GET_NESTED_STATE")?;
    let content = memory.mapping.borrow().read(0, ROOM);
    Ok(Memory { content, ..memory })
}

/// The header's first words: no flags, no format, and the size.
fn header(size: u32) -> [u8; 8] {
    let mut bytes = [0; 8];

    bytes[4..].copy_from_slice(&size.to_le_bytes());
    bytes
}

fn get_nested(side: &mut Side) -> Result<()> {
    let guest = guest_in_l2(side)?;

    for room in [128, 4096, ROOM as u32] {
        let memory = Memory::new(&header(room))?;

        each_copy(
            side,
            &format!("with room for {room} bytes"),
            || memory.reset(),
            || ioctl::get_nested_state(guest.vcpu(), memory.mapping.borrow().at(0)),
            || memory.changes(),
        )?;
    }
    Ok(())
}

fn set_nested(side: &mut Side) -> Result<()> {
    let guest = guest_in_l2(side)?;
    let in_l2 = saved(&guest)?;

    // The same state, but about to enter L2.
    const RUN_PENDING: u8 = 1 << 1;
    let mut content = in_l2.content.clone();
    content[0] |= RUN_PENDING;
    let pending = Memory::new(&content)?;

    in_l2.reset()?;
    each_copy(
        side,
        "while the vCPU runs L2",
        || {
            pending.reset()?;
            in_l2.set(&guest).context("restore the state")?;
            Ok(())
        },
        || pending.set(&guest),
        || state_after(&guest),
    )?;
    each_copy(
        side,
        "while the vCPU runs L1",
        || {
            pending.reset()?;
            // No VMXON region, or no vmcb12: the vCPU leaves L2.
            let left = Memory::new(&outside(&in_l2.content, guest.vendor()))?;
            left.reset()?;
            left.set(&guest).context("leave L2")?;
            Ok(())
        },
        || pending.set(&guest),
        || state_after(&guest),
    )
}

/// A state without L2.
fn outside(in_l2: &[u8], vendor: Vendor) -> Vec<u8> {
    const GIF_SET: u16 = 1 << 8;
    const ADDRESSES: std::ops::Range<usize> = 8..24;
    let mut bytes = in_l2.to_vec();

    match vendor {
        Vendor::Svm => bytes[..2].copy_from_slice(&GIF_SET.to_le_bytes()),
        Vendor::Vmx => {
            bytes[..2].fill(0);
            // vmxon_pa and vmcs12_pa are INVALID_GPA.
            bytes[ADDRESSES].fill(0xff);
        }
    }
    bytes[4..8].copy_from_slice(&128u32.to_le_bytes());
    bytes
}

/// The flags, the size and the addresses of the guest's nested state.
pub fn state_after(guest: &Nested) -> Result<String> {
    let state = saved(guest)?.content;

    Ok(format!("{:02x?}, {:02x?}", &state[..8], &state[8..32]))
}
