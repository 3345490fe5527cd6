// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KMSR_SAVE_LIST: it has what guests can write, and what it names restores a guest.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::save_list::FEATURE_SAVE_LIST;
use kvm_msr_guest::device::save_list::OWNER_LAPIC;
use kvm_msr_guest::device::save_list::OWNER_MSRS;
use kvm_msr_guest::device::save_list::OWNER_SREGS;
use kvm_msr_guest::device::save_list::SAVE_LISTED;
use kvm_msr_guest::device::save_list::SAVE_VOLATILE;
use kvm_msr_guest::device::save_list::SAVE_WRITE_ONLY;
use kvm_msr_guest::device::save_list::SaveEntry;
use kvm_msr_guest::device::save_list::SaveList;
use kvm_msr_guest::device::uapi::BATCH_GET;
use kvm_msr_guest::device::uapi::BATCH_SET;
use kvm_msr_guest::device::uapi::Batch;
use kvm_msr_guest::device::uapi::ENTRY_MSR;
use kvm_msr_guest::device::uapi::Entry;
use kvm_msr_guest::device::uapi::Info;
use kvm_msr_guest::device::uapi::RIGHT_OBSERVE;
use kvm_msr_guest::device::uapi::RIGHT_STATE;
use kvm_msr_guest::msrs;

use super::Test;
use super::setup::fails;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("save list: errors", errors),
    ("save list: all that guests write is there", is_complete),
    (
        "save list: it is marked what KVM lists",
        says_what_is_listed,
    ),
    ("save list: MTRRs are restored", restores_mtrrs),
    ("save list: all is restored, in order", restores_all),
];

/// More entries than a vCPU has MSRs.
const ROOM: usize = 4096;

const APIC_BASE: u32 = 0x1b;
const X2APIC: u64 = 0xfee0_0d00;
const MTRR_DEF_TYPE: u32 = 0x2ff;

/// Index ranges in which there are MSRs, as for the sweep.
const INHABITED: [Range<u32>; 5] = [
    0..0x2000,
    0x4000_0000..0x4000_1100,
    0x4b56_4d00..0x4b56_4e00,
    0xc000_0000..0xc000_2000,
    0xc001_0000..0xc001_2000,
];

/// Values of MTRRs that differ from those after a reset.
const MTRRS: [(u32, u64); 7] = [
    // A variable range: write-through, 64 KiB at 1 MiB. 32 address bits are enough for each CPU.
    (0x200, 0x10_0004),
    (0x201, 0xffff_0800),
    (0x20e, 0x20_0005),
    (0x250, 0x0606_0505_0404_0101),
    (0x259, 0x0101_0101_0101_0101),
    (0x26f, 0x0505_0505_0505_0505),
    (MTRR_DEF_TYPE, 0xc06),
];

/// A guest in one of the setups that decide which MSRs it has.
#[derive(Clone, Copy, Debug)]
struct Setup {
    x2apic: bool,
    hyperv: bool,
}

const SETUPS: [Setup; 3] = [
    Setup {
        x2apic: false,
        hyperv: false,
    },
    Setup {
        x2apic: true,
        hyperv: false,
    },
    Setup {
        x2apic: true,
        hyperv: true,
    },
];

impl Setup {
    fn guest(self) -> Result<(Guest, Device)> {
        let kvm = Kvm::new().context("open /dev/kvm")?;
        let mut options = Options::new(Engine::Rust);

        options.irqchip = self.x2apic;
        let guest = Guest::new(&kvm, options)?;
        if self.x2apic {
            ensure!(msrs::set(guest.vcpu(), APIC_BASE, X2APIC)?, "no x2APIC");
        }
        if self.hyperv {
            add_hyperv(&guest)?;
        }
        let device = Device::attached(guest.vm(), RIGHT_OBSERVE | RIGHT_STATE)?;

        Ok((guest, device))
    }
}

