// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Allocations that fail, one after the other.  Only the debug kernel can make
//! them, by `CONFIG_FAILSLAB` and the task's `fail-nth`.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;
use kvm_ioctls::KvmNestedStateBuffer;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Range;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Vendor;

use super::filter_guest::NOBODY;
use super::lifetimes::Modules;
use super::lifetimes::PAT;
use super::lifetimes::guest;
use super::lifetimes_nested::guest_in_l2;
use super::lifetimes_nested::state_of;

const FAIL_NTH: &str = "/proc/thread-self/fail-nth";

/// KVM_STATE_NESTED_RUN_PENDING
const RUN_PENDING: u16 = 1 << 1;

/// More than any of the calls allocates.
const MOST: u32 = 1000;

/// Whether the kernel can make allocations fail.
pub fn possible() -> bool {
    Path::new("/sys/kernel/debug/failslab").exists() && Path::new(FAIL_NTH).exists()
}

/// A call that allocates.
trait Call {
    /// Makes what the call changes as it was.
    fn reset(&self) -> Result<()>;
    fn call(&self) -> ioctl::Result<()>;
    /// Whether everything is as [`Self::reset`] left it.
    fn unchanged(&self) -> Result<bool>;
}

/// Has a call fail in its first allocation, then in its second, and so on until
/// it has no more.  Returns how many it has.
fn each_fails(call: &impl Call) -> Result<u32> {
    // Open all the time, as that allocates, too.
    let fail_nth = File::options().read(true).write(true).open(FAIL_NTH)?;

    for nth in 1..=MOST {
        call.reset()?;
        let nth_text = nth.to_string();
        let mut left = [0; 16];
        fail_nth.write_at(nth_text.as_bytes(), 0)?;
        let result = call.call();
        fail_nth.read_at(&mut left, 0)?;
        fail_nth.write_at(b"0", 0)?;

        // What is left of the number has not been counted down.
        if !left.starts_with(b"0\n") {
            result.context("no allocation failed")?;
            return Ok(nth - 1);
        }
        match result {
            Err(Errno::ENOMEM) => ensure!(
                call.unchanged()?,
                "allocation {nth} failed, and the call did something"
            ),
            // Some have another way: what kmalloc() refuses, vmalloc() may have.
            Ok(()) => (),
            Err(errno) => bail!("allocation {nth} failed, and the call with {errno}"),
        }
    }
    bail!("more than {MOST} allocations");
}

struct SetFilter<'a> {
    guest: &'a Guest,
    old: Filter,
    new: Filter,
}

impl Call for SetFilter<'_> {
    fn reset(&self) -> Result<()> {
        Ok(self.old.set(&self.guest.vm_fd()?)?)
    }

    fn call(&self) -> ioctl::Result<()> {
        self.new.set(self.guest.vm())
    }

    fn unchanged(&self) -> Result<bool> {
        let now = self.guest.folder().filter()?;

        self.reset()?;
        Ok(now == self.guest.folder().filter()?)
    }
}

/// So many entries that they need memory of their own.
const ENTRIES: usize = 16;

fn entries(data: u64) -> Msrs {
    let entry = kvm_msr_entry {
        index: PAT,
        data,
        ..Default::default()
    };

    Msrs::from_entries(&[entry; ENTRIES]).expect("there are few")
}

struct GetMsrs<'a>(&'a Guest);

impl Call for GetMsrs<'_> {
    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn call(&self) -> ioctl::Result<()> {
        self.0.vcpu().get_msrs(&mut entries(0))?;
        Ok(())
    }

    fn unchanged(&self) -> Result<bool> {
        Ok(true)
    }
}

struct SetMsrs<'a>(&'a Guest);

impl SetMsrs<'_> {
    const OLD: u64 = 0x0007_0406_0007_0406;
    const NEW: u64 = 6;
}

