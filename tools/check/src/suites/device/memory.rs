// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Makes the allocations and copies of the device's calls fail.

use std::cell::RefCell;
use std::os::fd::AsRawFd;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::Prepared;
use kvm_msr_guest::device::save_list::SaveEntry;
use kvm_msr_guest::device::save_list::SaveList;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::Batch;
use kvm_msr_guest::device::uapi::Entry;
use kvm_msr_guest::device::uapi::GetPolicy;
use kvm_msr_guest::device::uapi::Learn;
use kvm_msr_guest::device::uapi::Learned;
use kvm_msr_guest::device::uapi::MAX_LEARNED;
use kvm_msr_guest::device::uapi::MAX_RULES;
use kvm_msr_guest::device::uapi::MAX_STATS;
use kvm_msr_guest::device::uapi::RIGHTS;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::SetPolicy;
use kvm_msr_guest::device::uapi::Stat;
use kvm_msr_guest::device::uapi::Stats;
use kvm_msr_guest::device::uapi::Structure;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;

use super::Test;
use super::setup::attached;
use super::setup::guest;
use super::setup::learned;
use super::setup::policy;
use super::setup::set_policy as set_rules;
use crate::suites::faults::Call;
use crate::suites::faults::Faults;
use crate::suites::faults::each_fails;

/// The tests of this file. Only the kernels for debugging can make these fail.
pub const TESTS: &[(&str, Test)] = &[("allocations and copies fail", faults)];

/// P5 thermal or platform ID, and APERF: no VM of this suite has either passed through.
const READ_BEFORE: u32 = 0x17;
const READ_AFTER: u32 = 0xe8;

/// IA32_POWER_CTL: KVM only stores its value.
const STORED: u32 = 0x1fc;

/// More than any list of registers to save.
const ROOM: usize = 1024;

/// A call of three closures.
struct Steps<R, C, U> {
    reset: R,
    call: C,
    unchanged: U,
}

impl<R, C, U> Call for Steps<R, C, U>
where
    R: Fn() -> Result<()>,
    C: Fn() -> ioctl::Result<()>,
    U: Fn() -> Result<bool>,
{
    fn reset(&self) -> Result<()> {
        (self.reset)()
    }

    fn call(&self) -> ioctl::Result<()> {
        (self.call)()
    }

    fn unchanged(&self) -> Result<bool> {
        (self.unchanged)()
    }
}

/// A call of the device, prepared so that it allocates only what the device allocates.
struct Ioctl<'a, S>(RefCell<Prepared<'a, S>>);

impl<'a, S: Structure> Ioctl<'a, S> {
    fn new(device: &'a Device, structure: S) -> Result<Self> {
        Ok(Ioctl(RefCell::new(device.prepare(structure)?)))
    }

    fn call(&self) -> ioctl::Result<()> {
        self.0.borrow_mut().call().map(|_| ())
    }
}

/// The faults of a call that changes nothing.
fn reads(call: impl Fn() -> ioctl::Result<()>) -> Result<Faults> {
    each_fails(&Steps {
        reset: || Ok(()),
        call,
        unchanged: || Ok(true),
    })
}

/// If an allocation fails, each call succeeds without it, or fails with `ENOMEM` and changes
/// nothing. If a copy fails, it fails with `EFAULT` and changes nothing.
fn faults() -> Result<String> {
    let counts = [
        ("ATTACH", attach()?),
        ("SET_POLICY", set_policy()?),
        ("GET_POLICY", get_policy()?),
        ("LEARN", learning()?),
        ("STATS", statistics()?),
        ("BATCH", batch()?),
        ("SAVE_LIST", save_list()?),
    ];

    for (name, faults) in counts {
        ensure!(
            faults.allocations > 0 && faults.copies > 0,
            "{name} allocates or copies nothing: {faults}"
        );
    }
    let counts = counts.map(|(name, faults)| format!("{faults} of {name}"));
    Ok(format!("allocations+copies: {}", counts.join(", ")))
}

/// open(), ATTACH and close().
fn attach() -> Result<Faults> {
    let guest = guest(Engine::Rust)?;

    // If one failed, the next attaches only if nobody is left that may set the policy.
    reads(|| {
        Device::open()
            .map_err(|_| Errno::last())?
            .attach(guest.vm().as_raw_fd(), RIGHTS)
            .map(|_| ())
    })
}

/// As many rules as possible, in two pages with MSRs and beyond.
fn rules() -> Vec<Rule> {
    (0..MAX_RULES)
        .map(|i| {
            let index = if i < 0x400 {
                0x900 + i
            } else {
                0x2000_0000 + 2 * i
            };

            Rule::new(index, index, uapi::READ, uapi::ALWAYS, uapi::GP, 0)
        })
        .collect()
}

fn set_policy() -> Result<Faults> {
    let (_guest, device) = attached()?;
    let old = [Rule::new(
        READ_BEFORE,
        READ_BEFORE,
        uapi::READ,
        uapi::ALWAYS,
        uapi::GP,
        0,
    )];
    let new = rules();
    // These are mapped here: mmap() allocates memory, too.
    let (old_rules, new_rules) = (Array::new(&old)?, Array::new(&new)?);
    let set_old = Ioctl::new(&device, SetPolicy::new(&old_rules, old.len()))?;
    let set_new = Ioctl::new(&device, SetPolicy::new(&new_rules, new.len()))?;

    each_fails(&Steps {
        reset: || set_old.call().context("SET_POLICY"),
        call: || set_new.call(),
        unchanged: || Ok(policy(&device)? == old),
    })
}