/// Adds Hyper-V's interface to the guest's CPUID.
fn add_hyperv(guest: &Guest) -> Result<()> {
    const LEAVES: [(u32, u32); 2] = [
        // The highest leaf.
        (0x4000_0000, 0x4000_0005),
        // The interface: "Hv#1".
        (0x4000_0001, 0x3123_7648),
    ];
    let mut cpuid = guest.vcpu().get_cpuid2(KVM_MAX_CPUID_ENTRIES)?;

    for (function, eax) in LEAVES {
        cpuid.retain(|entry| entry.function != function);
        cpuid.push(kvm_cpuid_entry2 {
            function,
            eax,
            ..Default::default()
        })?;
    }
    guest.vcpu().set_cpuid2(&cpuid).context("KVM_SET_CPUID2")
}

fn list(device: &Device) -> Result<Vec<SaveEntry>> {
    let array = Array::new(&[SaveEntry::default(); ROOM])?;
    let mut list = SaveList::new(&array, ROOM);

    device.call(&mut list).context("KMSR_SAVE_LIST")?;
    Ok(array.read(list.nr_entries as usize))
}

fn errors() -> Result<String> {
    let (guest, device) = SETUPS[0].guest()?;
    let array = Array::new(&[SaveEntry::default(); ROOM])?;
    let mut info = Info::new();

    device.call(&mut info)?;
    ensure!(
        info.features & FEATURE_SAVE_LIST != 0,
        "no KMSR_FEATURE_SAVE_LIST"
    );

    let mut none = SaveList::new(&array, 0);
    fails("no room", device.call(&mut none), Errno::E2BIG)?;
    let count = none.nr_entries as usize;
    ensure!((100..ROOM).contains(&count), "{count} entries");

    let exact = Array::new(&vec![SaveEntry::default(); count])?;
    let too_few = device.call(&mut SaveList::new(&exact, count - 1));
    fails("too little room", too_few, Errno::E2BIG)?;
    ensure!(
        exact.read(count).iter().all(|entry| entry.index == 0),
        "entries were written in spite of E2BIG"
    );
    device.call(&mut SaveList::new(&exact, count))?;
    let too_many = device.call(&mut SaveList::new(&exact, count + 1));
    ensure!(too_many.is_ok(), "the kernel wrote beyond its entries");

    let mut no_vcpu = SaveList::new(&array, ROOM);
    no_vcpu.vcpu_id = 1;
    fails("no such vCPU", device.call(&mut no_vcpu), Errno::ENOENT)?;
    let blind = Device::attached(guest.vm(), RIGHT_STATE)?;
    let denied = blind.call(&mut SaveList::new(&array, ROOM));
    fails("without the right", denied, Errno::EACCES)?;
    drop(guest);
    let dead = device.call(&mut SaveList::new(&array, ROOM));
    fails("after the VM's end", dead, Errno::ENODEV)?;
    Ok(format!("{count} entries"))
}