impl Call for SetMsrs<'_> {
    fn reset(&self) -> Result<()> {
        ensure!(
            msrs::set(self.0.vcpu(), PAT, Self::OLD)?,
            "PAT refuses a value"
        );
        Ok(())
    }

    fn call(&self) -> ioctl::Result<()> {
        self.0.vcpu().set_msrs(&entries(Self::NEW))?;
        Ok(())
    }

    fn unchanged(&self) -> Result<bool> {
        Ok(msrs::get(self.0.vcpu(), PAT)? == Some(Self::OLD))
    }
}

struct GetNested<'a>(&'a Nested);

impl Call for GetNested<'_> {
    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn call(&self) -> ioctl::Result<()> {
        let mut state = KvmNestedStateBuffer::empty();

        self.0.vcpu().nested_state(&mut state)?;
        Ok(())
    }

    fn unchanged(&self) -> Result<bool> {
        Ok(true)
    }
}

/// From L2 to L2 that is about to run.
struct SetNested<'a> {
    guest: &'a Nested,
    old: KvmNestedStateBuffer,
    new: KvmNestedStateBuffer,
}

impl Call for SetNested<'_> {
    fn reset(&self) -> Result<()> {
        Ok(self.guest.vcpu().set_nested_state(&self.old)?)
    }

    fn call(&self) -> ioctl::Result<()> {
        Ok(self.guest.vcpu().set_nested_state(&self.new)?)
    }

    fn unchanged(&self) -> Result<bool> {
        // On VMX, what fails later leaves VMX operation or L2, as in C.
        Ok(self.guest.vendor() == Vendor::Vmx || state_of(self.guest)?.flags == self.old.flags)
    }
}

struct CreateVm(Kvm);

impl Call for CreateVm {
    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn call(&self) -> ioctl::Result<()> {
        self.0.create_vm()?;
        Ok(())
    }

    fn unchanged(&self) -> Result<bool> {
        Ok(true)
    }
}

/// Every call that allocates survives that, answers `ENOMEM` and changes nothing.
pub fn allocations_fail(_: &Modules) -> Result<String> {
    for injector in ["failslab", "fail_page_alloc"] {
        // Without a stack on the console for each of them.
        for (attribute, value) in [("ignore-gfp-wait", "N"), ("verbose", "0")] {
            let file = format!("/sys/kernel/debug/{injector}/{attribute}");

            fs::write(&file, value).context(file)?;
        }
    }

    let mut guest = guest(Engine::Rust)?;
    guest.deflect(KVM_MSR_EXIT_REASON_FILTER)?;
    // A short range first, whose bitmap moves when there is a long one.
    let mut new = Filter::deny_by_default().with(Range::allow(READ, NOBODY, 64));
    for i in 1..16 {
        new = new.with(Range::allow(READ, NOBODY + 0x4000 * i, 0x3000));
    }

    let create = each_fails(&CreateVm(Kvm::new()?))?;
    let set_filter = each_fails(&SetFilter {
        guest: &guest,
        old: Filter::allow_by_default().with(Range::deny(READ, NOBODY, 7)),
        new,
    })?;
    let get = each_fails(&GetMsrs(&guest))?;
    let set = each_fails(&SetMsrs(&guest))?;
    let nested = guest_in_l2()?;
    let old = state_of(&nested)?;
    let mut new = old;
    new.flags |= RUN_PENDING;
    let get_nested = each_fails(&GetNested(&nested))?;
    let set_nested = each_fails(&SetNested {
        guest: &nested,
        old,
        new,
    })?;

    ensure!(create > 10, "a VM allocates a lot");
    ensure!(
        set_filter > 1,
        "a filter with long bitmaps allocates at least twice"
    );
    ensure!(get > 0 && set > 0, "lists are allocated");
    ensure!(set_nested > 0, "nested state is allocated");
    ensure!(
        guest.rdmsr(NOBODY + 0x3000)?.user_space().is_some(),
        "the last filter is in force"
    );
    Ok(format!(
        "{create} of a VM, {set_filter} of a filter, {get} of KVM_GET_MSRS, {set} of \
         KVM_SET_MSRS, {get_nested} of KVM_GET_NESTED_STATE, {set_nested} of KVM_SET_NESTED_STATE"
    ))
}
