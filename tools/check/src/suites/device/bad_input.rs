// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Wrong sizes, operations, flags and addresses.

use std::os::fd::AsRawFd;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::UserPtr;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::Attach;
use kvm_msr_guest::device::uapi::Batch;
use kvm_msr_guest::device::uapi::Entry;
use kvm_msr_guest::device::uapi::GetPolicy;
use kvm_msr_guest::device::uapi::Info;
use kvm_msr_guest::device::uapi::Learn;
use kvm_msr_guest::device::uapi::Learned;
use kvm_msr_guest::device::uapi::RIGHTS;
use kvm_msr_guest::device::uapi::SetPolicy;
use kvm_msr_guest::device::uapi::Structure;
use kvm_msr_guest::memory::PAGE;
use kvm_msr_guest::memory::Protection;

use super::Test;
use super::setup::attached;
use super::setup::fails;
use super::setup::guest;
use super::setup::learn;
use super::setup::learned;
use super::setup::set_policy;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("sizes of structures", sizes),
    ("addresses of structures", addresses),
    ("unknown ioctls", unknown),
    ("LEARN with bad input", bad_learn),
    ("BATCH with bad input", bad_batch),
];

/// Calls with sizes around the structure's. `with_size` sets the member.
fn sizes_of<S: Structure + Copy>(
    device: &Device,
    name: &str,
    structure: &S,
    with_size: impl Fn(&mut S, u32),
) -> Result<()> {
    let call = |size: usize, tail: &[u8]| {
        let mut structure = *structure;

        with_size(&mut structure, size as u32);
        device.call_with_tail(&mut structure, tail)
    };

    for size in [0, 1, 4, 8, S::SIZE - 1] {
        let step = format!("{name} of {size} bytes");
        fails(&step, call(size, &[]), Errno::EINVAL)?;
    }
    // The bytes that the module does not know must be 0, up to the last one.
    let mut tail = vec![0; PAGE - S::SIZE];
    for size in [S::SIZE + 1, S::SIZE + 8, PAGE] {
        let step = || format!("{name} of {size} bytes");

        call(size, &tail).with_context(step)?;
        for at in [0, size - S::SIZE - 1] {
            tail[at] = 1;
            fails(&step(), call(size, &tail), Errno::E2BIG)?;
            tail[at] = 0;
        }
        // A byte beyond the size is not part of it.
        if size < PAGE {
            tail[size - S::SIZE] = 1;
            call(size, &tail).with_context(step)?;
            tail[size - S::SIZE] = 0;
        }
    }
    for size in [PAGE + 1, 1 << 20, u32::MAX as usize] {
        let step = format!("{name} of {size} bytes");
        fails(&step, call(size, &vec![0; 2 * PAGE]), Errno::E2BIG)?;
    }
    Ok(())
}

fn sizes() -> Result<String> {
    let (_guest, device) = attached()?;
    let rules = Array::new(&[])?;
    let entries = Array::new(&[])?;

    sizes_of(&device, "INFO", &Info::new(), |s, size| s.size = size)?;
    sizes_of(
        &device,
        "SET_POLICY",
        &SetPolicy::new(&rules, 0),
        |s, size| s.size = size,
    )?;
    sizes_of(
        &device,
        "GET_POLICY",
        &GetPolicy::new(&rules, 0),
        |s, size| s.size = size,
    )?;
    let start = Learn::new(uapi::START);
    sizes_of(&device, "LEARN", &start, |s, size| s.size = size)?;
    let batch = Batch::new(uapi::BATCH_GET, &entries, 0);
    sizes_of(&device, "BATCH", &batch, |s, size| s.size = size)?;

    // ATTACH succeeds only once for each file.
    let guest = guest(Engine::Rust)?;
    for (size, tail, errno) in [
        (0, 0, Errno::EINVAL),
        (15, 0, Errno::EINVAL),
        (17, 1, Errno::E2BIG),
        (PAGE + 1, 0, Errno::E2BIG),
    ] {
        let device = Device::open()?;
        let mut attach = Attach::new(guest.vm().as_raw_fd(), RIGHTS);

        attach.size = size as u32;
        let result = device.call_with_tail(&mut attach, &[tail; 2 * PAGE]);
        fails(&format!("ATTACH of {size} bytes"), result, errno)?;
    }
    let device = Device::open()?;
    let mut attach = Attach::new(guest.vm().as_raw_fd(), RIGHTS);
    attach.size = PAGE as u32;
    device
        .call_with_tail(&mut attach, &[0; PAGE])
        .context("ATTACH of a page")?;
    Ok(String::new())
}

