// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Opening and attaching.

use std::fs;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::device;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::Info;
use kvm_msr_guest::device::uapi::RIGHT_OBSERVE;
use kvm_msr_guest::device::uapi::RIGHT_POLICY;
use kvm_msr_guest::device::uapi::RIGHT_STATE;
use kvm_msr_guest::device::uapi::RIGHTS;

use super::Test;
use super::setup::attached;
use super::setup::fails;
use super::setup::guest;
use super::setup::learn;
use super::setup::set_policy;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("mode 0600, and what INFO says", info),
    ("only VMs of the engine's are attached to", not_a_vm),
    ("rights", rights),
    ("one file has the right to set policies", one_policy_file),
];

fn info() -> Result<String> {
    let metadata = fs::metadata(device::PATH).context(device::PATH)?;

    ensure!(
        metadata.file_type().is_char_device(),
        "not a character device"
    );
    ensure!(
        metadata.mode() & 0o7777 == 0o600 && metadata.uid() == 0,
        "mode {:o} of user {}",
        metadata.mode(),
        metadata.uid()
    );
    let device = Device::open()?;
    let mut info = Info::new();

    device.call(&mut info).context("INFO")?;
    ensure!(
        info.size == 40 && info.version == uapi::VERSION && info.reserved == 0,
        "{info:?}"
    );
    let features = uapi::FEATURE_POLICY | uapi::FEATURE_LEARN | uapi::FEATURE_BATCH;
    ensure!(info.features & features == features, "{info:?}");
    ensure!(info.actions == (1 << (uapi::MATCH + 1)) - 1, "{info:?}");
    ensure!(
        info.max_rules == uapi::MAX_RULES
            && info.max_learned == uapi::MAX_LEARNED
            && info.nr_buckets == 32,
        "{info:?}"
    );
    Ok(format!("features {:#x}", info.features))
}

fn not_a_vm() -> Result<String> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let served = guest(Engine::Rust)?;
    let device = Device::open()?;
    let other = Device::open()?;
    let file = File::open("/dev/null")?;

    for (name, fd) in [
        ("/dev/null", file.as_raw_fd()),
        ("/dev/kvm", kvm.as_raw_fd()),
        ("a vCPU", served.vcpu().as_raw_fd()),
        ("a file of the device", other.as_raw_fd()),
    ] {
        fails(name, device.attach(fd, RIGHTS), Errno::EINVAL)?;
    }
    for fd in [-1, i32::MIN, i32::MAX, 1 << 20] {
        fails(&fd.to_string(), device.attach(fd, RIGHTS), Errno::EBADF)?;
    }
    let closed = {
        let vm = served.vm_fd()?;

        vm.as_raw_fd()
    };
    fails("closed", device.attach(closed, RIGHTS), Errno::EBADF)?;
    let by_c = guest(Engine::C)?;
    fails(
        "a VM of C's",
        device.attach(by_c.vm().as_raw_fd(), RIGHTS),
        Errno::EOPNOTSUPP,
    )?;
    // None of this has attached the file, or taken the VM's right to set a policy.
    fails("SET_POLICY", set_policy(&device, &[]), Errno::ENOTCONN)?;
    device.attach(served.vm().as_raw_fd(), RIGHTS)?;
    set_policy(&device, &[])?;
    Ok(String::new())
}

fn rights() -> Result<String> {
    let guest = guest(Engine::Rust)?;
    let vm = guest.vm().as_raw_fd();
    let device = Device::open()?;

    for rights in [0, 1 << 3, 1 << 63, RIGHTS | 1 << 3, RIGHTS | 1 << 32] {
        fails(
            &format!("rights {rights:#x}"),
            device.attach(vm, rights),
            Errno::EINVAL,
        )?;
    }
    for request in [uapi::SET_POLICY, uapi::GET_POLICY, uapi::LEARN, uapi::BATCH] {
        // The argument is not read.
        for result in device.call_nowhere(request) {
            fails("not attached", result, Errno::ENOTCONN)?;
        }
    }
    device.attach(vm, RIGHTS)?;
    for rights in [RIGHT_OBSERVE, RIGHTS] {
        fails("attached", device.attach(vm, rights), Errno::EALREADY)?;
    }
    drop(device);

    for rights in [RIGHT_OBSERVE, RIGHT_POLICY, RIGHT_STATE] {
        let device = Device::attached(guest.vm(), rights)?;

        for (request, right) in [
            (uapi::SET_POLICY, RIGHT_POLICY),
            (uapi::GET_POLICY, RIGHT_OBSERVE),
            (uapi::LEARN, RIGHT_OBSERVE),
            (uapi::BATCH, RIGHT_STATE),
        ] {
            let errno = if rights & right != 0 {
                Errno::EFAULT
            } else {
                Errno::EACCES
            };

            for result in device.call_nowhere(request) {
                fails(
                    &format!("ioctl {request:#x} with rights {rights:#x}"),
                    result,
                    errno,
                )?;
            }
        }
        device.call(&mut Info::new()).context("INFO")?;
    }
    Ok(String::new())
}

fn one_policy_file() -> Result<String> {
    let (guest, first) = attached()?;
    let vm = guest.vm().as_raw_fd();
    let second = Device::open()?;

    for rights in [RIGHT_POLICY, RIGHTS] {
        fails("second file", second.attach(vm, rights), Errno::EBUSY)?;
    }
    // The failed calls have not attached it.
    second.attach(vm, RIGHT_OBSERVE | RIGHT_STATE)?;
    fails("no right", set_policy(&second, &[]), Errno::EACCES)?;
    // A file that has not the right does not free it when it is closed.
    drop(second);
    let third = Device::open()?;
    fails("third file", third.attach(vm, RIGHT_POLICY), Errno::EBUSY)?;

    drop(first);
    third.attach(vm, RIGHT_POLICY)?;
    set_policy(&third, &[])?;
    fails("no right", learn(&third, uapi::START), Errno::EACCES)?;
    // Another VM has a right of its own.
    let (_guest, other) = attached()?;
    set_policy(&other, &[])?;
    Ok(String::new())
}