fn get_policy() -> Result<Faults> {
    let (_guest, device) = attached()?;
    let rules = rules();
    let array = Array::new(&rules)?;

    device.call(&mut SetPolicy::new(&array, rules.len()))?;
    let get = Ioctl::new(&device, GetPolicy::new(&array, rules.len()))?;

    reads(|| get.call())
}

/// With a policy, there is something to allocate when a watch stops.
fn rule_for_stop(device: &Device) -> Result<()> {
    let rule = Rule::new(STORED, STORED, uapi::READ, uapi::ALWAYS, uapi::GP, 0);

    set_rules(device, &[rule]).map(|_| ()).context("SET_POLICY")
}

/// START, STOP and READ.
fn learning() -> Result<Faults> {
    let (guest, device) = attached()?;
    let guest = RefCell::new(guest);
    let room = Array::<Learned>::room(MAX_LEARNED as usize)?;
    let start = Ioctl::new(&device, Learn::new(uapi::START))?;
    let stop = Ioctl::new(&device, Learn::new(uapi::STOP))?;
    let read = Ioctl::new(&device, Learn::read(&room, MAX_LEARNED as usize))?;
    let reset = || {
        start.call()?;
        guest.borrow_mut().rdmsr(READ_BEFORE)?;
        Ok(())
    };
    // What was learned before is there, and accesses are still learned.
    let unchanged = || {
        guest.borrow_mut().rdmsr(READ_AFTER)?;
        let indices: Vec<_> = learned(&device)?.iter().map(|one| one.index).collect();

        Ok(indices.contains(&READ_BEFORE) && indices.contains(&READ_AFTER))
    };
    let change = |ioctl: &Ioctl<'_, _>| {
        each_fails(&Steps {
            reset,
            call: || ioctl.call(),
            unchanged,
        })
    };

    rule_for_stop(&device)?;
    let changes = change(&start)? + change(&stop)?;
    let again = reads(|| stop.call())?;

    ensure!(
        again.allocations == 0,
        "stopping what is stopped allocates: {again}"
    );
    Ok(changes + reads(|| read.call())?)
}

/// START, STOP and READ.
fn statistics() -> Result<Faults> {
    let (guest, device) = attached()?;
    let guest = RefCell::new(guest);
    let room = Array::<Stat>::room(MAX_STATS as usize)?;
    let start = Ioctl::new(&device, Stats::new(uapi::START))?;
    let stop = Ioctl::new(&device, Stats::new(uapi::STOP))?;
    let read = Ioctl::new(&device, Stats::read(&room, MAX_STATS as usize))?;
    let reset = || {
        start.call()?;
        guest.borrow_mut().rdmsr(READ_BEFORE)?;
        Ok(())
    };
    // What was counted before is there, and accesses are still counted.
    let unchanged = || {
        let mut stats = Stats::read(&room, MAX_STATS as usize);

        guest.borrow_mut().rdmsr(READ_AFTER)?;
        device.call(&mut stats).context("STATS: read")?;
        let counted = room.read(stats.nr_records as usize);
        let is_counted = |index| {
            counted
                .iter()
                .any(|stat| stat.index == index && stat.count == 1)
        };

        Ok(is_counted(READ_BEFORE) && is_counted(READ_AFTER))
    };
    let change = |ioctl: &Ioctl<'_, _>| {
        each_fails(&Steps {
            reset,
            call: || ioctl.call(),
            unchanged,
        })
    };

    rule_for_stop(&device)?;
    let changes = change(&start)? + change(&stop)?;
    let again = reads(|| stop.call())?;

    ensure!(
        again.allocations == 0,
        "stopping what is stopped allocates: {again}"
    );
    Ok(changes + reads(|| read.call())?)
}

/// BATCH_SET of one MSR.
struct SetBatch<'a> {
    guest: &'a Guest,
    ioctl: Ioctl<'a, Batch<'a>>,
}

impl SetBatch<'_> {
    const OLD: u64 = 1;
    const NEW: u64 = 2;
}

impl Call for SetBatch<'_> {
    fn reset(&self) -> Result<()> {
        ensure!(msrs::set(self.guest.vcpu(), STORED, Self::OLD)?, "refused");
        Ok(())
    }

    fn call(&self) -> ioctl::Result<()> {
        self.ioctl.call()
    }

    fn unchanged(&self) -> Result<bool> {
        Ok(msrs::get(self.guest.vcpu(), STORED)? == Some(Self::OLD))
    }

    // As in KVM_SET_MSRS, what was written stays written.
    fn copies_results(&self) -> bool {
        true
    }
}

fn batch() -> Result<Faults> {
    let (guest, device) = attached()?;
    let entry = Entry {
        kind: uapi::ENTRY_MSR,
        id: STORED.into(),
        data: SetBatch::NEW,
        ..Entry::default()
    };
    let entries = Array::new(&[entry; 4])?;
    let ioctl = Ioctl::new(&device, Batch::new(uapi::BATCH_SET, &entries, 4))?;

    each_fails(&SetBatch {
        guest: &guest,
        ioctl,
    })
}

fn save_list() -> Result<Faults> {
    let (_guest, device) = attached()?;
    let room = Array::<SaveEntry>::room(ROOM)?;

    let list = Ioctl::new(&device, SaveList::new(&room, ROOM))?;

    reads(|| list.call())
}