/// Calls with a structure that is not there, or not all of it, or can't be written.
fn addresses_of<S: Structure>(
    device: &Device,
    name: &str,
    structure: &S,
    has_results: bool,
) -> Result<()> {
    for result in device.call_nowhere(S::REQUEST) {
        fails(name, result, Errno::EFAULT)?;
    }
    for length in [0, 1, 3, 4, S::SIZE - 1] {
        fails(
            &format!("{length} bytes of {name}"),
            device.call_truncated(structure, length),
            Errno::EFAULT,
        )?;
    }
    let result = device.call_read_only(structure);
    if has_results {
        fails(&format!("read-only {name}"), result, Errno::EFAULT)?;
    } else {
        result.with_context(|| format!("read-only {name}"))?;
    }
    Ok(())
}

fn addresses() -> Result<String> {
    let (_guest, device) = attached()?;
    let rules = Array::new(&[])?;
    let entries = Array::new(&[])?;
    let records = Array::new(&[])?;
    let vm = guest(Engine::Rust)?;
    let other = Device::open()?;

    addresses_of(&device, "INFO", &Info::new(), true)?;
    addresses_of(&device, "SET_POLICY", &SetPolicy::new(&rules, 0), false)?;
    addresses_of(&device, "GET_POLICY", &GetPolicy::new(&rules, 0), true)?;
    addresses_of(&device, "LEARN start", &Learn::new(uapi::START), false)?;
    addresses_of(&device, "LEARN read", &Learn::read(&records, 0), true)?;
    addresses_of(&device, "LEARN stop", &Learn::new(uapi::STOP), false)?;
    addresses_of(
        &device,
        "BATCH",
        &Batch::new(uapi::BATCH_GET, &entries, 0),
        true,
    )?;
    addresses_of(
        &other,
        "ATTACH",
        &Attach::new(vm.vm().as_raw_fd(), RIGHTS),
        false,
    )?;
    Ok(String::new())
}

fn unknown() -> Result<String> {
    let (_guest, device) = attached()?;
    let unattached = Device::open()?;

    for request in [
        uapi::TYPE << 8 | 0x08,
        uapi::TYPE << 8 | 0xff,
        0xae00,
        0,
        u32::MAX,
        // With a direction and a size, as _IOWR() has them.
        0xc028_0000 | uapi::INFO,
    ] {
        for device in [&device, &unattached] {
            for result in device.call_nowhere(request) {
                fails(&format!("ioctl {request:#x}"), result, Errno::ENOTTY)?;
            }
        }
    }
    Ok(String::new())
}

fn bad_learn() -> Result<String> {
    let (mut guest, device) = attached()?;
    let read = |nr_records: u32, pointer: UserPtr<'_>| {
        let none = Array::new(&[])?;
        let mut learn = Learn {
            records: pointer,
            ..Learn::read(&none, nr_records as usize)
        };
        let result = device.call(&mut learn);

        Ok::<_, anyhow::Error>((result, learn.nr_records))
    };

    for op in [uapi::STOP, uapi::OP_READ] {
        fails("not learning", learn(&device, op), Errno::EINVAL)?;
    }
    learn(&device, uapi::START)?;
    for _ in 0..3 {
        for index in [0x174, 0x277] {
            guest.rdmsr(index)?;
        }
    }
    let records = learned(&device)?;
    ensure!(records.len() == 2, "{records:x?}");

    for op in [3, u32::MAX] {
        fails("unknown operation", learn(&device, op), Errno::EINVAL)?;
    }
    for op in [uapi::START, uapi::STOP, uapi::OP_READ] {
        let mut reserved = Learn::new(op);

        reserved.reserved = 1 << 31;
        fails("reserved", device.call(&mut reserved), Errno::EINVAL)?;
    }
    for room in [0, 1] {
        let (result, number) = read(room, UserPtr::null())?;

        fails("little room", result, Errno::E2BIG)?;
        ensure!(number == 2, "{number} records instead of 2");
    }
    for pointer in [
        UserPtr::null(),
        UserPtr::non_canonical(),
        UserPtr::kernel(),
        Array::<Learned>::new(&[])?.at(),
        Array::new(&[Learned::default()])?.at(),
    ] {
        fails("bad records", read(2, pointer)?.0, Errno::EFAULT)?;
    }
    let mut array = Array::new(&[Learned::default(); 2])?;
    array.memory.protect(0..1, Protection::Read)?;
    fails("read-only", read(2, array.at())?.0, Errno::EFAULT)?;

    ensure!(learned(&device)? == records, "the records changed");
    learn(&device, uapi::STOP)?;
    learn(&device, uapi::STOP).context("stopped twice")?;
    ensure!(learned(&device)? == records, "the records changed");
    Ok(String::new())
}