/// Whether a guest can write an MSR. It writes the value that it reads, or 0.
fn is_writable(guest: &mut Guest, index: u32) -> Result<bool> {
    let value = match guest.rdmsr(index)? {
        Outcome::Value(value) => value,
        _ => 0,
    };

    for value in [value, 0] {
        match guest.wrmsr(index, value)? {
            Outcome::Exception { .. } => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}

fn is_complete() -> Result<String> {
    let mut numbers = Vec::new();

    for setup in SETUPS {
        let (mut guest, device) = setup.guest()?;
        let listed: BTreeSet<u32> = list(&device)?.iter().map(|entry| entry.index).collect();
        let mut written = 0;
        let mut missing = Vec::new();

        for index in INHABITED.into_iter().flatten() {
            if is_writable(&mut guest, index)? {
                written += 1;
                if !listed.contains(&index) {
                    missing.push(format!("{index:#x}"));
                }
                // The write may have changed the guest's mode.
                if !matches!(guest.rdmsr(0x277)?, Outcome::Value(_)) {
                    guest = setup.guest()?.0;
                }
            }
        }
        ensure!(missing.is_empty(), "{setup:?} lacks {}", missing.join(", "));
        numbers.push(format!("{written} of {}", listed.len()));
    }
    Ok(format!("guests wrote {}", numbers.join("; ")))
}

fn says_what_is_listed() -> Result<String> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let by_kvm: BTreeSet<u32> = kvm
        .get_msr_index_list()?
        .as_slice()
        .iter()
        .copied()
        .collect();
    let mut others = 0;

    for setup in SETUPS {
        let (_guest, device) = setup.guest()?;
        for entry in list(&device)? {
            let is_marked = entry.attributes & SAVE_LISTED != 0;

            ensure!(
                by_kvm.contains(&entry.index) == is_marked,
                "{entry:x?} is marked: {is_marked}"
            );
            others += u32::from(!is_marked);
        }
    }
    ensure!(others > 0, "there are no others");
    Ok(String::new())
}

/// The MSRs of the list that KVM_SET_MSRS restores, in order.
fn saved(device: &Device) -> Result<Vec<u32>> {
    let list = list(device)?;

    ensure!(
        list.is_sorted_by_key(|entry| entry.order),
        "the list is not sorted"
    );
    Ok(list
        .iter()
        .filter(|entry| entry.owner == OWNER_MSRS && entry.attributes & SAVE_WRITE_ONLY == 0)
        .map(|entry| entry.index)
        .collect())
}

fn batch(device: &Device, op: u32, entries: &[Entry]) -> Result<Vec<Entry>> {
    let array = Array::new(entries)?;

    device
        .call(&mut Batch::new(op, &array, entries.len()))
        .context("KMSR_BATCH")?;
    let done = array.read(entries.len());
    for entry in &done {
        ensure!(
            entry.status == 0,
            "operation {op} of MSR {:#x}, {:#x}: {}",
            entry.id,
            entry.data,
            entry.status
        );
    }
    Ok(done)
}

fn save(device: &Device) -> Result<Vec<Entry>> {
    let entries: Vec<_> = saved(device)?
        .iter()
        .map(|&index| Entry {
            kind: ENTRY_MSR,
            id: index.into(),
            ..Default::default()
        })
        .collect();

    batch(device, BATCH_GET, &entries)
}

fn restores_mtrrs() -> Result<String> {
    let (mut source, from) = SETUPS[0].guest()?;
    let (mut target, to) = SETUPS[0].guest()?;

    for (index, value) in MTRRS {
        let written = source.wrmsr(index, value)?;
        ensure!(written == Outcome::Done, "WRMSR {index:#x}: {written}");
    }
    let entries = save(&from)?;
    batch(&to, BATCH_SET, &entries)?;
    for (index, value) in MTRRS {
        let read = target.rdmsr(index)?;
        ensure!(read == Outcome::Value(value), "RDMSR {index:#x}: {read}");
    }
    Ok(format!("{} MTRRs", MTRRS.len()))
}

/// Restores all MSRs of a guest that has changed many of them, and compares what both guests have.
fn restores_all() -> Result<String> {
    let mut count = 0;

    for setup in SETUPS {
        let (mut source, from) = setup.guest()?;
        let (_target, to) = setup.guest()?;
        let list = list(&from)?;
        let is_stable = |index: u32| {
            list.iter()
                .find(|entry| entry.index == index)
                .is_some_and(|entry| entry.attributes & SAVE_VOLATILE == 0)
        };

        for (index, value) in MTRRS {
            source.wrmsr(index, value)?;
        }
        for index in [0x174, 0x277, 0xc000_0081, 0x4b56_4d05, 0x4000_0000, 0x400] {
            source.wrmsr(index, 0)?;
        }
        let before = save(&from)?;
        batch(&to, BATCH_SET, &before)?;
        let after = save(&to)?;
        for (source, target) in before.iter().zip(&after) {
            ensure!(
                source == target || !is_stable(source.id as u32),
                "{setup:?}: {source:x?} became {target:x?}"
            );
        }
        ensure!(before.len() == after.len(), "the guests have other MSRs");
        for (owner, expected) in [(OWNER_SREGS, true), (OWNER_LAPIC, setup.x2apic)] {
            ensure!(
                list.iter().any(|entry| entry.owner == owner) == expected,
                "{setup:?}: MSRs of owner {owner}"
            );
        }
        count += before.len();
    }
    Ok(format!("{count} MSRs"))
}