fn bad_batch() -> Result<String> {
    const PAT: u64 = 0x277;
    let (_guest, device) = attached()?;
    let entry = |data| Entry {
        id: PAT,
        data,
        ..Default::default()
    };
    let array = Array::new(&[entry(0); 2])?;

    set_policy(&device, &[])?;
    for op in [2, u32::MAX] {
        let mut batch = Batch::new(op, &array, 2);
        fails("unknown operation", device.call(&mut batch), Errno::EINVAL)?;
    }
    for vcpu_id in [1, 4096, u32::MAX] {
        let mut batch = Batch::new(uapi::BATCH_GET, &array, 2);

        batch.vcpu_id = vcpu_id;
        fails("no such vCPU", device.call(&mut batch), Errno::ENOENT)?;
    }
    for pointer in [UserPtr::null(), UserPtr::non_canonical(), UserPtr::kernel()] {
        let mut batch = Batch::new(uapi::BATCH_GET, &array, 2);

        batch.entries = pointer;
        batch.nr_done = 77;
        fails("bad entries", device.call(&mut batch), Errno::EFAULT)?;
        ensure!(batch.nr_done == 0, "{} done", batch.nr_done);
    }
    // More entries than there are. The kernel copies some at a time.
    for nr_entries in [3, 1000, u32::MAX] {
        let entries = Array::new(&[entry(0); 200])?;
        let mut batch = Batch::new(uapi::BATCH_GET, &entries, 200);

        batch.nr_entries = 198 + nr_entries.min(u32::MAX - 198);
        fails("entries missing", device.call(&mut batch), Errno::EFAULT)?;
        ensure!(batch.nr_done <= 200, "{} done", batch.nr_done);
        let done = entries.read(200);
        for (i, entry) in done.iter().enumerate() {
            let has_status = entry.data != 0;
            ensure!(
                has_status == (i < batch.nr_done as usize),
                "{} done, entry {i} is {entry:x?}",
                batch.nr_done
            );
        }
    }
    // Unknown kinds and registers are errors of the entry. The others are handled.
    let mixed = [
        (uapi::ENTRY_MSR, PAT, 0),
        (3, PAT, status_of(Errno::EOPNOTSUPP)),
        (u32::MAX, PAT, status_of(Errno::EOPNOTSUPP)),
        (uapi::ENTRY_MSR, 1 << 32 | PAT, status_of(Errno::EINVAL)),
        (uapi::ENTRY_FEATURE, 1 << 32, status_of(Errno::EINVAL)),
        (uapi::ENTRY_REG, 0, status_of(Errno::EINVAL)),
        (uapi::ENTRY_MSR, 0x5000_0000, status_of(Errno::ENOENT)),
        (uapi::ENTRY_MSR, PAT, 0),
    ];
    let entries = mixed.map(|(kind, id, _)| Entry {
        kind,
        id,
        status: 77,
        ..Default::default()
    });
    let array = Array::new(&entries)?;
    let mut batch = Batch::new(uapi::BATCH_GET, &array, entries.len());
    device.call(&mut batch).context("BATCH")?;
    ensure!(batch.nr_done == 8, "{} done", batch.nr_done);
    for (entry, (kind, id, status)) in array.read(entries.len()).iter().zip(mixed) {
        ensure!(
            entry.status == status && entry.kind == kind && entry.id == id,
            "{entry:x?} instead of status {status}"
        );
    }
    // Read-only entries can't get a status.
    let mut array = Array::new(&[entry(6)])?;
    array.memory.protect(0..1, Protection::Read)?;
    let mut batch = Batch::new(uapi::BATCH_GET, &array, 1);
    fails("read-only", device.call(&mut batch), Errno::EFAULT)?;
    ensure!(batch.nr_done == 0, "{} done", batch.nr_done);
    Ok(String::new())
}

fn status_of(errno: Errno) -> i32 {
    -errno.0
}
